"""Frames: what one end says the other understands, and what is no frame is refused. Fuzzing sends the rest."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotwise.edges.local import frames

COUNTS = st.integers(0, (1 << 62) - 1)
NAMES = st.text(max_size=20)
TENSORS = st.builds(frames.Tensor, NAMES, NAMES, st.lists(COUNTS, max_size=4).map(tuple), COUNTS, COUNTS)
SPENT = st.builds(frames.Spent, NAMES, *[st.none() | COUNTS] * 3, st.none() | NAMES, *[st.none() | COUNTS] * 3)
CLIENT_FRAMES = st.one_of(
    st.builds(frames.Hello),
    st.builds(
        frames.Ask,
        COUNTS,
        NAMES,
        NAMES,
        st.lists(TENSORS, max_size=3).map(tuple),
        st.lists(NAMES, max_size=3).map(tuple),
        COUNTS,
        COUNTS,
        st.booleans(),
        NAMES,
        st.lists(COUNTS, max_size=3).map(tuple),
    ),
    st.builds(
        frames.Relay,
        COUNTS,
        NAMES,
        NAMES,
        st.binary(max_size=20),
        COUNTS,
        COUNTS,
        COUNTS,
        NAMES,
        NAMES,
        NAMES,
        st.lists(COUNTS, max_size=3).map(tuple),
    ),
    st.builds(frames.Release, st.lists(COUNTS, max_size=3).map(tuple)),
    st.builds(frames.Cancel, COUNTS),
)
SERVER_FRAMES = st.one_of(
    st.builds(frames.Welcome, NAMES, COUNTS, COUNTS, COUNTS),
    st.builds(
        frames.Answer,
        COUNTS,
        NAMES,
        NAMES,
        st.lists(TENSORS, max_size=3).map(tuple),
        st.none() | COUNTS,
        st.none() | SPENT,
        NAMES,
    ),
    st.builds(frames.Relayed, COUNTS, st.binary(max_size=20), COUNTS, st.none() | COUNTS),
    st.builds(
        frames.Refusal,
        st.none() | COUNTS,
        st.integers(100, 599),
        NAMES,
        NAMES,
        st.none() | st.floats(allow_nan=False),
        COUNTS,
    ),
)


@given(CLIENT_FRAMES)
def test_what_a_client_says_is_understood_as_it_was_meant(frame: frames.ClientFrame) -> None:
    assert frames.decode_client(frames.encode(frame)) == frame


@given(SERVER_FRAMES)
def test_what_a_server_says_is_understood_as_it_was_meant(frame: frames.ServerFrame) -> None:
    assert frames.decode_server(frames.encode(frame)) == frame


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x02" + frames.encode(frames.Hello())[1:]])
def test_another_version_is_refused_by_its_number(data: bytes) -> None:
    with pytest.raises(frames.FrameError, match="speaks version 1"):
        frames.decode_client(data)


def test_a_negative_offset_and_one_beyond_counting_are_no_frame() -> None:
    for offset in (-1, 1 << 62, 1 << 63):
        fields = [2, 1, "m", "", [["x", "FP32", [1], offset, 4]]]
        with pytest.raises(frames.FrameError):
            frames.decode_client(b"\x01" + msgspec.msgpack.encode(fields))
