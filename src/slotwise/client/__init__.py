"""Clients of a server: ask one question and wait, or play a whole workload and see how it ends.

    http        HttpClient: questions with numpy arrays, over kept connections
    openloop    OpenLoop: sends a workload at its own pace, whatever the server does, and records every ending
    connection  one HTTP connection, by callbacks      wire    requests and answers as bytes, pure
    errors      what a question that got no answer raises

A client knows the wire and nothing of the server's insides.
"""

from slotwise.client.errors import (
    BadRequest,
    ClientError,
    ConnectionLost,
    ModelNotFound,
    NoAnswer,
    Refused,
    ServerFault,
    TooLate,
)
from slotwise.client.http import HttpClient
from slotwise.client.openloop import Ending, OpenLoop, Played, Sending
from slotwise.client.wire import Array, InferResult, Timing, encode_get, encode_infer

__all__ = [
    "Array",
    "BadRequest",
    "ClientError",
    "ConnectionLost",
    "Ending",
    "HttpClient",
    "InferResult",
    "ModelNotFound",
    "NoAnswer",
    "OpenLoop",
    "Played",
    "Refused",
    "Sending",
    "ServerFault",
    "Timing",
    "TooLate",
    "encode_get",
    "encode_infer",
]
