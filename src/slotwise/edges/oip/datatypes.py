"""The protocol's datatypes: their sizes, and the way between JSON values and bytes. Pure.

Tensors on the wire and in shared memory are little-endian and row-major without padding; this code reads them
with the machine's own byte order, so it asserts that the two agree. An element of type BYTES is four bytes
of length and then its bytes, in shared memory as on the wire. FP16 and BF16 have no JSON form.
"""

from __future__ import annotations

import functools
import struct
import sys
from collections.abc import Sequence
from itertools import chain
from types import GenericAlias

import msgspec

assert sys.byteorder == "little", "the wire's byte order must be the machine's"

BYTES = "BYTES"
SIZES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""Bytes of one element; BYTES is absent, because its elements differ."""

NEEDS_CHECK = frozenset(("BOOL", BYTES))
"""Those for which `check` has anything to look at."""

_CODES = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
_JSON_TYPES: dict[str, type] = dict.fromkeys("BHIQbhiq", int) | {"?": bool, "f": float, "d": float}
_LENGTH = struct.Struct("<I")
_BOOLS = b"\x00\x01"
_OPENERS = b" \t\r\n["
Json = msgspec.Raw | bytes | memoryview


class TensorFault(ValueError):
    """Data that does not fit; the text reads on from the tensor's name."""


def zeros_nbytes(datatype: str, elements: int) -> int:
    """Size of a tensor whose bytes are all zero; one of BYTES holds so many empty texts."""
    return elements * SIZES.get(datatype, _LENGTH.size)


def has_json_form(datatype: str) -> bool:
    """Whether values of the type can be written in JSON."""
    return datatype in _CODES or datatype == BYTES


def pack(data: Json, datatype: str, shape: tuple[int, ...], elements: int) -> bytes:
    """JSON values, flat or nested like the shape, as bytes. Raises TensorFault when they do not fit type or shape."""
    code = _CODES.get(datatype)
    if code is None and datatype != BYTES:
        raise TensorFault(f"{datatype} has no JSON form; send it as binary data")
    values = _flat(data, str if code is None else _JSON_TYPES[code], shape)
    if len(values) != elements:
        raise TensorFault(f"has {len(values)} values for a shape of {elements}")
    if code is None:
        texts = [text.encode() for text in map(str, values)]  # they are str already, by the decoder's type
        return b"".join([_LENGTH.pack(len(text)) + text for text in texts])
    try:
        return struct.pack(f"<{elements}{code}", *values)
    except (struct.error, OverflowError) as error:
        raise TensorFault(f"holds a value that {datatype} cannot hold: {error}") from error


def unpack(view: memoryview, datatype: str) -> list[object]:
    """Bytes as JSON values, flat. Raises TensorFault for what JSON cannot say."""
    if datatype != BYTES:
        numbers: list[object] = view.cast(_CODES[datatype]).tolist()  # type: ignore[call-overload]  # wants a literal
        return numbers
    try:
        return [str(element, "utf-8") for element in elements_of(view)]
    except UnicodeDecodeError as error:
        raise TensorFault("holds bytes that are not UTF-8; ask for it with binary_data") from error


def elements_of(view: memoryview) -> list[memoryview]:
    """The elements of a BYTES tensor. Raises TensorFault when the lengths do not add up."""
    found, at, end = [], 0, len(view)
    while at < end:
        if at + 4 > end:
            raise TensorFault("ends inside the length of an element")
        (length,) = _LENGTH.unpack_from(view, at)
        at += 4 + length
        if at > end:
            raise TensorFault("ends inside an element")
        found.append(view[at - length : at])
    return found


def check(view: memoryview, datatype: str, elements: int) -> None:
    """Raises TensorFault for what a size alone does not tell of binary data: BYTES that are no text, a BOOL over 1."""
    if datatype == BYTES:
        found = elements_of(view)
        if len(found) != elements:
            raise TensorFault(f"has {len(found)} elements for a shape of {elements}")
        for at, element in enumerate(found):
            _check_text(at, element)
    elif bytes(view).translate(None, _BOOLS):
        raise TensorFault("holds a BOOL that is neither 0 nor 1")


def _check_text(at: int, element: memoryview) -> None:
    try:
        str(element, "utf-8")
    except UnicodeDecodeError as error:
        raise TensorFault(f"is not text: its element {at} is no UTF-8, {error.reason} at byte {error.start}") from error


def _flat(data: Json, kind: type, shape: tuple[int, ...]) -> list[object]:
    depth = _depth(memoryview(data))
    if depth > max(1, len(shape)):
        raise TensorFault(f"is nested {depth} deep, the shape has {len(shape)} dimensions")
    try:
        level = _decoder(kind, max(1, depth)).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TensorFault(f"has data of the wrong kind: {error}") from error
    if depth > 1:
        return _unnest(level, shape, depth)
    return level


def _depth(data: memoryview) -> int:
    """How many arrays open before the first value."""
    if bytes(data[:2]).strip(_OPENERS):
        return 1  # nearly always; what is no array at all fails when it is decoded
    whole = bytes(data)
    return whole[: len(whole) - len(whole.lstrip(_OPENERS))].count(b"[")


def _unnest(level: list[object], shape: tuple[int, ...], depth: int) -> list[object]:
    rows: Sequence[list[object]] = [level]
    for axis, dimension in enumerate(shape[:depth]):
        if any(len(row) != dimension for row in rows):
            raise TensorFault(f"is not nested as its shape {list(shape)} says, at dimension {axis}")
        if axis + 1 < depth:
            rows = list(chain.from_iterable(rows))  # type: ignore[arg-type]  # rows of rows, by the decoder's type
    return list(chain.from_iterable(rows))


@functools.lru_cache(maxsize=256)
def _decoder(kind: type, depth: int) -> msgspec.json.Decoder[list[object]]:
    nested: type | GenericAlias = kind
    for _ in range(depth):
        nested = GenericAlias(list, (nested,))
    return msgspec.json.Decoder(nested)
