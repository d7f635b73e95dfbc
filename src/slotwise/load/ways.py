"""From a URL to what is behind it: the server's pages, and a sender on the way that the URL's scheme names."""

from __future__ import annotations

import ssl
from importlib.util import find_spec
from typing import TYPE_CHECKING

from slotwise.client.address import AddressError, GrpcAddress, HttpAddress, LocalAddress, address_of
from slotwise.client.http import HttpClient
from slotwise.client.pages import HttpPages, Pages
from slotwise.client.question import Question
from slotwise.client.wire import encode_infer, encode_infer_as_json, shown_of
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.load.http import HttpWay
from slotwise.load.inputs import Questions
from slotwise.load.local import LocalWay
from slotwise.load.requests import Requests
from slotwise.load.sender import Sender
from slotwise.workload.values import Arrival

if TYPE_CHECKING:
    from slotwise.load.grpc import Message

    AnySender = Sender[bytes] | Sender[Question] | Sender[Message]

PAGES_URL = "http://127.0.0.1:8000"
"""Where the models behind a local socket are looked up: pages do not come over it."""


@value
class Server:
    """A server, and how it is spoken to."""

    url: str
    pages_url: str = ""
    """Where its models are looked up; empty for the URL itself."""
    token: str = ""
    ca_file: str = ""
    has_call_deadlines: bool = False
    """gRPC: a request's deadline is the call's own as well."""


def pages_of(server: Server) -> Pages:
    """Its pages. Raises AddressError, ValueError for what is no token, and OSError for a missing file."""
    address = address_of(server.url)
    if server.pages_url or isinstance(address, LocalAddress):
        address = address_of(server.pages_url or PAGES_URL)
    if isinstance(address, LocalAddress):
        raise AddressError(
            "a server's pages do not come over its local socket; look models up at its HTTP or gRPC port"
        )
    if isinstance(address, HttpAddress):
        return HttpPages(_http_client(address, server))
    _require_grpc()
    from slotwise.client.grpc import GrpcPages

    return GrpcPages(address.host, address.port, token=server.token, is_tls=address.is_tls, ca_file=server.ca_file)


async def sender_of(server: Server, questions: Questions, *, lines: int, answer_s_max: float) -> AnySender:
    """A sender, not open yet. Raises as `pages_of`."""
    address = address_of(server.url)
    give_up_ns = int(answer_s_max * S)
    match address:
        case HttpAddress():
            way = await _http_way(address, server, questions)
            return Sender(way, lines=lines, drain_s_max=answer_s_max, give_up_ns=give_up_ns)
        case LocalAddress():
            local = LocalWay(address.path, questions)
            return Sender(local, lines=lines, drain_s_max=answer_s_max, give_up_ns=give_up_ns)
        case GrpcAddress():
            _require_grpc()
            from slotwise.load.grpc import GrpcWay

            calls = GrpcWay(
                address,
                questions,
                token=server.token,
                ca_file=server.ca_file,
                has_deadlines=server.has_call_deadlines,
            )
            return Sender(calls, lines=lines, drain_s_max=answer_s_max, give_up_ns=give_up_ns)


async def _http_way(address: HttpAddress, server: Server, questions: Questions) -> HttpWay:
    """Requests in the binary form where the server says that it takes it, and else as JSON."""
    host, shown = f"{address.host}:{address.port}", shown_of(server.token)
    pages = HttpPages(_http_client(address, server))
    has_binary = await pages.has_binary()
    await pages.close()

    def encoded(arrival: Arrival, sample: int) -> bytes:
        asked = questions.of(arrival, sample)
        encode = encode_infer if has_binary else encode_infer_as_json
        return encode(
            host, asked.model, asked.inputs, timeout_us=asked.timeout_us, priority=asked.priority, shown=shown
        )

    request = Requests(encoded, len, questions.samples).of
    return HttpWay(address.host, address.port, request, tls=_tls(address, server))


def _http_client(address: HttpAddress, server: Server) -> HttpClient:
    return HttpClient(address.host, address.port, token=server.token, tls=_tls(address, server))


def _tls(address: HttpAddress, server: Server) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=server.ca_file or None) if address.is_tls else None


def _require_grpc() -> None:
    if find_spec("grpc") is None:
        raise AddressError("gRPC needs a library that is not installed: pip install 'slotwise[grpc]'; or ask over HTTP")
