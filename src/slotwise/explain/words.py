"""Makes sentences and reports of stories. Pure: what is printed or written is the command's.

Times in a report are milliseconds; instants count from the request's arrival, save `arrival_ns`, which is on the
journal's clock.
"""

from __future__ import annotations

import msgspec

from slotwise.explain.story import Attempt, Ending, Leg, Loading, Story, Then
from slotwise.facts.types import FOREVER_NS, Failure, Outcome, Reason
from slotwise.facts.units import MS

CAME_BACK = "its batch came back"
"""So begins what the controller says of one that is tried again."""
OF_STEPS = ("its steps", "step ")
"""So begins what is said of a request to a pipeline."""
OVERRUN_FACTOR = 1.2
"""A batch that took so many times as long as expected has overrun."""
BLAME_SHARE = 0.5
"""What made up so much of a delay is the cause of it."""


class ExecutorThen(msgspec.Struct, frozen=True):
    """An executor when the request arrived."""

    executor: str
    holds_model: bool
    batches: int
    busy_ms: float
    """How long it was expected to be busy with them."""


class BatchTold(msgspec.Struct, frozen=True):
    """A batch that the request was in."""

    batch: int
    executor: str
    rows: int
    company: tuple[int, ...]
    """The other requests in it."""
    sent_ms: float
    earliest_ms: float
    latest_ms: float | None
    expected_start_ms: float
    expected_run_ms: float
    start_ms: float | None
    run_ms: float | None
    trouble: str
    """Why it came to nothing; empty where it ran to its end."""


class LoadTold(msgspec.Struct, frozen=True):
    """A load of its model that was under way in its time."""

    load: int
    executor: str
    sent_ms: float
    expected_run_ms: float
    end_ms: float | None
    trouble: str


class StepTold(msgspec.Struct, frozen=True):
    """A step of a request to a pipeline, counted from 1; `request` is what the step itself can be explained by."""

    step: int
    request: int
    model: str
    sent_ms: float
    allowed_ms: float | None
    """From its sending."""
    outcome: str | None
    reason: str
    latency_ms: float | None


class Explanation(msgspec.Struct, frozen=True):
    """One request: what it met, how it ended, and why, in a sentence."""

    request: int
    model: str
    rows: int
    priority: int
    arrival_ns: int
    allowed_ms: float | None
    outcome: str | None
    """None where the journal ends before."""
    reason: str
    message: str
    latency_ms: float | None
    predicted_ms: float | None
    missed_by_ms: float | None
    waiting: int
    """Requests for its model that waited when it arrived."""
    waiting_all: int
    executors: tuple[ExecutorThen, ...]
    batches: tuple[BatchTold, ...]
    loads: tuple[LoadTold, ...]
    steps: tuple[StepTold, ...]
    """Of a request to a pipeline, in the order in which they began; it has no batches of its own."""
    why: str


def explanation(story: Story) -> Explanation:
    """The report of one request."""
    asking, ending, missed_ns = story.asking, story.ending, story.missed_ns()
    start_ns = asking.arrival_ns
    has_deadline = asking.deadline_ns < FOREVER_NS
    return Explanation(
        request=asking.id,
        model=asking.model,
        rows=asking.rows,
        priority=asking.priority,
        arrival_ns=start_ns,
        allowed_ms=(asking.deadline_ns - start_ns) / MS if has_deadline else None,
        outcome=None if ending is None else ending.outcome.value,
        reason="" if ending is None else ending.reason.value,
        message="" if ending is None else ending.message,
        latency_ms=None if story.replied_ns is None else (story.replied_ns - start_ns) / MS,
        predicted_ms=None
        if ending is None or ending.predicted_ns >= FOREVER_NS
        else (ending.predicted_ns - start_ns) / MS,
        missed_by_ms=None if missed_ns is None else missed_ns / MS,
        waiting=story.waiting,
        waiting_all=story.waiting_all,
        executors=tuple(_then(one) for one in story.executors),
        batches=tuple(_batch(attempt, story) for attempt in story.attempts),
        loads=tuple(_load(loading, start_ns) for loading in story.loadings),
        steps=tuple(_step(leg, start_ns) for leg in story.legs),
        why=why(story),
    )


def _then(then: Then) -> ExecutorThen:
    return ExecutorThen(executor=then.executor, holds_model=then.holds, batches=then.batches, busy_ms=then.busy_ns / MS)


def _batch(attempt: Attempt, story: Story) -> BatchTold:
    run, start_ns = attempt.run, story.asking.arrival_ns
    has_run = attempt.started_ns is not None and attempt.ended_ns is not None
    return BatchTold(
        batch=run.batch_id,
        executor=run.executor,
        rows=run.rows,
        company=tuple(number for number in run.requests if number != story.asking.id),
        sent_ms=(attempt.sent_ns - start_ns) / MS,
        earliest_ms=(run.earliest_ns - start_ns) / MS,
        latest_ms=None if run.latest_ns >= FOREVER_NS else (run.latest_ns - start_ns) / MS,
        expected_start_ms=(attempt.expected_start_ns - start_ns) / MS,
        expected_run_ms=run.expected_ns / MS,
        start_ms=None if attempt.started_ns is None else (attempt.started_ns - start_ns) / MS,
        run_ms=_ran_ns(attempt) / MS if has_run else None,
        trouble=attempt.trouble or ("" if attempt.ended_ns is not None else "unfinished"),
    )


def _load(loading: Loading, start_ns: int) -> LoadTold:
    return LoadTold(
        load=loading.load.load_id,
        executor=loading.load.executor,
        sent_ms=(loading.sent_ns - start_ns) / MS,
        expected_run_ms=loading.load.expected_ns / MS,
        end_ms=None if loading.ended_ns is None else (loading.ended_ns - start_ns) / MS,
        trouble=loading.trouble,
    )


def _step(leg: Leg, start_ns: int) -> StepTold:
    asking, ending = leg.asking, leg.ending
    return StepTold(
        step=1 + (asking.step_of.step if asking.step_of is not None else 0),
        request=asking.id,
        model=asking.model,
        sent_ms=(asking.arrival_ns - start_ns) / MS,
        allowed_ms=(asking.deadline_ns - asking.arrival_ns) / MS if asking.deadline_ns < FOREVER_NS else None,
        outcome=None if ending is None else ending.outcome.value,
        reason="" if ending is None else ending.reason.value,
        latency_ms=None if leg.replied_ns is None else (leg.replied_ns - asking.arrival_ns) / MS,
    )


def why(story: Story) -> str:
    """Why it ended as it did, in one sentence."""
    asking, ending = story.asking, story.ending
    if ending is None or story.replied_ns is None:
        return "it had no reply when the journal ended"
    took_ms = (story.replied_ns - asking.arrival_ns) / MS
    match ending.outcome:
        case Outcome.IN_TIME:
            left = f", {(asking.deadline_ns - story.replied_ns) / MS:.3f} ms before its deadline"
            return f"answered {took_ms:.3f} ms after it arrived{left if asking.deadline_ns < FOREVER_NS else ''}"
        case Outcome.LATE:
            return f"late by {(story.replied_ns - asking.deadline_ns) / MS:.3f} ms: {_delay(story)}"
        case Outcome.REFUSED:
            return f"refused {_when(took_ms)}: {_refusal(story, ending)}"
        case Outcome.DROPPED:
            return f"given up {_when(took_ms)}: {_tries(story)}{_said(ending)}"
        case Outcome.FAILED:
            return f"failed {_when(took_ms)}: {_tries(story)}{_said(ending)}"
        case Outcome.CANCELLED:
            return f"its client went away {_when(took_ms)}"


def _when(took_ms: float) -> str:
    return "as it arrived" if took_ms <= 0 else f"{took_ms:.3f} ms after it arrived"


_REASONS = {
    Reason.NONE: "no reason was told",
    Reason.INFEASIBLE: "no executor had room for it before its deadline",
    Reason.OVERLOADED: "there was more demand than time, and other requests made better use of it",
    Reason.QUEUE_FULL: "too many others were under way",
    Reason.UNKNOWN_MODEL: "its model was not on offer",
    Reason.MODEL_REMOVED: "its model was taken off offer while it waited",
    Reason.NO_EXECUTOR: "no executor was up that could hold its model",
    Reason.EXPIRED: "its deadline could no longer be met",
    Reason.DISPLACED: "it gave way to a request of higher priority",
    Reason.OVERRAN: "its batch ended after the deadline",
    Reason.RUN_ERROR: "its model's run failed",
    Reason.EXECUTOR_LOST: "its executor died, and there was no more try",
    Reason.LOAD_FAILED: "its model could not be loaded",
    Reason.SHUTTING_DOWN: "the server was stopping",
    Reason.NO_ROOM: "there was no room for what passes between its steps",
}


def _said(ending: Ending) -> str:
    """The controller's own words; what came of the last try is left to `_tries`."""
    first, _, rest = ending.message.partition("; ")
    return (rest if rest and first.startswith(CAME_BACK) else ending.message) or _REASONS[ending.reason]


def _refusal(story: Story, ending: Ending) -> str:
    """The controller's own words if there are any, and what stood before it if that was the trouble."""
    text = _said(ending)
    if ending.reason is not Reason.INFEASIBLE or _is_of_pipeline(ending):
        return text
    holders = [one for one in story.executors if one.holds]
    if not holders:
        return f"{text}; no executor held its model, which had to be loaded first"
    busy_ns = min(one.busy_ns for one in holders)
    run_ns = ending.predicted_ns - story.asking.arrival_ns - busy_ns
    allowed_ns = story.asking.deadline_ns - story.asking.arrival_ns
    if not story.waiting_all and allowed_ns < run_ns < FOREVER_NS // 2:
        return f"{text}; its run alone was expected to take {run_ns / MS:.3f} ms of {allowed_ns / MS:.3f} ms allowed"
    busy_ms = busy_ns / MS
    return (
        f"{text}; {story.waiting_all} requests waited, and every executor with its model was busy for {busy_ms:.3f} ms"
    )


def _is_of_pipeline(ending: Ending) -> bool:
    """Whether it was refused for its steps, so that no executor was looked at for the whole."""
    return ending.message.startswith(OF_STEPS)


def _tries(story: Story) -> str:
    """The batches that came to nothing, in words."""
    told = [f"{_trouble(one)} ({one.run.executor})" for one in story.attempts if one.trouble]
    return f"{', then '.join(told)}; " if told else ""


def _trouble(attempt: Attempt) -> str:
    if attempt.trouble == Failure.TOO_LATE.value and attempt.ended_ns is not None:
        return f"its batch's turn came {(attempt.ended_ns - attempt.run.latest_ns) / MS:.3f} ms after its window"
    return _TROUBLES.get(attempt.trouble, attempt.trouble)


_TROUBLES = {
    "executor_lost": "its executor was lost with it",
    "not_loaded": "its batch found the model not loaded",
    "changed": "its model was replaced while its batch ran",
    "stopped": "its batch was stopped for another",
    "run_error": "its batch failed",
    "no_memory": "there was no memory for its batch",
    "bad_model": "its model was bad",
}


def _delay(story: Story) -> str:
    """What a late answer lost its time to."""
    if story.legs:
        longest = max((_step(leg, 0) for leg in story.legs), key=lambda told: told.latency_ms or 0.0)
        return f"its longest step, {longest.step} ({longest.model}), took {ms(longest.latency_ms)} ms"
    attempt = next((one for one in reversed(story.attempts) if not one.trouble and one.ended_ns), None)
    if attempt is None or attempt.started_ns is None or story.replied_ns is None:
        return _tries(story) + "its answer came after the deadline"
    late_ns = story.replied_ns - story.asking.deadline_ns
    ran_ns, expected_ns = _ran_ns(attempt), attempt.run.expected_ns
    overran_ns = ran_ns - expected_ns
    began_late_ns = attempt.started_ns - attempt.expected_start_ns
    returned_ns = story.replied_ns - (attempt.ended_ns or 0)
    worst_ns = max(overran_ns, began_late_ns, returned_ns)
    words = "its deadline could not be met any more when it was sent"
    if worst_ns >= BLAME_SHARE * late_ns:
        if worst_ns == overran_ns:
            factor = ran_ns / expected_ns if expected_ns else 0.0
            times = f"{factor:.1f} times as long as expected" if factor >= OVERRUN_FACTOR else "longer than expected"
            words = f"its batch took {times} ({ran_ns / MS:.3f} ms rather than {expected_ns / MS:.3f} ms)"
        elif worst_ns == began_late_ns:
            what = "what was sent before it took longer" if attempt.ahead else "its executor was slow to take it"
            words = f"its batch began {began_late_ns / MS:.3f} ms later than expected: {what}"
        else:
            words = f"its answer was taken in {returned_ns / MS:.3f} ms after its batch had ended"
    return _tries(story) + words


def _ran_ns(attempt: Attempt) -> int:
    return (attempt.ended_ns or 0) - (attempt.started_ns or 0)


WORST_COLUMNS = ("request", "model", "outcome", "reason", "allowed ms", "missed by ms", "why")
EXECUTOR_COLUMNS = ("executor", "holds the model", "batches", "busy for ms")
BATCH_COLUMNS = (
    "batch",
    "executor",
    "rows",
    "company",
    "sent",
    "window",
    "start: expected",
    "real",
    "run: expected",
    "real",
    "trouble",
)
STEP_COLUMNS = ("step", "request", "model", "sent", "allowed", "outcome", "reason", "took")
LOAD_COLUMNS = ("load", "executor", "sent", "run: expected", "end", "trouble")


def headline(told: Explanation) -> str:
    """The request and its end, in some lines."""
    allowed = "no deadline" if told.allowed_ms is None else f"{told.allowed_ms:.3f} ms allowed"
    rows = "1 row" if told.rows == 1 else f"{told.rows} rows"
    waited = f"{told.waiting_all} others waited, {told.waiting} of them for its model"
    lines = [
        f"request {told.request}: {told.model}, {rows}, priority {told.priority}, {allowed}",
        f"arrived at {told.arrival_ns} ns on the journal's clock, when {waited}",
    ]
    if told.outcome is not None:
        reason = "" if told.reason == Reason.NONE.value else f" ({told.reason})"
        lines.append(f"ended {told.outcome}{reason} after {ms(told.latency_ms)} ms")
    lines.append(f"why: {told.why}")
    return "\n".join(lines)


def worst_row(told: Explanation) -> tuple[str, ...]:
    """A line of a list of requests."""
    missed = (ms(told.allowed_ms), ms(told.missed_by_ms))
    return (str(told.request), told.model, told.outcome or "-", told.reason, *missed, told.why)


def executor_rows(told: Explanation) -> list[tuple[str, ...]]:
    """The executors when it arrived."""
    return [
        (one.executor, "yes" if one.holds_model else "no", str(one.batches), ms(one.busy_ms)) for one in told.executors
    ]


def batch_rows(told: Explanation) -> list[tuple[str, ...]]:
    """Its batches."""
    return [
        (
            str(one.batch),
            one.executor,
            str(one.rows),
            " ".join(map(str, one.company)) or "-",
            ms(one.sent_ms),
            f"{ms(one.earliest_ms)} to {ms(one.latest_ms)}",
            ms(one.expected_start_ms),
            ms(one.start_ms),
            ms(one.expected_run_ms),
            ms(one.run_ms),
            one.trouble or "-",
        )
        for one in told.batches
    ]


def step_rows(told: Explanation) -> list[tuple[str, ...]]:
    """The steps of a pipeline."""
    return [
        (
            str(one.step),
            str(one.request),
            one.model,
            ms(one.sent_ms),
            ms(one.allowed_ms),
            one.outcome or "-",
            one.reason or "-",
            ms(one.latency_ms),
        )
        for one in told.steps
    ]


def load_rows(told: Explanation) -> list[tuple[str, ...]]:
    """Loads of its model."""
    return [
        (str(one.load), one.executor, ms(one.sent_ms), ms(one.expected_run_ms), ms(one.end_ms), one.trouble or "-")
        for one in told.loads
    ]


def ms(number: float | None) -> str:
    """A time in milliseconds, or a dash for none."""
    return "-" if number is None else f"{number:.3f}"
