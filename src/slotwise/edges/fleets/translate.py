"""From actions to the messages an executor reads, and from its messages to events. Pure."""

from __future__ import annotations

from slotwise.edges.fleets.messages import (
    LoadCommand,
    LoadDone,
    LoadFailure,
    Memory,
    Question,
    Ready,
    Result,
    RunCommand,
    RunDone,
    RunFailed,
    Tensor,
    UnloadDone,
)
from slotwise.facts.actions import Load, RunBatch
from slotwise.facts.events import BatchDone, BatchFailed, Loaded, LoadFailed, Unloaded
from slotwise.facts.types import ModelSpec, Request, TensorRef

ResultEvent = BatchDone | BatchFailed | Loaded | LoadFailed | Unloaded


def run_command(action: RunBatch, memories: tuple[Memory, ...] = ()) -> RunCommand:
    """What an executor needs to know of a batch, and of memories that it has not been told of."""
    return RunCommand(
        batch_id=action.batch_id,
        model=action.model,
        earliest_ns=action.earliest_ns,
        latest_ns=action.latest_ns,
        questions=tuple([_question(request) for request in action.requests]),
        memories=memories,
    )


def load_command(action: Load, spec: ModelSpec) -> LoadCommand:
    """What an executor needs to know of a load."""
    return LoadCommand(
        model=action.model,
        load_id=action.load_id,
        path=spec.path,
        pack=spec.pack,
        memory_bytes=spec.profile.memory_bytes,
        batchable=spec.batchable,
        earliest_ns=action.earliest_ns,
        latest_ns=action.latest_ns,
    )


def result_event(executor: str, segment: int, result: Result) -> ResultEvent:
    """What a result tells the controller. `segment` names the memory that outputs lie in."""
    match result:
        case RunDone():
            return BatchDone(
                executor=executor,
                batch_id=result.batch_id,
                started_ns=result.started_ns,
                ended_ns=result.ended_ns,
                cpu_ns=result.cpu_ns,
                outputs=tuple([tuple([_ref(tensor, segment) for tensor in answer]) for answer in result.answers]),
            )
        case RunFailed():
            return BatchFailed(
                executor=executor,
                batch_id=result.batch_id,
                failure=result.failure,
                message=result.message,
                started_ns=result.started_ns,
                ended_ns=result.ended_ns,
            )
        case LoadDone():
            return Loaded(
                executor=executor,
                model=result.model,
                load_id=result.load_id,
                started_ns=result.started_ns,
                ended_ns=result.ended_ns,
            )
        case LoadFailure():
            return LoadFailed(
                executor=executor,
                model=result.model,
                load_id=result.load_id,
                failure=result.failure,
                message=result.message,
            )
        case UnloadDone():
            return Unloaded(executor=executor, model=result.model, load_id=result.load_id)
        case Ready():
            raise AssertionError("an executor's readiness is its seat's affair")


def _question(request: Request) -> Question:
    inputs = [Tensor(ref.name, ref.datatype, ref.shape, ref.offset, ref.nbytes, ref.segment) for ref in request.inputs]
    return Question(request.rows, tuple(inputs), request.outputs)


def _ref(tensor: Tensor, segment: int) -> TensorRef:
    return TensorRef(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        segment=segment,
        offset=tensor.offset,
        nbytes=tensor.nbytes,
    )
