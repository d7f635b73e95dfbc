"""The codec of inference requests: what goes in comes out, and what does not fit is a 400 with words."""

from __future__ import annotations

import json
import struct
from http import HTTPStatus
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotwise.edges.oip import datatypes
from slotwise.edges.oip.answers import STATUSES, Payload, encode_answer
from slotwise.edges.oip.codec import HEADS_MAX, Bounds, Contract, Place, borrow, decode, decode_raw, fill, split
from slotwise.edges.oip.errors import WireError
from slotwise.facts.types import ZEROS_SEGMENT, Reason, TensorRef
from tests.unit.codec_cases import CODES, RANGES, binary, contract, decode_json, filled, message, tensor


def refusal(body: bytes, model: Contract, binary_nbytes: int = 0) -> str:
    with pytest.raises(WireError) as caught:
        decode(body, binary_nbytes, model)
    assert caught.value.status == 400
    return caught.value.message


# What goes in comes out


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, tuple[int, ...], list[object], bytes]:
    """A datatype with a JSON form, a shape, values, and the same values as bytes."""
    datatype = draw(st.sampled_from([*RANGES, "FP32", "FP64", "BOOL", "BYTES"]))
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    elements: st.SearchStrategy[object]
    if datatype == "BYTES":
        elements = st.text(max_size=12)
    elif datatype == "BOOL":
        elements = st.booleans()
    elif datatype.startswith("FP"):
        elements = st.floats(allow_nan=False, allow_infinity=False, width=32 if datatype == "FP32" else 64)
    else:
        elements = st.integers(*RANGES[datatype])
    values = draw(st.lists(elements, min_size=prod(shape), max_size=prod(shape)))
    return datatype, shape, values, encoded(datatype, values)


def encoded(datatype: str, values: list[object]) -> bytes:
    if datatype == "BYTES":
        texts = [str(text).encode() for text in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack(f"<{len(values)}{CODES[datatype]}", *values)


def nested(values: list[object], shape: tuple[int, ...]) -> list[object]:
    if len(shape) == 1:
        return values
    size = prod(shape[1:])
    return [nested(values[at * size : (at + 1) * size], shape[1:]) for at in range(shape[0])]


@given(tensors(), st.booleans())
def test_json_values_become_the_bytes_they_stand_for_flat_or_nested(
    case: tuple[str, tuple[int, ...], list[object], bytes], is_flat: bool
) -> None:
    datatype, shape, values, data = case
    model = contract(tensor(datatype, (-1,) * len(shape)))
    infer, found = decode_json(message(datatype, shape, values if is_flat else nested(values, shape)), model)
    assert found == data
    assert infer.parts[0].shape == shape


@given(tensors(), st.integers(1, 9))
def test_binary_data_arrives_as_it_was_in_whatever_pieces_it_comes(
    case: tuple[str, tuple[int, ...], list[object], bytes], step: int
) -> None:
    datatype, shape, _, data = case
    head, tail = binary(datatype, shape, data)
    infer = decode(head, len(tail), contract(tensor(datatype, (-1,) * len(shape))))
    memory, (ref,) = filled(infer, tail, step)
    assert bytes(memory.read(ref)) == data
    assert ref == TensorRef(name="x", datatype=datatype, shape=shape, segment=3, offset=0, nbytes=len(data))


@given(tensors(), st.booleans())
def test_an_answer_gives_back_the_values_in_json_and_in_binary(
    case: tuple[str, tuple[int, ...], list[object], bytes], is_binary: bool
) -> None:
    datatype, shape, _, data = case
    model = contract(tensor(datatype, (-1,) * len(shape)))
    head, tail = binary(datatype, shape, data, id="7", parameters={"binary_data_output": is_binary})
    infer = decode(head, len(tail), model)
    memory, outputs = filled(infer, tail)
    payload = encode_answer(infer.wish, model, outputs, memory.read, memory.write, None)
    answer, rest = parse(payload)
    assert answer["model_name"] == "m"
    assert answer["id"] == "7"
    (output,) = answer["outputs"]  # type: ignore[misc]  # a list of one, as asserted by the unpacking
    assert output["shape"] == list(shape)
    if is_binary:
        assert rest == data
        assert output["parameters"] == {"binary_data_size": len(data)}
    else:
        assert encoded(datatype, output["data"]) == data


def parse(payload: Payload) -> tuple[dict[str, object], bytes]:
    length = len(payload.body) if payload.head_length is None else payload.head_length
    return json.loads(payload.body[:length]), payload.body[length:]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_travel_as_raw_bytes_only(datatype: str) -> None:
    model = contract(tensor(datatype, (-1,)))
    head, tail = binary(datatype, (3,), b"\x01\x02\x03\x04\x05\x06", parameters={"binary_data_output": True})
    memory, (ref,) = filled(decode(head, 6, model), tail)
    assert bytes(memory.read(ref)) == tail
    assert "no JSON form" in refusal(message(datatype, [1], [1]), model)
    assert "ask for it with binary_data" in refusal(binary(datatype, (3,), tail)[0], model, 6)


def test_json_and_binary_tensors_may_be_mixed_and_each_is_aligned() -> None:
    model = contract(tensor("INT8", (3,), "a"), tensor("INT16", (2,), "b"), tensor("BOOL", (1,), "c"))
    inputs = [
        {"name": "c", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}},
        {"name": "a", "datatype": "INT8", "shape": [3], "data": [1, 2, 3]},
        {"name": "b", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
    ]
    infer = decode(json.dumps({"inputs": inputs}).encode(), 5, model)
    memory, found = filled(infer, b"\x01\x05\x00\x06\x00", step=2)
    assert {ref.name: bytes(memory.read(ref)) for ref in found} == {
        "a": b"\x01\x02\x03",
        "b": b"\x05\x00\x06\x00",
        "c": b"\x01",
    }
    assert [ref.offset % 64 for ref in found] == [0, 0, 0]


def test_the_raw_form_is_one_row_of_the_one_input() -> None:
    model = contract(tensor("FP32", (-1, 2, -1)), batchable=True)
    infer = decode_raw(b"\x00" * 24, 24, model)
    assert infer.parts[0].shape == (1, 2, 3)
    assert infer.rows == 1
    assert [wanted.is_binary for wanted in infer.wish.wanted] == [True]


def test_the_raw_form_takes_a_bare_element_of_bytes() -> None:
    infer = decode_raw(b"hello", 5, contract(tensor("BYTES", (1,))))
    memory, (ref,) = filled(infer)
    assert bytes(memory.read(ref)) == b"\x05\x00\x00\x00hello"


@pytest.mark.parametrize(
    ("model", "nbytes"),
    [
        (contract(tensor("FP32", (-1, -1))), 8),
        (contract(tensor("FP32", (2, 2))), 12),
        (contract(tensor("FP32", (-1, 2))), 9),
        (contract(tensor("BYTES", (2,))), 5),
        (contract(tensor(name="a"), tensor(name="b")), 8),
    ],
    ids=["two variable dimensions", "too little", "half an element", "two elements", "two inputs"],
)
def test_the_raw_form_refuses_what_it_cannot_tell(model: Contract, nbytes: int) -> None:
    with pytest.raises(WireError, match=r"raw form|not one row"):
        decode_raw(b"\x00" * nbytes, nbytes, model)


# Parameters


def test_timeout_priority_and_timing_are_read_and_others_ignored() -> None:
    parameters = {"timeout": 1500, "priority": 2, "slotwise_timing": True, "sequence_id": 4, "x": "y"}
    infer = decode(message(parameters=parameters), 0, contract(tensor()))
    assert (infer.timeout_ns, infer.priority, infer.wish.has_timing) == (1_500_000, 2, True)
    plain = decode(message(), 0, contract(tensor()))
    assert (plain.timeout_ns, plain.priority, plain.wish.has_timing, plain.wish.id) == (0, 0, False, "")


@pytest.mark.parametrize(
    "parameters",
    [{"timeout": "1"}, {"timeout": -1}, {"timeout": 1.5}, {"timeout": 1 << 70}, {"priority": 10}, {"priority": True}],
)
def test_a_parameter_of_the_wrong_kind_is_refused(parameters: dict[str, object]) -> None:
    assert "$.parameters." in refusal(message(parameters=parameters), contract(tensor()))


def test_an_outputs_own_wish_for_binary_wins_over_the_requests() -> None:
    model = contract(tensor(name="x"), tensor("INT8", (1,), "y"))
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
        {"name": "y", "datatype": "INT8", "shape": [1], "data": [1]},
    ]
    outputs = [{"name": "y", "parameters": {"binary_data": False}}, {"name": "x"}]
    body = {"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": True}}
    infer = decode(json.dumps(body).encode(), 0, model)
    assert [(one.name, one.is_binary) for one in infer.wish.wanted] == [("y", False), ("x", True)]
    assert infer.names == ("y", "x")
    memory, found = filled(infer)
    answer, rest = parse(encode_answer(infer.wish, model, found, memory.read, memory.write, None))
    assert [output["name"] for output in answer["outputs"]] == ["y", "x"]  # type: ignore[attr-defined]  # a list
    assert rest == struct.pack("<2f", 1, 2)


# Rows and forms


def test_rows_are_the_first_dimension_of_a_batchable_model() -> None:
    model = contract(tensor(), batchable=True)
    assert decode(message(shape=[3, 2], data=[1] * 6), 0, model).rows == 3
    assert "1 to 8" in refusal(message(shape=[9, 2], data=[1] * 18), model)
    assert "0 rows" in refusal(message(shape=[0, 2], data=[]), model)
    assert decode(message(shape=[9, 2], data=[1] * 18), 0, contract(tensor())).rows == 1


def test_inputs_must_agree_in_rows() -> None:
    model = contract(tensor(name="x"), tensor(name="y"), batchable=True)
    one = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    two = {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    assert "differ" in refusal(json.dumps({"inputs": [one, two]}).encode(), model)


def test_a_form_stands_for_the_shape_of_a_row_and_not_for_the_rows() -> None:
    model = contract(tensor("INT8", (-1, -1)), batchable=True)
    forms = {
        shape: decode(message("INT8", shape, [1] * prod(shape)), 0, model).form for shape in [(1, 2), (3, 2), (1, 3)]
    }
    assert forms[1, 2] == forms[3, 2] != forms[1, 3]
    assert decode(message(), 0, contract(tensor(shape=(-1, 2)), batchable=True)).form == 0


# What does not fit


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs": 1}', "Expected `array`"),
        (b'{"inputs": []}', "input 'x' is missing"),
        (b'{"inputs": [{"name": "x"}]}', "missing required field"),
        (message("FP64"), "is FP64, the model takes FP32"),
        (message("NOPE"), "is NOPE"),
        (message(shape=[1]), "has shape [1], the model takes [-1, 2]"),
        (message(shape=[1, 3]), "has shape [1, 3]"),
        (message(shape=[-1, 2]), "Expected `int` >= 0"),
        (message(shape=[1 << 80, 2]), "$.inputs[0].shape[0]"),
        (message(shape=[2, 2]), "has 2 values for a shape of 4"),
        (message(data=[1, 2, 3]), "has 3 values for a shape of 2"),
        (message(data=[[1], [2]]), "is not nested as its shape"),
        (message(data=[[[1, 2]]]), "nested 3 deep"),
        (message(data=["a", "b"]), "wrong kind"),
        (message(data=[1, None]), "wrong kind"),
        (message(data=1), "wrong kind"),
        (message(data={}), "wrong kind"),
        (message(data=[1, 1e300]), "cannot hold"),
        (message().replace(b'"x"', b'"z"'), "has no input 'z'; it has x"),
        (message(outputs=[{"name": "q"}]), "has no output 'q'"),
        (message(outputs=[{"name": "x"}, {"name": "x"}]), "asked for twice"),
        (message(outputs=[{"name": "x", "parameters": {"classification": 3}}]), "classification"),
        (message(outputs=[{"name": "x", "parameters": {"shared_memory_region": "r"}}]), "give both or none"),
        (message(id=3), "$.id"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}]}', "has no data"),
    ],
)
def test_a_request_that_does_not_fit_is_told_why(body: bytes, words: str) -> None:
    assert words in refusal(body, contract(tensor()))


def test_an_input_may_not_be_given_twice_or_left_out() -> None:
    model = contract(tensor(name="x"), tensor(name="y"))
    one = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    assert "twice" in refusal(json.dumps({"inputs": [one, one]}).encode(), model)
    assert "'y' is missing" in refusal(json.dumps({"inputs": [one]}).encode(), model)
    assert "twice" in refusal(json.dumps({"inputs": [one, one]}).encode(), contract(tensor()))


@pytest.mark.parametrize(
    ("size", "follows", "words"),
    [(4, 4, "its shape needs 8"), (8, 9, "9 follow the head"), (8, 0, "0 follow the head")],
)
def test_binary_sizes_must_add_up(size: int, follows: int, words: str) -> None:
    head, _ = binary("FP32", (1, 2), b"\x00" * size)
    assert words in refusal(head, contract(tensor()), follows)


def test_an_input_has_json_or_binary_data_and_not_both() -> None:
    both = json.loads(message())
    both["inputs"][0]["parameters"] = {"binary_data_size": 8}
    assert "send one" in refusal(json.dumps(both).encode(), contract(tensor()), 8)


def borrowing(nbytes: int = 8, **changes: object) -> bytes:
    """A request whose input lies in a region."""
    parameters = {"shared_memory_region": "r", "shared_memory_offset": 3, "shared_memory_byte_size": nbytes, **changes}
    return json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": parameters}]}
    ).encode()


def test_an_input_in_a_region_is_read_from_there_and_nowhere_else() -> None:
    infer = decode(borrowing(), 0, contract(tensor()))
    asked: list[Place] = []

    def read(place: Place, view: memoryview) -> None:
        asked.append(place)
        view[:] = b"abcdefgh"

    memory = memoryview(bytearray(infer.nbytes))
    fill(infer, memory, memoryview(b""))
    assert infer.borrows
    assert not any(memory)
    borrow(infer, memory, read)
    assert asked == [Place("r", 3, 8)]
    assert bytes(memory[:8]) == b"abcdefgh"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (borrowing(nbytes=7), "its shape needs 8"),
        (borrowing(shared_memory_byte_size=None), "give both or none"),
        (borrowing(shared_memory_region=None), "give both or none"),
        (borrowing(shared_memory_offset=-1), "shared_memory_offset"),
        (borrowing(binary_data_size=8), "send one"),
    ],
)
def test_an_input_in_a_region_that_does_not_add_up_is_told_why(body: bytes, words: str) -> None:
    assert words in refusal(body, contract(tensor()))


@pytest.mark.parametrize("data", [b"\x05\x00\x00\x00abc", b"\x01\x00\x00", b"\xff\xff\xff\xff", b"\x00" * 8])
def test_lengths_inside_bytes_must_add_up(data: bytes) -> None:
    head, tail = binary("BYTES", (1,), data)
    with pytest.raises(WireError, match=r"ends inside|elements for a shape"):
        filled(decode(head, len(tail), contract(tensor("BYTES", (1,)))), tail)


def test_bytes_that_are_no_text_are_refused_by_tensor_and_element() -> None:
    model, data = contract(tensor("BYTES", (2,))), b"\x01\x00\x00\x00a\x02\x00\x00\x00b\xff"
    told = r"input 'x' is not text: its element 1 is no UTF-8, .* at byte 1"
    head, tail = binary("BYTES", (2,), data)
    with pytest.raises(WireError, match=told) as refused:
        filled(decode(head, len(tail), model), tail)
    assert refused.value.status == 400
    place = {"shared_memory_region": "r", "shared_memory_byte_size": len(data)}
    given = {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": place}
    with pytest.raises(WireError, match=told):
        borrow(decode(json.dumps({"inputs": [given]}).encode(), 0, model), memoryview(bytearray(data)), lambda *_: None)
    with pytest.raises(WireError, match="its element 0 is no UTF-8"):
        decode_raw(b"\xff", 1, contract(tensor("BYTES", (1,))))


GENERATING = Bounds(rows_max=64, tensor_bytes_max=1 << 10, generated_inputs=True)


def unsent(*inputs: tuple[str, str, list[int]], made_by: str = "server", **more: object) -> bytes:
    """A request that brings no data."""
    given = [{"name": name, "datatype": datatype, "shape": shape, **more} for name, datatype, shape in inputs]
    return json.dumps({"inputs": given, "parameters": {"slotwise_inputs": made_by}}).encode()


def test_inputs_that_the_server_makes_are_zeros_where_they_would_have_been_sent_to() -> None:
    model = contract(tensor("FP32", (-1,)), tensor("BYTES", (-1,), "t"), bounds=GENERATING)
    infer = decode(unsent(("x", "FP32", [3]), ("t", "BYTES", [2])), 0, model)
    memory, (x, t) = filled(infer)
    assert (x.segment, bytes(memory.read(x)), t.offset) == (memory.segment, bytes(12), 64)
    assert datatypes.elements_of(memory.read(t)) == [b"", b""]


def test_inputs_that_an_executor_makes_take_no_memory_and_keep_their_rows_and_form() -> None:
    model = contract(tensor("FP32", (-1, -1)), batchable=True, bounds=GENERATING)
    infer = decode(unsent(("x", "FP32", [3, 5]), made_by="executor"), 0, model)
    sent = decode(message(shape=(3, 5), data=[0] * 15), 0, model)
    assert (infer.nbytes, infer.rows, infer.form) == (0, 3, sent.form)
    _, (ref,) = filled(infer)
    assert (ref.segment, ref.offset, ref.nbytes, ref.shape) == (ZEROS_SEGMENT, 0, 60, (3, 5))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (unsent(("x", "FP32", [1, 257])), 413, "1028 bytes, 1024 are the limit"),
        (unsent(("x", "FP32", [1 << 40, 1 << 40]), made_by="executor"), 413, "are the limit"),
        (unsent(("x", "INT8", [1, 2])), 400, "the model takes FP32"),
        (unsent(("x", "FP32", [2])), 400, "the model takes"),
        (unsent(("x", "FP32", [65, 2])), 400, "has 65 rows"),
        (unsent(("x", "FP32", [1, 2]), data=[1, 2]), 400, "brings data"),
        (unsent(("x", "FP32", [1, 2]), parameters={"binary_data_size": 8}), 400, "brings data"),
        (unsent(("x", "FP32", [1, 2]), made_by="nobody"), 400, "slotwise_inputs"),
    ],
)
def test_inputs_to_be_made_are_checked_as_any_others(body: bytes, status: int, words: str) -> None:
    with pytest.raises(WireError, match=words) as refused:
        decode(body, 0, contract(tensor("FP32", (-1, -1)), batchable=True, bounds=GENERATING))
    assert refused.value.status == status


def test_inputs_are_made_only_where_that_is_allowed() -> None:
    assert "inputs are not made here" in refusal(unsent(("x", "FP32", [1, 2])), contract(tensor()))


def test_a_bool_is_zero_or_one() -> None:
    head, tail = binary("BOOL", (2,), b"\x01\x02")
    with pytest.raises(WireError, match="neither 0 nor 1"):
        filled(decode(head, 2, contract(tensor("BOOL", (2,)))), tail)


def test_a_filler_takes_neither_too_much_nor_too_little() -> None:
    head, tail = binary("INT8", (3,), b"abc")
    infer = decode(head, 3, contract(tensor("INT8", (3,))))
    with pytest.raises(WireError, match="more binary data"):
        filled(infer, tail + b"d")
    with pytest.raises(WireError, match="ends before"):
        filled(infer, b"ab")


def test_more_tensor_bytes_than_the_limit_are_refused_with_413() -> None:
    small = contract(tensor("INT8", (-1,)), bounds=Bounds(rows_max=1, tensor_bytes_max=64))
    with pytest.raises(WireError) as caught:
        decode(binary("INT8", (65,), b"a" * 65)[0], 65, small)
    assert caught.value.status == 413


def test_a_head_longer_than_the_body_is_refused() -> None:
    assert split(b"abc", 3) == (b"abc", b"")
    with pytest.raises(WireError, match="has only 3 bytes"):
        split(b"abc", 4)


def test_bytes_that_are_no_text_are_given_out_as_binary_only() -> None:
    model = contract(tensor("BYTES", (1,)))
    infer = decode(message("BYTES", (1,), ["a"]), 0, model)
    memory, found = filled(infer)
    memory.view(4, 1)[:] = b"\xff"  # as a model may write them
    with pytest.raises(WireError, match="not UTF-8; ask for it with binary_data"):
        encode_answer(infer.wish, model, found, memory.read, memory.write, None)


def test_numbers_that_json_cannot_say_are_null() -> None:
    model = contract(tensor())
    head, tail = binary("FP32", (1, 2), struct.pack("<2f", float("nan"), float("inf")))
    infer = decode(head, 8, model)
    memory, found = filled(infer, tail)
    assert b'"data":[null,null]' in encode_answer(infer.wish, model, found, memory.read, memory.write, None).body


def test_every_reason_has_a_status() -> None:
    assert set(STATUSES) == set(Reason)


def test_every_datatype_has_a_size_or_lengths_of_its_own() -> None:
    assert set(datatypes.SIZES) == {*RANGES, "BOOL", "FP16", "BF16", "FP32", "FP64"}
    assert not datatypes.has_json_form("BF16")


def test_an_error_is_an_object_with_only_what_is_known() -> None:
    assert json.loads(WireError(HTTPStatus.BAD_REQUEST, "x").body()) == {"error": "x"}
    told = WireError(HTTPStatus.SERVICE_UNAVAILABLE, "x", reason="y", predicted_ms=0.5, retry_after_ns=1)
    assert json.loads(told.body()) == {"error": "x", "reason": "y", "predicted_ms": 0.5, "retry_after_ms": 1}
    assert told.headers() == [(b"retry-after", b"1"), (b"retry-after-ms", b"1")]


def test_a_head_seen_before_means_the_same_and_must_add_up_again() -> None:
    model = contract(tensor())
    head, tail = binary("FP32", (1, 2), b"abcdefgh", id="1")
    first, second = decode(head, 8, model), decode(bytearray(head), 8, model)
    assert first is second
    assert "7 follow the head" in refusal(head, model, 7)
    for number in range(HEADS_MAX + 1):
        assert decode(binary("FP32", (1, 2), tail, id=str(number))[0], 8, model).wish.id == str(number)
    assert len(model.heads) <= HEADS_MAX


@pytest.mark.parametrize("depth", [2, 1_000, 100_000])
def test_json_of_any_depth_is_a_400(depth: int) -> None:
    for body in (b"[" * depth, b'{"z":' * depth, message().replace(b"[1, 2]}", b"[" * depth + b"]" * depth + b"}")):
        with pytest.raises(WireError) as refused:
            decode_json(body, contract(tensor()))
        assert refused.value.status == 400
