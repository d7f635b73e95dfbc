"""Answers of the Open Inference Protocol: from a reply of the engine to the body and status of the wire. Pure.

`STATUSES` is the one place that says how an outcome looks over HTTP. Numbers that JSON cannot say (NaN, the
infinities) are `null` in a JSON answer; a client that needs them asks for binary data.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import msgspec

from slotwise.edges.oip import datatypes
from slotwise.edges.oip.codec import Contract, Place, Wanted, Wish
from slotwise.edges.oip.datatypes import TensorFault
from slotwise.edges.oip.errors import WireError, bad
from slotwise.facts.actions import Reply
from slotwise.facts.types import FOREVER_NS, Outcome, Reason, Request, TensorRef, Timing
from slotwise.facts.units import MS, US

STATUSES = {
    Reason.NONE: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.INFEASIBLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.OVERLOADED: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.QUEUE_FULL: HTTPStatus.SERVICE_UNAVAILABLE,
    # A door asks for models that are on offer alone, so these two were taken off offer meanwhile; they may come back.
    Reason.UNKNOWN_MODEL: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.MODEL_REMOVED: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.NO_EXECUTOR: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.EXPIRED: HTTPStatus.GATEWAY_TIMEOUT,
    Reason.DISPLACED: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.OVERRAN: HTTPStatus.GATEWAY_TIMEOUT,
    Reason.RUN_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    Reason.EXECUTOR_LOST: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.LOAD_FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.SHUTTING_DOWN: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.NO_ROOM: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The status of every reply but an answer in time, which is 200. Where it is 503, the reply says when to come again."""


class AnswerParameters(msgspec.Struct, omit_defaults=True):
    """What a reply tells beside its tensors, if asked; a late one tells its outcome unasked. Times are microseconds."""

    slotwise_outcome: str
    slotwise_request: int | None = None
    """The request's number in journals and logs."""
    slotwise_queue_us: int | None = None
    """From arrival until its batch was sent to the executor."""
    slotwise_wait_us: int | None = None
    """From sending until the batch started."""
    slotwise_execution_us: int | None = None
    slotwise_executor: str | None = None
    slotwise_batch_rows: int | None = None
    slotwise_attempts: int | None = None
    slotwise_prediction_error_us: int | None = None
    """How much later than predicted the batch ended; negative when it was earlier."""


class _BinarySize(msgspec.Struct, gc=False):
    binary_data_size: int


class _Output(msgspec.Struct, omit_defaults=True, gc=False):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _BinarySize | None = None
    data: list[object] | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Output]
    id: str = ""
    parameters: AnswerParameters | None = None


_encode = msgspec.json.Encoder().encode
Read = Callable[[TensorRef], memoryview]
Write = Callable[[Place, memoryview], None]


class Payload(msgspec.Struct, frozen=True, gc=False):
    """A body to send. `head_length` is None where all of it is JSON."""

    body: bytes
    head_length: int | None


def encode_answer(
    wish: Wish,
    contract: Contract,
    outputs: tuple[TensorRef, ...],
    read: Read,
    write: Write,
    parameters: AnswerParameters | None,
) -> Payload:
    """The body of an answer, as `lay_answer` has it in parts."""
    laid = lay_answer(wish, contract, outputs, read, write, parameters)
    if not laid.data:
        return Payload(laid.head, None)
    return Payload(b"".join((laid.head, *laid.data)), len(laid.head))


class Laid(msgspec.Struct, frozen=True, gc=False):
    """An answer's JSON head, and the data that follows it, where it lies now."""

    head: bytes
    data: list[memoryview]


def lay_answer(
    wish: Wish,
    contract: Contract,
    outputs: tuple[TensorRef, ...],
    read: Read,
    write: Write,
    parameters: AnswerParameters | None,
) -> Laid:
    """An answer before it is put together; `write` takes what goes to a client's own memory.

    Raises WireError when an output cannot be said in the form that was asked for.
    """
    told: list[_Output] = []
    data: list[memoryview] = []
    for position, wanted in enumerate(wish.wanted):
        ref = ref_of(wanted, outputs, position)
        view = read(ref)
        if wanted.place is not None:
            write(wanted.place, view)
            # Where it went is not repeated: clients take any parameters here for those of binary data.
            told.append(_Output(ref.name, ref.datatype, ref.shape))
        elif wanted.is_binary:
            told.append(_Output(ref.name, ref.datatype, ref.shape, _BinarySize(ref.nbytes)))
            data.append(view)
        else:
            told.append(_Output(ref.name, ref.datatype, ref.shape, None, _values(view, ref)))
    spec = contract.spec
    return Laid(_encode(_Answer(spec.name, spec.version, told, wish.id, parameters)), data)


def timing_parameters(outcome: Outcome, timing: Timing | None, request_id: int | None = None) -> AnswerParameters:
    """How a request's time was spent, for a client that asked."""
    if timing is None:
        return AnswerParameters(outcome.value, request_id)
    return AnswerParameters(
        slotwise_outcome=outcome.value,
        slotwise_request=request_id,
        slotwise_queue_us=(timing.sent_ns - timing.arrival_ns) // US,
        slotwise_wait_us=(timing.started_ns - timing.sent_ns) // US,
        slotwise_execution_us=(timing.ended_ns - timing.started_ns) // US,
        slotwise_executor=timing.executor,
        slotwise_batch_rows=timing.rows,
        slotwise_attempts=timing.attempts,
        slotwise_prediction_error_us=(timing.ended_ns - timing.predicted_ns) // US,
    )


def error_of(reply: Reply, request: Request, now_ns: int, retry_after_ns: int) -> WireError:
    """What to tell a client that gets no answer; `retry_after_ns` holds where the reply names none."""
    status = STATUSES[reply.reason]
    predicted_ms = None
    if reply.predicted_ns < FOREVER_NS:
        predicted_ms = (reply.predicted_ns - request.arrival_ns) / MS
    again_ns = (reply.retry_after_ns or retry_after_ns) if status is HTTPStatus.SERVICE_UNAVAILABLE else 0
    return WireError(
        status,
        _sentence(reply, request, now_ns, predicted_ms),
        reason=reply.reason.value if reply.reason is not Reason.NONE else reply.outcome.value,
        predicted_ms=predicted_ms,
        retry_after_ns=again_ns,
        request=request.id,
    )


def _sentence(reply: Reply, request: Request, now_ns: int, predicted_ms: float | None) -> str:
    if reply.outcome is Outcome.LATE:
        late_ms = (now_ns - request.deadline_ns) / MS
        return f"the answer came {late_ms:.3f} ms after the deadline and is not delivered"
    words = f"{reply.outcome.value} ({reply.reason.value})"
    if reply.message:
        words += f": {reply.message}"
    if predicted_ms is not None:
        allowed_ms = (request.deadline_ns - request.arrival_ns) / MS
        words += f"; predicted to take {predicted_ms:.3f} ms of {allowed_ms:.3f} ms allowed"
    return words


def ref_of(wanted: Wanted, outputs: tuple[TensorRef, ...], position: int) -> TensorRef:
    """The output wanted at that position. Raises WireError when the model gave none of that name."""
    # The usual order is that of the request; look further only when it is not.
    if position < len(outputs) and outputs[position].name == wanted.name:
        return outputs[position]
    for ref in outputs:
        if ref.name == wanted.name:
            return ref
    raise WireError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the model ran, but gave no output {wanted.name!r}")


def _values(view: memoryview, ref: TensorRef) -> list[object]:
    try:
        return datatypes.unpack(view, ref.datatype)
    except TensorFault as fault:
        raise bad(f"output {ref.name!r} {fault}") from fault
