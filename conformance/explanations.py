"""Why answers differ: rules that hold for many requests, and the words for single ones. Each way has its own.

A single request's words come first. Words for a way in which its answers no longer differ are a fault, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from conformance.exchange import Answer

STATUS, TYPE, ALLOW, BODY = "status", "content type", "Allow", "body"
JSON, PLAIN = "application/json", "text/plain"


class Rule(NamedTuple):
    """Words for one way of differing, wherever two answers stand so to each other."""

    way: str
    holds: Callable[[Answer, Answer], bool]
    words: str


def _statuses(ours: tuple[str, ...], triton: tuple[str, ...]) -> Callable[[Answer, Answer], bool]:
    return lambda one, other: one.status in ours and other.status in triton


RULES = (
    Rule(
        TYPE,
        lambda ours, triton: triton.headers.get("Content-Type") == PLAIN and ours.headers.get("Content-Type") == JSON,
        "ours is JSON and says so; Triton says text/plain where its HTTP layer answers, before JSON too",
    ),
    Rule(
        TYPE, lambda ours, _: ours.body is None and not ours.headers, "an empty body has no type here; Triton says JSON"
    ),
    Rule(ALLOW, lambda _, triton: "Allow" not in triton.headers, "HTTP asks for Allow with 405; Triton leaves it out"),
    Rule(
        STATUS,
        _statuses(("400", "INVALID_ARGUMENT"), ("500", "INTERNAL")),
        "Triton tells what a client did wrong as a fault of its own (500, INTERNAL); here it is the client's (400)",
    ),
    Rule(
        STATUS,
        _statuses(("404", "NOT_FOUND"), ("400", "INVALID_ARGUMENT")),
        "what there is not is not found (404) on every route; Triton calls it a bad request (400) on some",
    ),
    Rule(
        STATUS,
        _statuses(("503", "UNAVAILABLE"), ("400", "404", "NOT_FOUND")),
        "a model that is known and not on offer is 503, with the reason; Triton says unknown or not ready",
    ),
)
PLATFORM = {BODY: "ONNX Runtime serves the model here, Python there"}
CONFIGURATION = {
    BODY: "ours tells what it has (limits, allowance, digest), Triton every field of its own with its default"
}
COUNTS = {BODY: "ours adds how requests ended (`slotwise_outcomes`); Triton adds two fields that were empty here"}
REASON = {BODY: "ours always has `reason`, Triton only where it has something to say"}
TEXT = {
    STATUS: "a text is UTF-8 here, as runtimes have it, and what is none is refused; Triton's model in Python takes any"
}
TRACES = {BODY: "ours sends spans to a collector and was started so, and so has neither file nor `log_frequency`"}
LOGS = {BODY: "ours logs rows as CSV, and of actions too from the start (`log_verbose_level` 1)"}
UNKNOWN_KEY = {STATUS: "a key that there is not is refused by its name; Triton passes over it"}
FILE = {STATUS: "both refuse; Triton as not implemented, ours as a value that cannot be taken"}
STREAMED = {BODY: "the words are each server's own, and ours names the model as well"}

WHY: dict[tuple[str, str], Mapping[str, str]] = {
    ("HTTP", "server metadata"): {
        BODY: "names; ours has neither `classification` nor `sequence`, `cuda_shared_memory` or `unload_dependents`"
    },
    ("HTTP", "server metadata, with a slash"): {STATUS: "the published OpenAPI file spells it so; ours answers both"},
    ("HTTP", "live"): {BODY: "the protocol says `live`, and KServe's client reads it; Triton's body is empty"},
    ("HTTP", "ready"): {
        BODY: "KServe's client reads `ready`, the protocol's schema `live`: ours says both; Triton's body is empty"
    },
    ("HTTP", "live, HEAD"): {STATUS: "HTTP wants HEAD wherever there is GET"},
    ("HTTP", "model metadata"): PLATFORM,
    ("HTTP", "model metadata, by version"): PLATFORM,
    ("HTTP", "model metadata, BYTES"): PLATFORM,
    ("HTTP", "model ready"): {
        BODY: "the protocol says `name` and `ready`, and KServe's client reads them; Triton's body is empty"
    },
    ("HTTP", "model ready, by version"): {BODY: "as before"},
    ("HTTP", "model configuration"): CONFIGURATION,
    ("HTTP", "model configuration, no batches"): CONFIGURATION,
    ("HTTP", "a parameter that begins with triton_"): {
        STATUS: "reserved for Triton, which ours is not; it is passed over"
    },
    ("HTTP", "classification"): {STATUS: "not served, not listed, and refused in words"},
    ("HTTP", "a number out of its datatype"): {
        STATUS: "Triton lets 256 become 0 as UINT8; ours refuses to change a client's numbers"
    },
    ("HTTP", "FP16, no elements"): {
        TYPE: "binary was asked for, so ours tells the head's length even where nothing follows it"
    },
    ("HTTP", "BYTES that are no text"): {**TEXT, TYPE: "one is an answer in binary, one an error"},
    ("HTTP", "BYTES that are no text, back as JSON"): TEXT,
    ("HTTP", "NaN, back as JSON"): {
        BODY: "JSON has no NaN and no infinity: ours writes null, Triton words that are not JSON"
    },
    ("HTTP", "raw, BYTES"): {
        STATUS: "ours takes one element where the length is free; Triton wants the model to say 1",
        TYPE: "one is an answer in binary, one an error",
    },
    ("HTTP", "unknown coding"): {STATUS: "HTTP's status for it is 415"},
    ("HTTP", "statistics of a model"): COUNTS,
    ("HTTP", "statistics of a version"): COUNTS,
    ("HTTP", "statistics of all"): COUNTS,
    ("HTTP", "index of what is ready"): REASON,
    ("HTTP", "unload, unknown model"): {STATUS: "ours says that there is no such model"},
    ("HTTP", "load with a configuration"): {STATUS: "a model is served as it lies in the repository; refused in words"},
    ("HTTP", "CUDA: register"): {
        STATUS: "ours has no memory of a GPU; Triton looks at the handle, which is none, first"
    },
    ("HTTP", "trace setting"): TRACES,
    ("HTTP", "trace setting of a model"): TRACES,
    ("HTTP", "trace rate and count"): TRACES,
    ("HTTP", "trace level of a model"): {
        STATUS: "Triton wants a file first, which only its operator can name; ours has its collector"
    },
    ("HTTP", "trace level off"): TRACES,
    ("HTTP", "trace settings back"): TRACES,
    ("HTTP", "unknown trace level"): {STATUS: "Triton takes an unknown level for OFF; ours refuses it"},
    ("HTTP", "trace file"): FILE,
    ("HTTP", "unknown trace setting"): UNKNOWN_KEY,
    ("HTTP", "log settings"): LOGS,
    ("HTTP", "log_info off"): LOGS,
    ("HTTP", "log_info on"): LOGS,
    ("HTTP", "log_verbose_level 1"): LOGS,
    ("HTTP", "log_verbose_level 2"): {STATUS: "there is nothing more to tell than at 1, so it is refused"},
    ("HTTP", "log_format"): {STATUS: "the format of files under way cannot change; refused in words"},
    ("HTTP", "log_file"): FILE,
    ("HTTP", "unknown log setting"): UNKNOWN_KEY,
    ("HTTP", "generate"): {STATUS: "Triton's extension for language models is not served and not listed: a clean 404"},
    ("HTTP", "generate, as a stream"): {STATUS: "as before", TYPE: "as before"},
    ("gRPC", "server metadata"): {BODY: "as over HTTP"},
    ("gRPC", "model ready, no name"): {STATUS: "ours asks for the name; Triton says not ready"},
    ("gRPC", "model metadata"): PLATFORM,
    ("gRPC", "model configuration"): CONFIGURATION,
    ("gRPC", "BYTES that are no text"): TEXT,
    ("gRPC", "classification"): {STATUS: "as over HTTP"},
    ("gRPC", "no name"): {STATUS: "ours asks for the name; Triton looks for a model without one"},
    ("gRPC", "unknown model in a stream"): STREAMED,
    ("gRPC", "wrong shape in a stream"): STREAMED,
    ("gRPC", "unload, unknown model"): {STATUS: "as over HTTP"},
    ("gRPC", "system: register twice"): {STATUS: "both refuse; ours speaks as over HTTP, where both say 400"},
    ("gRPC", "CUDA: register"): {STATUS: "as over HTTP"},
    ("gRPC", "trace setting"): TRACES,
    ("gRPC", "trace rate and count"): TRACES,
    ("gRPC", "trace level of a model"): {STATUS: "as over HTTP"},
    ("gRPC", "trace settings back"): TRACES,
    ("gRPC", "unknown trace setting"): UNKNOWN_KEY,
    ("gRPC", "log settings"): LOGS,
    ("gRPC", "log_info off"): LOGS,
    ("gRPC", "log_info on"): LOGS,
    ("gRPC", "log_file"): FILE,
    ("gRPC", "unknown log setting"): UNKNOWN_KEY,
}


def explained(protocol: str, name: str, ways: Mapping[str, tuple[str, Answer, Answer]]) -> dict[str, str]:
    """The ways in which a request's answers differ, and why; a way without words is left out."""
    found = dict(WHY.get((protocol, name), {}))
    for way, ours, triton in ways.values():
        rule = next((rule for rule in RULES if rule.way == way and rule.holds(ours, triton)), None)
        if rule is not None and way not in found:
            found[way] = rule.words
    return found
