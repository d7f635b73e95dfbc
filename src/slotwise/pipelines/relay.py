"""Stands between the doors and the engine, and makes of a request to a pipeline requests of its steps.

To the engine a step is a request like any other, so the journal, the scheduler and the fleet know nothing of
pipelines; to a door a pipeline is a model like any other. What is no pipeline's passes through at the cost of one look.

    Arrived of a pipeline  ->  Arrived of its first steps         Reply of a step  ->  Arrived of the next, or the Reply
    Cancelled of it        ->  Cancelled of the steps under way

The first step that is not answered ends the whole, and the others are cancelled. A step holds the regions that it
reads until its own reply, whatever has become of the whole. The same object serves in real and in virtual time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from slotwise.engine.ports import Clock, Front, Post, Recorder
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived, Cancelled, Event, ModelAdded, ModelRemoved, PipelineEnded
from slotwise.facts.pipeline import expected_ns, expected_rest_ns, needed
from slotwise.facts.shapes import VARIABLE, fits, form_of
from slotwise.facts.types import FOREVER_NS, ModelSpec, Outcome, Reason, Request, StepOf, TensorRef
from slotwise.facts.units import MS
from slotwise.facts.value import value
from slotwise.pipelines.course import Course
from slotwise.pipelines.deadlines import RULES, Deadlines
from slotwise.pipelines.tensors import Tensors

RETRY_NS_MIN = 1 * MS
LATER_REASONS = {Reason.INFEASIBLE: Reason.EXPIRED, Reason.UNKNOWN_MODEL: Reason.MODEL_REMOVED}
"""What a step's refusal means once another step has been answered: the whole was accepted by then."""
ANSWERED = (Outcome.IN_TIME, Outcome.LATE)


@value
class _Under:
    """A step's request: whose it is, which step, and the regions that it holds."""

    course: Course
    step: int
    regions: tuple[int, ...]


class Relay:
    """An `engine.ports.Front` for the engine, and the `Post` of doors."""

    def __init__(
        self,
        *,
        post: Post,
        front: Front,
        clock: Clock,
        request_ids: Iterator[int],
        members: Mapping[str, ModelSpec],
        tensors: Tensors,
        deadlines: Deadlines = Deadlines.EFFECTIVE,
        recorders: Sequence[Recorder] = (),
    ) -> None:
        """`members` are all models on offer, always up to date; `recorders` are told of pipelines' own requests."""
        self._post = post
        self._front = front
        self._clock = clock
        self._ids = request_ids
        self._members = members
        self._tensors = tensors
        self._deadline_ns = RULES[deadlines]
        self._recorders = tuple(recorders)
        self._pipelines: dict[str, ModelSpec] = {}
        self._courses: dict[int, Course] = {}
        self._steps: dict[int, _Under] = {}

    # The doors' side

    def post(self, event: Event) -> None:
        """Take an event of a door or of the repository in."""
        kind = type(event)
        if kind is Arrived:
            spec = self._pipelines.get(event.request.model)  # type: ignore[union-attr]  # narrowed by `kind`
            if spec is not None:
                self._ask(event.request, spec)  # type: ignore[union-attr]  # narrowed by `kind`
                return
        elif kind is Cancelled:
            course = self._courses.get(event.request_id)  # type: ignore[union-attr]  # narrowed by `kind`
            if course is not None:
                self._end_soon(course, Reply(request_id=course.request.id, outcome=Outcome.CANCELLED))
                return
        elif kind is ModelAdded and event.spec.steps:  # type: ignore[union-attr]  # narrowed by `kind`
            self._pipelines[event.spec.id] = event.spec  # type: ignore[union-attr]  # narrowed by `kind`
            self._record((event,), ())
            return
        elif kind is ModelRemoved and event.model in self._pipelines:  # type: ignore[union-attr]  # narrowed by `kind`
            del self._pipelines[event.model]  # type: ignore[union-attr]  # narrowed by `kind`
            self._record((event,), ())
            return
        self._post(event)

    def under_way(self) -> int:
        """Requests to pipelines that wait for their reply."""
        return len(self._courses)

    def _ask(self, request: Request, spec: ModelSpec) -> None:
        if request.outputs:
            spec = replace(spec, steps=needed(spec.steps, request.outputs))
        step_ns = expected_ns(spec.steps, self._members, request.rows)
        course = Course(request, spec, step_ns, expected_rest_ns(spec.steps, step_ns))
        self._courses[request.id] = course
        self._record((Arrived(request=request),), ())
        predicted_ns = self._clock.now_ns() + course.expected_ns
        if predicted_ns > request.deadline_ns:
            reply = Reply(
                request_id=request.id,
                outcome=Outcome.REFUSED,
                reason=Reason.INFEASIBLE,
                message=f"its steps are expected to take {course.expected_ns / MS:.3f} ms even if none of them waits",
                predicted_ns=predicted_ns,
                retry_after_ns=max(RETRY_NS_MIN, predicted_ns - request.deadline_ns),
            )
            self._end_soon(course, reply)
            return
        self._go_on(course)

    # The engine's side

    def reply(self, reply: Reply) -> None:
        """Pass a reply on; that of a step leads to the next steps, or to the whole's own reply."""
        under = self._steps.pop(reply.request_id, None)
        if under is None:
            self._front.reply(reply)
            return
        course = under.course
        course.under_way.pop(reply.request_id, None)
        if course.request.id in self._courses:
            if reply.outcome in ANSWERED:
                self._take_in(course, under.step, reply)
            else:
                self._end(course, _failure(course, under.step, reply))
        self._tensors.release(under.regions)

    def _take_in(self, course: Course, step: int, reply: Reply) -> None:
        """A step was answered."""
        course.note(reply.timing)
        refs: Sequence[TensorRef] = reply.outputs
        region = None
        if refs and not course.is_complete():
            copy = self._tensors.copy(refs)
            if copy is None:
                nbytes = sum(ref.nbytes for ref in refs)
                self._fail(course, step, Reason.NO_ROOM, f"no room in shared memory for {nbytes} bytes of its outputs")
                return
            refs, region = copy.refs, copy.region
        course.note_made(step, refs, region)
        self._tensors.release(course.take_idle(step))
        self._go_on(course)

    def _go_on(self, course: Course) -> None:
        """Ask for every step that can begin, or answer if none is left."""
        for step in course.take_ready():
            if course.request.id in self._courses:
                self._begin(course, step)
        if course.request.id in self._courses and course.is_complete():
            is_late = self._clock.now_ns() > course.request.deadline_ns
            reply = Reply(
                request_id=course.request.id,
                outcome=Outcome.LATE if is_late else Outcome.IN_TIME,
                reason=Reason.OVERRAN if is_late else Reason.NONE,
                outputs=course.answer(),
                timing=course.timing(),
            )
            self._end(course, reply)

    def _begin(self, course: Course, step: int) -> None:
        whole, model = course.request, course.spec.steps[step].model
        member, inputs = self._members.get(model), course.inputs(step)
        if member is None:
            self._fail(course, step, Reason.MODEL_REMOVED, f"model {model} was taken off offer")
            return
        problem = _problem(member, inputs)
        if problem:
            self._fail(course, step, Reason.RUN_ERROR, problem)
            return
        now_ns, regions = self._clock.now_ns(), course.regions(step)
        request = Request(
            id=next(self._ids),
            model=model,
            arrival_ns=now_ns,
            deadline_ns=self._deadline_ns(now_ns, whole.deadline_ns, course.step_ns[step], course.rest_ns[step]),
            rows=_rows(member, inputs, whole.rows),
            priority=whole.priority,
            form=_form(member, inputs),
            inputs=inputs,
            regions=regions,
            outputs=course.outputs(step),
            step_of=StepOf(request_id=whole.id, model=whole.model, step=step),
        )
        self._tensors.hold(regions)
        self._steps[request.id] = _Under(course=course, step=step, regions=regions)
        course.under_way[request.id] = step
        self._post(Arrived(request=request))

    def _fail(self, course: Course, step: int, reason: Reason, message: str) -> None:
        """A step cannot begin, or what it made cannot be kept."""
        words = f"{_name(course, step)}: {message}"
        reply = Reply(request_id=course.request.id, outcome=Outcome.FAILED, reason=reason, message=words)
        self._end(course, reply) if course.answered else self._end_soon(course, reply)

    def _end_soon(self, course: Course, reply: Reply) -> None:
        """End, but reply when the door that is posting now has done so, for it does not expect a reply meanwhile."""
        if self._stop(course):
            self._clock.call_soon(partial(self._tell, course, reply))

    def _end(self, course: Course, reply: Reply) -> None:
        """End, with the one reply."""
        if self._stop(course):
            self._tell(course, reply)

    def _stop(self, course: Course) -> bool:
        """Cancel what is under way, whose replies are nobody's any more; False where that has been done.

        At once, for a client that went away has taken its memory along.
        """
        if self._courses.pop(course.request.id, None) is None:
            return False
        for request_id in course.under_way:
            self._post(Cancelled(request_id=request_id))
        return True

    def _tell(self, course: Course, reply: Reply) -> None:
        request = course.request
        told = PipelineEnded(
            request=request,
            outcome=reply.outcome,
            reason=reply.reason,
            message=reply.message,
            predicted_ns=reply.predicted_ns,
        )
        self._post(told)
        self._record((), (reply,))
        self._front.reply(reply)
        self._tensors.release(course.copies)

    def _record(self, events: Sequence[Event], actions: Sequence[Reply]) -> None:
        for recorder in self._recorders:
            recorder.record(self._clock.now_ns(), events, actions)


def _name(course: Course, step: int) -> str:
    steps = course.spec.steps
    return f"step {step + 1} of {len(steps)} ({steps[step].model})"


def _failure(course: Course, step: int, reply: Reply) -> Reply:
    """What a step's refusal, loss or failure means for the whole."""
    outcome, reason = reply.outcome, reply.reason
    if outcome is Outcome.REFUSED and course.answered:
        outcome, reason = Outcome.DROPPED, LATER_REASONS.get(reason, reason)
    after_ns = course.rest_ns[step] - course.step_ns[step]
    return replace(
        reply,
        request_id=course.request.id,
        outcome=outcome,
        reason=reason,
        message=f"{_name(course, step)}: {reply.message or reply.reason.value}",
        predicted_ns=min(FOREVER_NS, reply.predicted_ns + after_ns),
        timing=None,
    )


def _problem(member: ModelSpec, inputs: Sequence[TensorRef]) -> str:
    """Why a model cannot take these, as far as that is known only now; empty when it can."""
    declared = {tensor.name: tensor for tensor in member.inputs}
    for ref in inputs:
        tensor = declared.get(ref.name)
        if tensor is None:
            return f"it has no input {ref.name!r} any more"
        if not fits(ref.shape, tensor.shape) or ref.datatype != tensor.datatype:
            given, taken = f"{ref.datatype} {list(ref.shape)}", f"{tensor.datatype} {list(tensor.shape)}"
            return f"input {ref.name!r} is given {given}, the model takes {taken}"
    rows = {ref.shape[0] for ref in inputs} if member.batchable else set()
    if rows and (len(rows) > 1 or not 1 <= max(rows) <= member.batch_max):
        return (
            f"its inputs have {' and '.join(map(str, sorted(rows)))} rows; 1 to {member.batch_max} can be run together"
        )
    return ""


def _rows(member: ModelSpec, inputs: Sequence[TensorRef], rows: int) -> int:
    """The rows of a step: those of its inputs, or in virtual time those of the whole."""
    if not inputs:
        return rows
    return inputs[0].shape[0] if member.batchable else 1


def _form(member: ModelSpec, inputs: Sequence[TensorRef]) -> int:
    first = 1 if member.batchable else 0
    if not any(VARIABLE in tensor.shape[first:] for tensor in member.inputs):
        return 0
    return form_of((ref.name, ref.shape[first:]) for ref in inputs)
