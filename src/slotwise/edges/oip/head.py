"""The JSON head of an inference request as it is told, before anything of it is checked: its forms, no more. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from slotwise.facts.types import PRIORITY_LOWEST

RANK_MAX = 64  # no runtime has tensors of more dimensions
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
NO_DATA = msgspec.Raw()


class MadeBy(Enum):
    """Who makes a request's inputs: the client, which sends them, or the server or an executor, which take zeros."""

    CLIENT = "client"
    SERVER = "server"
    EXECUTOR = "executor"


class Parameters(msgspec.Struct, gc=False, frozen=True):
    """Of a request; 0 means the model's own."""

    timeout: _Count = 0
    priority: Annotated[int, msgspec.Meta(ge=0, le=PRIORITY_LOWEST)] = 0
    binary_data_output: bool = False
    slotwise_timing: bool = False
    slotwise_inputs: MadeBy = MadeBy.CLIENT


class TensorParameters(msgspec.Struct, gc=False, frozen=True):
    """Of inputs and outputs alike."""

    shared_memory_region: str | None = None
    shared_memory_offset: _Count = 0
    shared_memory_byte_size: _Count | None = None


class InputParameters(TensorParameters, gc=False, frozen=True):
    """Of an input."""

    binary_data_size: _Count | None = None


class OutputParameters(TensorParameters, gc=False, frozen=True):
    """Of an output."""

    binary_data: bool | None = None
    classification: _Count = 0


_PLAIN = Parameters()
_PLAIN_INPUT = InputParameters()
_PLAIN_OUTPUT = OutputParameters()


class Input(msgspec.Struct, gc=False):
    """An input as it is told."""

    name: str
    datatype: str
    shape: Annotated[list[_Count], msgspec.Meta(max_length=RANK_MAX)]
    parameters: InputParameters = _PLAIN_INPUT
    data: msgspec.Raw = NO_DATA


class Output(msgspec.Struct, gc=False):
    """An output that is asked for."""

    name: str
    parameters: OutputParameters = _PLAIN_OUTPUT


class Head(msgspec.Struct, gc=False):
    """A request as it is told, before anything of it has been checked."""

    inputs: list[Input]
    id: str = ""
    parameters: Parameters = _PLAIN
    outputs: list[Output] = []


decode_head = msgspec.json.Decoder(Head).decode
"""Raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError."""
