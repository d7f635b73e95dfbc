"""The codec, given anything: it answers or says 400, and never anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotwise.edges.oip.codec import Contract, decode
from slotwise.edges.oip.errors import WireError
from tests.unit.codec_cases import contract, filled, message, tensor

EVERYTHING = contract(
    tensor("FP32", (-1, 2), "f"), tensor("BYTES", (-1,), "t"), tensor("BOOL", (-1,), "b"), tensor("INT64", (-1,), "i")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["f", "t", "b", "i"]) | JSON,
        "datatype": st.sampled_from(["FP32", "BYTES", "BOOL", "INT64", "FP16"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
    },
    optional={"data": st.lists(JSON, max_size=6) | JSON, "parameters": JSON},
)
BODIES = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, max_size=4) | JSON}, optional={"parameters": JSON, "id": JSON}
)


def outcome(body: bytes, follows: int, model: Contract) -> int:
    try:
        filled(decode(body, follows, model), b"\x00" * follows)
    except WireError as error:
        return error.status if error.message else 0
    return 200


@given(st.binary(max_size=80))
def test_any_bytes_are_an_answer_or_a_400(body: bytes) -> None:
    assert outcome(body, 0, EVERYTHING) in (200, 400)


@given(BODIES, st.integers(0, 9))
def test_any_json_is_an_answer_or_a_400(body: object, follows: int) -> None:
    assert outcome(json.dumps(body).encode(), follows, EVERYTHING) in (200, 400)


@given(st.data())
def test_a_request_with_some_bytes_changed_is_an_answer_or_a_400(data: st.DataObject) -> None:
    body = bytearray(message(shape=[2, 2], data=[[1, 2], [3, 4]], id="a", parameters={"timeout": 3}))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(body), 0, contract(tensor())) in (200, 400)


@pytest.mark.parametrize("depth", [2, 1_000, 100_000])
def test_json_of_any_depth_is_a_400(depth: int) -> None:
    for body in (b"[" * depth, b'{"z":' * depth, message().replace(b"[1, 2]}", b"[" * depth + b"]" * depth + b"}")):
        assert outcome(body, 0, contract(tensor())) == 400
