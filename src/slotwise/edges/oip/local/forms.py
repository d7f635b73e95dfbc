"""What the two kinds of questions at the local door mean, and how their answers are told. Pure but for shared memory.

An `Ask` names each tensor and where it lies; a `Relay` brings the protocol's own JSON head and has its data one behind
the other. Both become the same `Infer`, by the same code that reads requests over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

from slotwise.edges.local import frames
from slotwise.edges.oip.answers import timing_parameters
from slotwise.edges.oip.codec import (
    Contract,
    Filler,
    Head,
    Infer,
    Input,
    InputParameters,
    Output,
    Parameters,
    Place,
    borrow,
    decode,
    understand,
)
from slotwise.edges.oip.datatypes import NEEDS_CHECK
from slotwise.edges.oip.local.guest import Guest
from slotwise.facts.types import Outcome, TensorRef, Timing

Asked = frames.Ask | frames.Relay
Read = Callable[[Place, memoryview], None]


def understood(asked: Asked, contract: Contract) -> Infer:
    """A question as checked against its model. Raises WireError."""
    if type(asked) is frames.Relay:
        return decode(asked.head, asked.nbytes, contract)
    assert type(asked) is frames.Ask, "there are two kinds"
    return understand(_head_of(asked), 0, contract)


def stays(asked: Asked, infer: Infer) -> bool:
    """Whether executors may read its inputs where its client has put them.

    Not those whose bytes must be checked first, and not those that lie elsewhere.
    """
    if any(part.datatype in NEEDS_CHECK for part in infer.parts):
        return False
    return type(asked) is frames.Ask or all(part.is_behind for part in infer.parts)


def refs_in_place(asked: Asked, infer: Infer, guest: Guest) -> tuple[TensorRef, ...]:
    """Its inputs in the client's own memory. Raises WireError for those that do not lie there."""
    if type(asked) is frames.Relay:
        guest.check(asked.offset, infer.nbytes)
    found = []
    for part in infer.parts:
        if part.source is None:
            offset = asked.offset + part.offset  # type: ignore[union-attr]  # all inputs of an Ask have a source
        else:
            guest.check(part.source.offset, part.nbytes)
            offset = part.source.offset
        found.append(
            TensorRef(
                name=part.name,
                datatype=part.datatype,
                shape=part.shape,
                segment=guest.segment,
                offset=offset,
                nbytes=part.nbytes,
            )
        )
    return tuple(found)


def take_in(asked: Asked, infer: Infer, guest: Guest, view: memoryview, read_region: Read) -> None:
    """Copy its inputs to `view`, and check them there. Raises WireError."""
    if type(asked) is frames.Ask:
        borrow(infer, view, guest.read)
        return
    assert type(asked) is frames.Relay, "there are two kinds"
    filler, at = Filler(infer, view), asked.offset
    for part in infer.parts:
        if part.is_behind:
            filler.write(guest.view(at, part.nbytes))
            at += -(-part.nbytes // frames.ALIGNMENT) * frames.ALIGNMENT
    filler.finish()
    if infer.borrows:
        borrow(infer, view, read_region)


def spent(outcome: Outcome, timing: Timing | None, request_id: int) -> frames.Spent:
    """How its time was spent, for an Ask that wants to know."""
    told = timing_parameters(outcome, timing, request_id)
    return frames.Spent(
        outcome=told.slotwise_outcome,
        queue_us=told.slotwise_queue_us,
        wait_us=told.slotwise_wait_us,
        execution_us=told.slotwise_execution_us,
        executor=told.slotwise_executor,
        batch_rows=told.slotwise_batch_rows,
        attempts=told.slotwise_attempts,
        prediction_error_us=told.slotwise_prediction_error_us,
        request=told.slotwise_request,
    )


def _head_of(ask: frames.Ask) -> Head:
    """The request in the protocol's own form, so that one piece of code checks it whatever its way."""
    inputs = [
        Input(
            tensor.name,
            tensor.datatype,
            list(tensor.shape),
            InputParameters("", tensor.offset, tensor.nbytes),
        )
        for tensor in ask.inputs
    ]
    parameters = Parameters(ask.timeout_us, ask.priority, binary_data_output=True, slotwise_timing=ask.has_timing)
    return Head(inputs, parameters=parameters, outputs=[Output(name) for name in ask.outputs])
