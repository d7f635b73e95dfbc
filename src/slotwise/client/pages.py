"""What a server says of itself and of its models: which it has, what they take, and their own deadlines.

Over HTTP here, over gRPC in `grpc`. Only what every server of the protocol has is needed, the metadata of a model. The
list of models and their configurations are extensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar
from urllib.parse import quote

import msgspec

from slotwise.client.errors import ClientError, ServerFault
from slotwise.client.http import HttpClient
from slotwise.facts.units import MS
from slotwise.facts.value import value

BINARY_EXTENSION = "binary_tensor_data"
READY = ("READY", "")
"""What a list says of models that can be asked; some servers say nothing of the kind."""
SLO_KEY = "slo_ms"
"""Of the parameters in a configuration."""
T = TypeVar("T")


class InputSpec(msgspec.Struct, frozen=True):
    """An input; -1 where a dimension may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@value
class ServerModel:
    """A model that the server offers. `slo_ns` is the deadline that it gives requests without one, where it tells."""

    name: str
    inputs: tuple[InputSpec, ...]
    slo_ns: int | None


class Pages(Protocol):
    """A server's pages."""

    async def names(self) -> list[str]:
        """The models that can be asked. Raises a ClientError, also of a server that has no such list."""

    async def model(self, name: str) -> ServerModel:
        """One of them. Raises the ClientError that fits."""

    async def close(self) -> None:
        """Let go of the connection."""


class _Listed(msgspec.Struct, frozen=True):
    name: str
    state: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    inputs: tuple[InputSpec, ...]


class _Text(msgspec.Struct, frozen=True):
    string_value: str = ""


class _Configuration(msgspec.Struct, frozen=True):
    parameters: dict[str, _Text] = {}


class _Server(msgspec.Struct, frozen=True):
    extensions: tuple[str, ...] = ()


class HttpPages:
    """The pages of a server over HTTP."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def names(self) -> list[str]:
        """The models that can be asked."""
        listed = _read(await self._client.post("/v2/repository/index", b"{}"), list[_Listed])
        return ready_names((one.name, one.state) for one in listed)

    async def model(self, name: str) -> ServerModel:
        """One of them."""
        path = _path_of(name)
        metadata = _read(await self._client.get(path), _Metadata)
        try:
            told = _read(await self._client.get(f"{path}/config"), _Configuration).parameters
        except ClientError:
            told = {}  # an extension, which a server may do without
        return ServerModel(name=name, inputs=metadata.inputs, slo_ns=slo_ns_of(told.get(SLO_KEY, _Text()).string_value))

    async def has_binary(self) -> bool:
        """Whether the server takes tensors in the binary form."""
        try:
            return BINARY_EXTENSION in _read(await self._client.get("/v2"), _Server).extensions
        except ClientError:
            return False  # it says nothing of itself, so the form that all know is the safe one

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()


def slo_ns_of(told: str) -> int | None:
    """A deadline as a model's configuration tells it, in milliseconds; None where it does not."""
    try:
        slo_ns = int(float(told) * MS)
    except ValueError:
        return None
    return slo_ns if slo_ns > 0 else None


def ready_names(listed: Iterable[tuple[str, str]]) -> list[str]:
    """Names of models by (name, state), each once, in order."""
    return sorted({name for name, state in listed if state in READY})


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ServerFault(f"a page of the server's is not the protocol's: {error}") from error


def _path_of(name: str) -> str:
    model, _, version = name.partition("/")
    return f"/v2/models/{quote(model)}" + (f"/versions/{quote(version)}" if version else "")
