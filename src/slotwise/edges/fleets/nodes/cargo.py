"""Batches and what came of them, as messages with a body of tensors, and back. Pure but for reading tensors.

A `Cargo` is the body of a frame that is yet to be sent: views of tensors where they lie, and where each will be.
"""

from __future__ import annotations

from collections.abc import Callable

from slotwise.edges.fleets.messages import (
    LoadDone,
    LoadFailure,
    MessageError,
    Question,
    RunCommand,
    RunDone,
    RunFailed,
    Tensor,
    UnloadDone,
)
from slotwise.edges.fleets.nodes.messages import NodeResult, Run
from slotwise.facts.actions import RunBatch
from slotwise.facts.events import BatchDone, BatchFailed, Loaded, LoadFailed, Unloaded
from slotwise.facts.types import ZEROS_SEGMENT, Request, TensorRef

ALIGNMENT = 64
"""Tensors begin at a multiple of it in a body, as they do in shared memory."""
Read = Callable[[TensorRef], memoryview]
ResultEvent = BatchDone | BatchFailed | Loaded | LoadFailed | Unloaded


class Cargo:
    """Tensors for the body of one frame."""

    def __init__(self) -> None:
        self.parts: list[bytes | memoryview] = []
        self.nbytes = 0

    def add(self, ref: TensorRef, read: Read) -> Tensor:
        """Take a tensor in, unless it is made where it is read; where it will be."""
        if ref.segment == ZEROS_SEGMENT:
            return Tensor(ref.name, ref.datatype, ref.shape, 0, ref.nbytes, ZEROS_SEGMENT)
        offset = self.nbytes
        taken = padded(ref.nbytes)
        self.parts.append(read(ref))
        if taken > ref.nbytes:
            self.parts.append(bytes(taken - ref.nbytes))
        self.nbytes += taken
        return Tensor(ref.name, ref.datatype, ref.shape, offset, ref.nbytes)


def padded(nbytes: int) -> int:
    """What a tensor takes in a body."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def inputs_nbytes(action: RunBatch) -> int:
    """What the inputs of a batch take in a body."""
    refs = [ref for request in action.requests for ref in request.inputs]
    return sum([padded(ref.nbytes) for ref in refs if ref.segment != ZEROS_SEGMENT])


def command_of(action: RunBatch, cargo: Cargo, read: Read, there: Callable[[int], int]) -> RunCommand:
    """A batch as a node is told of it; `there` says what an instant is on its clock."""
    questions = [
        Question(request.rows, tuple([cargo.add(ref, read) for ref in request.inputs]), request.outputs)
        for request in action.requests
    ]
    return RunCommand(
        batch_id=action.batch_id,
        model=action.model,
        earliest_ns=there(action.earliest_ns),
        latest_ns=there(action.latest_ns),
        questions=tuple(questions),
    )


def action_of(message: Run, region: int, nbytes: int) -> RunBatch:
    """A batch for the node's own fleet; its inputs lie in a region of so many bytes. Raises MessageError."""
    command = message.command
    requests = tuple(
        [_request(serial, command, question, region, nbytes) for serial, question in enumerate(command.questions)]
    )
    return RunBatch(
        executor=message.executor,
        batch_id=command.batch_id,
        model=command.model,
        requests=requests,
        rows=sum([question.rows for question in command.questions]),
        earliest_ns=command.earliest_ns,
        latest_ns=command.latest_ns,
        expected_ns=0,
    )


def result_of(event: ResultEvent, cargo: Cargo, read: Read) -> NodeResult:
    """What came of an action, as a front is told of it."""
    match event:
        case BatchDone():
            return RunDone(
                batch_id=event.batch_id,
                started_ns=event.started_ns,
                ended_ns=event.ended_ns,
                cpu_ns=event.cpu_ns,
                outputs_end=0,
                answers=tuple([tuple([cargo.add(ref, read) for ref in answer]) for answer in event.outputs]),
            )
        case BatchFailed():
            return RunFailed(
                batch_id=event.batch_id,
                failure=event.failure,
                message=event.message,
                started_ns=event.started_ns,
                ended_ns=event.ended_ns,
            )
        case Loaded():
            return LoadDone(
                model=event.model, load_id=event.load_id, started_ns=event.started_ns, ended_ns=event.ended_ns
            )
        case LoadFailed():
            return LoadFailure(model=event.model, load_id=event.load_id, failure=event.failure, message=event.message)
        case Unloaded():
            return UnloadDone(model=event.model, load_id=event.load_id)


def _request(serial: int, command: RunCommand, question: Question, region: int, nbytes: int) -> Request:
    return Request(
        id=serial,
        model=command.model,
        arrival_ns=0,
        deadline_ns=command.latest_ns,
        rows=question.rows,
        inputs=tuple([_ref(tensor, region, nbytes) for tensor in question.inputs]),
        regions=(region,),
        outputs=question.outputs,
    )


def _ref(tensor: Tensor, region: int, nbytes: int) -> TensorRef:
    is_made = tensor.segment == ZEROS_SEGMENT and tensor.nbytes >= 0
    if not is_made and not 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= nbytes:
        raise MessageError(f"input {tensor.name!r} does not lie in the frame that brought it")
    return TensorRef(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        segment=ZEROS_SEGMENT if is_made else 0,
        offset=0 if is_made else region + tensor.offset,
        nbytes=tensor.nbytes,
    )
