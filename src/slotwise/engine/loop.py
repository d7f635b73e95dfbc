"""The loop: gathers events, lets the controller decide once a turn, records, and carries out.

It is the same object in real and in virtual time; only its clock and its ports differ. It decides
nothing, and it publishes how late it runs, because a controller that lags decides on stale facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slotwise.engine.ports import Cancellable, Clock, Controller, Fleet, Front, Recorder
from slotwise.engine.statistics import Durations
from slotwise.facts.actions import Reply, WakeAt
from slotwise.facts.events import Event, Woke
from slotwise.facts.statistics import Histogram
from slotwise.facts.types import FOREVER_NS
from slotwise.facts.value import value

LAGS_KEPT = 1024


@value
class LoopStatistics:
    """What the loop has done, and how late. Lag is from an event's posting (or a wake-up's instant) to its turn."""

    turns: int
    events: int
    lag_ns_p50: int
    lag_ns_p99: int
    lag_ns_max: int
    lag: Histogram
    """Of all turns; the quantiles are of the last ones."""


class Engine:
    """One controller, one fleet, one front, joined by a clock."""

    def __init__(
        self,
        *,
        clock: Clock,
        controller: Controller,
        fleet: Fleet,
        front: Front,
        recorders: Sequence[Recorder] = (),
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """`on_failure` is told of a bug in the controller, after which the engine stands still; else it is raised."""
        self._clock = clock
        self._controller = controller
        self._fleet = fleet
        self._front = front
        self._recorders = recorders
        self._on_failure = on_failure
        self._is_broken = False
        self._events: list[Event] = []
        self._due_ns = 0
        self._alarm: Cancellable | None = None
        self._alarm_ns = FOREVER_NS
        self._turns = 0
        self._events_seen = 0
        self._lags_ns = [0] * LAGS_KEPT
        self._lags = Durations()
        self._lag_ns_max = 0

    def post(self, event: Event) -> None:
        """Take an event in; the turn that handles it follows as soon as what runs now has ended."""
        if self._is_broken:
            return
        if not self._events:
            self._due_ns = self._clock.now_ns()
            self._clock.call_soon(self._turn)
        self._events.append(event)

    def statistics(self) -> LoopStatistics:
        """A snapshot; the lag's quantiles are over the last 1,024 turns."""
        lags = sorted(self._lags_ns[: max(1, min(self._turns, LAGS_KEPT))])
        return LoopStatistics(
            turns=self._turns,
            events=self._events_seen,
            lag_ns_p50=lags[len(lags) // 2],
            lag_ns_p99=lags[len(lags) * 99 // 100],
            lag_ns_max=self._lag_ns_max,
            lag=self._lags.snapshot(),
        )

    def _turn(self) -> None:
        now_ns = self._clock.now_ns()
        events, self._events = self._events, []
        self._note_lag(now_ns - self._due_ns, len(events))
        try:
            actions = self._controller.handle(events, now_ns)
        except Exception as failure:
            # Its state cannot be trusted any more: better to stop at once than to leave requests without a reply.
            self._is_broken = True
            if self._on_failure is None:
                raise
            self._on_failure(failure)
            return
        for recorder in self._recorders:
            recorder.record(now_ns, events, actions)
        fleet, front = self._fleet, self._front
        for action in actions:
            if type(action) is Reply:
                front.reply(action)
            elif type(action) is WakeAt:
                self._set_alarm(action.at_ns)
            else:
                fleet.send(action)  # type: ignore[arg-type]  # the union less the two above
        fleet.flush()

    def _set_alarm(self, at_ns: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ns = at_ns
        self._alarm = self._clock.call_at(at_ns, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self.post(Woke())
        self._due_ns = min(self._due_ns, self._alarm_ns)

    def _note_lag(self, lag_ns: int, events: int) -> None:
        self._lags_ns[self._turns % LAGS_KEPT] = lag_ns
        self._lag_ns_max = max(self._lag_ns_max, lag_ns)
        self._lags.add(lag_ns)
        self._turns += 1
        self._events_seen += events
