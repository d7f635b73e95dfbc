"""What deciding costs: the controller alone, driven by hand, with no loop, clock or fleet around it.

Every batch is answered at once, so a request costs one arrival, one choice and one result. Three patterns:

    single  one event a turn: an arrival, then its result
    burst   sixteen arrivals of one model in a turn, which share a batch, then its result
    spread  sixteen arrivals of sixteen models in a turn, then results, one turn after the other, until all are answered

Two executors hold all models. Figures are processor time per request, with the making of result events in it
(about 0.3 us each).
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Sequence

from harness.report import Report, is_quick, median

from slotwise.facts.actions import Action, Load, Reply, RunBatch, WakeAt
from slotwise.facts.events import Arrived, BatchDone, Event, ExecutorUp, Loaded, ModelAdded, Woke
from slotwise.facts.profile import Profile
from slotwise.facts.types import FOREVER_NS, ModelSpec, Outcome, Request
from slotwise.facts.units import MS, US, S
from slotwise.policy.controller import Controller
from slotwise.policy.presets import build_controller

POLICIES = ("slotwise", "clockwork", "bounded", "fifo")
SETTINGS: dict[str, dict[str, object]] = {"bounded": {"queue_max": 64}}
"""Where a preset would refuse what is asked here."""
MODELS = (10, 100, 1_000)
PATTERNS = ("single", "burst", "spread")
EVENTS_A_TURN = 16
CHUNK = 320
"""So many requests are drawn, with deadlines from then on, and played before the next."""
SLO_NS = 1 * S
ASKED_MAX = 5
"""How often at most a model is asked for until it is loaded."""
PROFILE = Profile(rows=(1, 16), run_ns=(100 * US, 400 * US), load_ns=50 * US, memory_bytes=1)
BUDGET_US = 15


def main() -> None:
    quick = is_quick(__doc__)
    requests, runs = (3_200, 1) if quick else (9_600, 3)
    report = Report("controller", is_quick=quick)
    for policy, models in itertools.product(POLICIES, MODELS):
        costs = {
            pattern: median([cost_us(policy, models, pattern, requests) for _ in range(runs)]) for pattern in PATTERNS
        }
        report.add(policy=policy, models=models, **{f"{pattern}_us": cost for pattern, cost in costs.items()})
    report.print_table(f"Median of {runs} runs of {requests:,} requests (budget: {BUDGET_US} us at 1,000 models)")
    report.keep()


def cost_us(policy: str, models: int, pattern: str, requests: int) -> float:
    """Processor time per request."""
    driver = Driver(policy, models)
    driver.play(driver.draw(pattern, requests // 10))
    gc.collect()
    gc.freeze()
    took_ns = 0
    for _ in range(requests // CHUNK):
        turns = driver.draw(pattern, CHUNK)
        begin_ns = time.thread_time_ns()
        driver.play(turns)
        took_ns += time.thread_time_ns() - begin_ns
    gc.unfreeze()
    return took_ns / requests / 1000


class Driver:
    """A controller, and the world around it answered by hand."""

    def __init__(self, policy: str, models: int) -> None:
        self._controller: Controller = build_controller(policy, settings=SETTINGS.get(policy, {}))
        self._ids = itertools.count(1)
        self._names = [f"model{number}/1" for number in range(models)]
        self._next_name = itertools.cycle(self._names).__next__
        self._now_ns = S
        self._alarm_ns = FOREVER_NS
        self._begin()

    def draw(self, pattern: str, requests: int) -> list[list[Arrived]]:
        """Arrivals from now on, a list for each turn."""
        size = 1 if pattern == "single" else EVENTS_A_TURN
        if pattern == "burst":
            names = [self._next_name() for _ in range(requests // size)]
            return [[self._arrived(name) for _ in range(size)] for name in names]
        return [[self._arrived(self._next_name()) for _ in range(size)] for _ in range(requests // size)]

    def play(self, turns: Sequence[list[Arrived]]) -> None:
        """Let each turn's requests arrive and be answered, all in time."""
        handle = self._controller.handle
        for events in turns:
            actions = handle(events, self._now_ns)
            replies = self._replies(actions)
            while replies < len(events):
                actions = handle(self._results(actions) or self._wake(), self._now_ns)
                replies += self._replies(actions)
            self._now_ns += 100 * US

    def _arrived(self, model: str) -> Arrived:
        now_ns = self._now_ns
        return Arrived(request=Request(id=next(self._ids), model=model, arrival_ns=now_ns, deadline_ns=now_ns + SLO_NS))

    def _results(self, actions: Sequence[Action]) -> list[Event]:
        """What comes back of a turn, the time moving to the end of the last."""
        results: list[Event] = []
        for action in actions:
            if type(action) is WakeAt:
                self._alarm_ns = action.at_ns
            elif type(action) is Load:
                results.append(self._loaded(action))
            elif type(action) is RunBatch:
                self._now_ns += action.expected_ns // 2  # two executors work side by side
                results.append(
                    BatchDone(
                        executor=action.executor,
                        batch_id=action.batch_id,
                        started_ns=self._now_ns - action.expected_ns,
                        ended_ns=self._now_ns,
                    )
                )
        return results

    def _replies(self, actions: Sequence[Action]) -> int:
        outcomes = [action.outcome for action in actions if type(action) is Reply]
        assert outcomes.count(Outcome.IN_TIME) == len(outcomes), f"all can be answered in time, but: {actions}"
        return len(outcomes)

    def _wake(self) -> list[Event]:
        """Nothing came back: the time moves to the instant that was asked for."""
        assert self._alarm_ns < FOREVER_NS, "requests wait, nothing runs, and nobody asked to be woken"
        self._now_ns, self._alarm_ns = max(self._now_ns, self._alarm_ns), FOREVER_NS
        return [Woke()]

    def _begin(self) -> None:
        """Bring two executors up and have every model loaded, by asking for it where the policy waits for that."""
        ups = [ExecutorUp(executor=f"core{core}", memory_bytes=1 << 40) for core in range(2)]
        self._settle([*(ModelAdded(spec=_spec(name)) for name in self._names), *ups])
        for name in self._names * ASKED_MAX:
            if not any(executor.can_run(name) for executor in self._controller.view.executors.values()):
                self._settle([self._arrived(name)])
                self._now_ns += 100 * MS
        self._now_ns += 100 * S  # long enough for all of that to be forgotten

    def _settle(self, events: list[Event]) -> None:
        while events:
            events = self._results(self._controller.handle(events, self._now_ns))
            if self._controller.view.tickets and not events:
                events = self._wake()

    def _loaded(self, action: Load) -> Loaded:
        begin_ns, self._now_ns = self._now_ns, self._now_ns + action.expected_ns
        return Loaded(
            executor=action.executor,
            model=action.model,
            load_id=action.load_id,
            started_ns=begin_ns,
            ended_ns=self._now_ns,
        )


def _spec(name: str) -> ModelSpec:
    return ModelSpec(
        id=name, name=name.partition("/")[0], version="1", profile=PROFILE, slo_ns=SLO_NS, batch_max=16, batchable=True
    )


if __name__ == "__main__":
    main()
