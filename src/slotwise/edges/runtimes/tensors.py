"""Tensors of the Open Inference Protocol as numpy arrays over memory, and back.

Numbers are viewed where they lie. BYTES tensors are sequences of elements, each a little-endian 4-byte
length and so many bytes; runtimes want text, so they are decoded as UTF-8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
DATATYPES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in NUMPY_TYPES.items()}
_LENGTH_BYTES = 4


class TensorError(ValueError):
    """Bytes that are not the tensor they are said to be."""


def read_tensor(memory: memoryview, datatype: str, shape: tuple[int, ...], offset: int, nbytes: int) -> Array:
    """The tensor at `offset`: a view for numbers, a fresh array of str for BYTES. Raises TensorError."""
    dtype = NUMPY_TYPES.get(datatype)
    if dtype is None:
        raise TensorError(f"datatype {datatype!r} is none of {', '.join(NUMPY_TYPES)}")
    if datatype == "BYTES":
        return _read_texts(memory[offset : offset + nbytes], shape)
    try:
        array = np.ndarray(shape, dtype, memory, offset)
    except (TypeError, ValueError) as error:
        raise TensorError(f"a {datatype} tensor of shape {list(shape)} does not lie at {offset}: {error}") from error
    if array.nbytes != nbytes:
        raise TensorError(f"a {datatype} tensor of shape {list(shape)} is {array.nbytes} bytes long, not {nbytes}")
    return array


def texts_to_bytes(array: Array) -> bytes:
    """A BYTES tensor's elements, each behind its length."""
    parts = []
    for element in array.ravel():
        text = element if isinstance(element, bytes) else str(element).encode()
        parts.append(len(text).to_bytes(_LENGTH_BYTES, "little"))
        parts.append(text)
    return b"".join(parts)


def _read_texts(data: memoryview, shape: tuple[int, ...]) -> Array:
    texts: list[str] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES
        if at + length > len(data):
            raise TensorError(f"element {len(texts)} of a BYTES tensor is cut off")
        try:
            texts.append(str(data[at : at + length], "utf-8"))
        except UnicodeDecodeError as error:
            raise TensorError(f"element {len(texts)} of a BYTES tensor is not UTF-8: {error}") from error
        at += length
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise TensorError(f"a BYTES tensor has {len(texts)} elements, which do not fill {list(shape)}") from error
