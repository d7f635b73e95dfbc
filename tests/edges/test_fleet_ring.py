"""The ring of records, the messages in it, and the room behind it."""

from __future__ import annotations

import os
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotwise.edges.fleets.channel import ChannelFull, Outlet
from slotwise.edges.fleets.messages import (
    VERSION,
    LoadFailure,
    MessageError,
    Question,
    RunCommand,
    Tensor,
    decode_control,
    decode_result,
    decode_run,
    encode,
)
from slotwise.edges.fleets.ring import RecordTooLong, Ring
from slotwise.facts.types import Failure

HEADER_BYTES = 128


def make_memory(nbytes: int) -> memoryview:
    return memoryview(bytearray(HEADER_BYTES + nbytes))


@given(st.lists(st.one_of(st.none(), st.binary(max_size=60)), max_size=300))
def test_records_come_out_as_they_went_in(steps: list[bytes | None]) -> None:
    memory = make_memory(256)
    writer, reader = Ring(memory), Ring(memory)
    expected: deque[bytes] = deque()
    for step in steps:
        if step is None:
            assert reader.get() == (expected.popleft() if expected else None)
        elif writer.put(step):
            expected.append(step)
        else:
            assert expected, "an empty ring takes any record that is not too long"
    while expected:
        assert reader.get() == expected.popleft()
    assert reader.get() is None


def test_a_full_ring_refuses_a_record_and_stays_as_it_was() -> None:
    memory = make_memory(64)
    ring = Ring(memory)
    while ring.put(b"0123"):
        pass
    before = bytes(memory)
    assert not ring.put(b"0123")
    assert bytes(memory) == before


def test_a_record_that_could_never_fit_is_named_with_the_limit() -> None:
    ring = Ring(make_memory(64))
    with pytest.raises(RecordTooLong, match="29 bytes is over the ring's limit of 28"):
        ring.put(bytes(29))


def test_what_a_dead_writer_finished_can_be_read_and_nothing_else() -> None:
    memory = make_memory(256)
    writer = Ring(memory)
    writer.put(b"whole")
    written = bytes(memory[:8])
    writer.put(b"half")
    memory[:8] = written  # as if it had died before its last step
    reader = Ring(memory)
    assert [reader.get(), reader.get()] == [b"whole", None]


def test_records_that_find_the_ring_full_wait_in_order_and_the_limit_is_an_error() -> None:
    memory = make_memory(64)
    reader = Ring(memory)
    outlet = Outlet(Ring(memory), backlog_max=3)
    sent = [bytes([number]) for number in range(8 + 3)]
    for record in sent:
        outlet.put(record)
    with pytest.raises(ChannelFull):
        outlet.put(b"one too many")
    outlet.flush()
    assert os.eventfd_read(outlet.fd) == 1
    received = []
    for _ in range(len(sent)):
        record = reader.get()
        assert record is not None
        received.append(record)
        outlet.flush()
    assert received == sent
    assert not outlet.backlog
    os.close(outlet.fd)


def test_a_message_survives_its_encoding() -> None:
    question = Question(2, (Tensor("x", "FP32", (2, 3), 64, 24),), ("y",))
    command = RunCommand(batch_id=7, model="m/1", earliest_ns=1, latest_ns=1 << 62, questions=(question,))
    assert decode_run(encode(command)) == command
    failure = LoadFailure(model="m/1", load_id=3, failure=Failure.NO_MEMORY, message="short")
    assert decode_result(encode(failure)) == failure


def test_a_message_of_another_version_or_kind_is_refused() -> None:
    command = encode(RunCommand(batch_id=7, model="m/1", earliest_ns=1, latest_ns=2, questions=()))
    with pytest.raises(MessageError, match="version"):
        decode_run(bytes([VERSION + 1]) + command[1:])
    for decode in (decode_control, decode_result):
        with pytest.raises(MessageError):
            decode(command)
    with pytest.raises(MessageError):
        decode_run(b"")
