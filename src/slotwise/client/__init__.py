"""Clients of a server: ask questions and get answers, whatever the way.

    client      Client, AsyncClient: one client for every way to a server, by its URL, with tries that are safe
    background  a client in a thread, for futures and callbacks      tries   streams with tries
    http        HttpClient: questions with numpy arrays, over kept connections
    grpc        GrpcClient: the same over gRPC, whose library is loaded with that file alone
    local       LocalClient: the same over a server's local socket, with arrays in shared memory
    asynchronous  AsyncLocalClient: that, within an event loop
    conversation, sharing   what both say, and the memory that they share with the server
    pages       what a server says of its models
    connection  one HTTP connection, by callbacks      wire    requests and answers as bytes, pure
    address     where a server is, and when to try again   question   what is asked, and how it ends
    errors      what a question that got no answer raises

A client knows the wire and nothing of the server's insides.
"""

from slotwise.client.address import AddressError
from slotwise.client.asynchronous import AsyncLocalClient
from slotwise.client.client import AsyncClient, Client
from slotwise.client.errors import (
    BadRequest,
    ClientError,
    ConnectionLost,
    ModelNotFound,
    NoAnswer,
    NoRoom,
    Refused,
    ServerFault,
    TooLate,
    Unreachable,
)
from slotwise.client.http import HttpClient
from slotwise.client.local import LocalClient
from slotwise.client.question import Question, Streamed
from slotwise.client.wire import Array, InferResult, Timing, encode_get, encode_infer

__all__ = [
    "AddressError",
    "Array",
    "AsyncClient",
    "AsyncLocalClient",
    "BadRequest",
    "Client",
    "ClientError",
    "ConnectionLost",
    "HttpClient",
    "InferResult",
    "LocalClient",
    "ModelNotFound",
    "NoAnswer",
    "NoRoom",
    "Question",
    "Refused",
    "ServerFault",
    "Streamed",
    "Timing",
    "TooLate",
    "Unreachable",
    "encode_get",
    "encode_infer",
]
