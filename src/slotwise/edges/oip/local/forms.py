"""What the two kinds of questions at the local door mean, and how their answers are told. Pure but for shared memory.

An `Ask` names each tensor and where it lies; a `Relay` brings the protocol's own JSON head and has its data one behind
the other. Both become the same `Infer`, by the same code that reads requests over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

from slotwise.edges.local import frames
from slotwise.edges.oip.answers import timing_parameters
from slotwise.edges.oip.codec import HEADS_MAX, Contract, Filler, Infer, Place, borrow, decode, understand
from slotwise.edges.oip.datatypes import NEEDS_CHECK
from slotwise.edges.oip.errors import bad
from slotwise.edges.oip.head import Head, Input, InputParameters, Output, Parameters
from slotwise.edges.oip.local.guest import Guest
from slotwise.facts.types import PRIORITY_LOWEST, Outcome, TensorRef, Timing

TENSORS_KNOWN_MAX = 16
"""Questions with more are not remembered, as they are long."""
Read = Callable[[Place, memoryview], None]


def understood(asked: frames.Asked, contract: Contract) -> Infer:
    """A question as checked against its model. Raises WireError."""
    if type(asked) is frames.Relay:
        return decode(asked.head, asked.nbytes, contract)
    assert type(asked) is frames.Ask, "there are two kinds"
    # A client that uses its arrays again asks the same but for the serial and the time that is left.
    key = (asked.inputs, asked.outputs)
    known = contract.known.get(key)
    if known is None:
        known = understand(head_of(asked), 0, contract)
        if len(asked.inputs) + len(asked.outputs) <= TENSORS_KNOWN_MAX:
            if len(contract.known) >= HEADS_MAX:
                contract.known.clear()
            contract.known[key] = known
    return known


def priority_of(asked: frames.Asked, infer: Infer) -> int:
    """The priority that was asked for; 0 where the model's holds. Raises WireError for one that there is not."""
    if type(asked) is not frames.Ask:
        return infer.priority
    if asked.priority > PRIORITY_LOWEST:
        words = f"the priority is {asked.priority}; it is 1 (highest) to {PRIORITY_LOWEST}, or 0 for the model's own"
        raise bad(words)
    return asked.priority


def wants_timing(asked: frames.Asked, infer: Infer) -> bool:
    """Whether the answer is to tell how the time was spent."""
    return asked.has_timing if type(asked) is frames.Ask else infer.wish.has_timing


def stays(asked: frames.Asked, infer: Infer) -> bool:
    """Whether executors may read its inputs where its client has put them.

    Not those whose bytes must be checked first, and not those that lie elsewhere.
    """
    if any(part.datatype in NEEDS_CHECK for part in infer.parts):
        return False
    return type(asked) is frames.Ask or all(part.is_behind for part in infer.parts)


def refs_in_place(asked: frames.Asked, infer: Infer, guest: Guest) -> tuple[TensorRef, ...]:
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


def take_in(asked: frames.Asked, infer: Infer, guest: Guest, view: memoryview, read: Read) -> None:
    """Copy its inputs to `view`, those in regions by `read`, and check them there. Raises WireError."""
    if type(asked) is frames.Ask:
        borrow(infer, view, read)
        return
    assert type(asked) is frames.Relay, "there are two kinds"
    filler, at = Filler(infer, view), asked.offset
    for part in infer.parts:
        if part.is_behind:
            filler.write(guest.view(at, part.nbytes))
            at += -(-part.nbytes // frames.ALIGNMENT) * frames.ALIGNMENT
    filler.finish()
    if infer.borrows:
        borrow(infer, view, read)


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


def head_of(ask: frames.Ask) -> Head:
    """The tensors in the protocol's own form, so that one piece of code checks them whatever their way."""
    inputs = [
        Input(
            tensor.name,
            tensor.datatype,
            list(tensor.shape),
            InputParameters("", tensor.offset, tensor.nbytes),
        )
        for tensor in ask.inputs
    ]
    outputs = [Output(name) for name in ask.outputs]
    return Head(inputs, parameters=Parameters(binary_data_output=True), outputs=outputs)
