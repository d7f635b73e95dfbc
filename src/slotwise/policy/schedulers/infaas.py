"""As INFaaS does (USENIX ATC 2021): watch the load, and answer it with larger batches first and then with more copies.

It is like INFaaS and not INFaaS itself: models here have no variants of other accuracy or hardware to choose from, only
batch sizes. Once in a period each executor's load is summed from what was asked and what still waits, at the profiled
pace. Every model gets the smallest batch that carries its executor's load and runs within the SLO. Where even that is
too little, a model is copied to the executor with least to do, if it has room; a copy that has not been needed for some
periods is taken away. A model that no executor holds is loaded at one when it is asked for. Requests are served first
in, first out and none is refused or dropped; what is done about load is done a period later.
"""

from __future__ import annotations

from slotwise.facts.events import Event, ExecutorLost, Loaded, LoadFailed, ModelRemoved
from slotwise.facts.types import FOREVER_NS, Refusal, Request
from slotwise.facts.units import MS, S
from slotwise.facts.value import value
from slotwise.policy.placement import PlacementSettings
from slotwise.policy.schedulers.infaas_loads import Asked, Loads, Place
from slotwise.policy.scheduling import Choice, Run, UnloadModel
from slotwise.policy.serving import Serving, ServingSettings
from slotwise.policy.view import ExecutorView, Ticket, View


@value
class InfaasSettings:
    """Loads are looked at once in `period_ns`. Above `full_share` of its time an executor has too much to do.

    A copy is taken away when the others would stay below `idle_share` without it, `calm_periods` times in a row.
    """

    period_ns: int = 500 * MS
    full_share: float = 0.8
    idle_share: float = 0.4
    calm_periods: int = 10
    serving: ServingSettings = ServingSettings(placement=PlacementSettings(spread=False, evict_waiting=True))

    def __post_init__(self) -> None:
        """Raise ValueError, which names the setting, for what makes no sense."""
        if self.period_ns <= 0:
            raise ValueError(f"period_ns is {self.period_ns}; it must be above 0")
        if not 0 <= self.idle_share < self.full_share:
            raise ValueError(f"idle_share is {self.idle_share}; it must be from 0 to below full_share")


class Infaas:
    """Serves whoever came first, and reacts to load once in a period."""

    def __init__(self, view: View, settings: InfaasSettings) -> None:
        self._view = view
        self._settings = settings
        self._serving = Serving(view, settings.serving, lambda ticket: ticket.request.arrival_ns, self._home_of)
        self._rows_asked: dict[str, int] = {}
        """Of each model in this period."""
        self._slos_ns: dict[str, int] = {}
        """The tightest allowance of each model in this period, or in the last one in which it was asked for."""
        self._rows: dict[Place, int] = {}
        self._loads: dict[str, float] = {}
        self._coming: dict[Place, None] = {}
        """Copies that were asked for and are not there yet."""
        self._calm: dict[str, int] = {}
        self._surplus: list[Place] = []
        self._look_ns = FOREVER_NS

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Take everything in."""
        if not ticket.attempts:
            self._note(ticket.request, now_ns)
        self._serving.put(ticket, now_ns)
        return None

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Forget a request that has ended."""
        self._serving.queues.remove(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Follow loads, executors and models."""
        match event:
            case Loaded() | LoadFailed():
                self._coming.pop((event.executor, event.model), None)
            case ExecutorLost():
                self._forget([place for place in (*self._coming, *self._rows) if place[0] == event.executor])
                self._loads.pop(event.executor, None)
            case ModelRemoved():
                self._forget([place for place in (*self._coming, *self._rows) if place[1] == event.model])
                for by_model in (self._rows_asked, self._slos_ns, self._calm):
                    by_model.pop(event.model, None)
        self._serving.noted(event)

    def choose(self, now_ns: int) -> Choice | None:
        """Give each executor that is about to run dry the model whose head has waited longest."""
        if now_ns >= self._look_ns:
            self._look(now_ns)
        for place in self._surplus:
            if self._may_go(*place):
                self._surplus.remove(place)
                return UnloadModel(executor=place[0], model=place[1])
        turn = self._serving.turn(now_ns)
        if turn is None:
            return self._serving.place(now_ns)
        model = turn.line[0]
        tickets = self._serving.queues.take(turn.line, self.rows_max(turn.executor, model))
        return Run(executor=turn.executor, model=model, tickets=tickets)

    def due_ns(self, now_ns: int) -> int:
        """When the next executor is about to run dry, if anything waits, or when loads are looked at."""
        return min(self._look_ns, self._serving.due_ns(now_ns))

    def rows_max(self, executor: str, model: str) -> int:
        """The batch size that a copy of a model has."""
        return self._rows.get((executor, model), 1)

    def _note(self, request: Request, now_ns: int) -> None:
        model, slo_ns = request.model, request.deadline_ns - request.arrival_ns
        is_first = model not in self._rows_asked
        self._rows_asked[model] = self._rows_asked.get(model, 0) + request.rows
        self._slos_ns[model] = slo_ns if is_first else min(slo_ns, self._slos_ns[model])
        if self._look_ns == FOREVER_NS:
            self._look_ns = now_ns + self._settings.period_ns

    def _look(self, now_ns: int) -> None:
        """Sum the loads of the period, and answer them."""
        holders = self._holders()
        loads = Loads(self._asked(), holders, list(self._view.executors), self._settings.full_share)
        self._rows = loads.rows
        self._copy(loads, now_ns)
        self._surplus = self._spared(loads, {model: len(names) for model, names in holders.items()})
        self._loads = loads.by_executor
        is_quiet = not self._rows_asked and not len(self._serving.queues) and not self._calm
        self._look_ns = FOREVER_NS if is_quiet else now_ns + self._settings.period_ns
        self._rows_asked = {}

    def _asked(self) -> dict[str, Asked]:
        """What came in the period and what still waits is what the next period should get done."""
        period_s = self._settings.period_ns / S
        return {
            model: Asked(
                spec=self._view.models[model].spec,
                rows_per_s=(self._rows_asked.get(model, 0) + self._serving.queues.length(model)) / period_s,
                slo_ns=slo_ns,
            )
            for model, slo_ns in self._slos_ns.items()
        }

    def _copy(self, loads: Loads, now_ns: int) -> None:
        """One copy more of each model whose executors have too much to do, where there are time and room for it."""
        full_share = self._settings.full_share
        for model in loads.models():
            if loads.at(model) <= full_share or any(coming == model for _, coming in self._coming):
                continue
            idle = [
                executor
                for executor in self._view.executors.values()
                if loads.by_executor[executor.name] < full_share
                and not executor.residency.is_here(model)
                and self._has_room(executor, model)
            ]
            if idle:
                name = min(idle, key=lambda executor: loads.by_executor[executor.name]).name
                self._coming[name, model] = None
                self._serving.want(name, model, now_ns)
                loads.add(model, name)

    def _spared(self, loads: Loads, copies: dict[str, int]) -> list[Place]:
        """One copy of each model that has not needed all of its own for long enough."""
        spared: list[Place] = []
        asked = set(loads.models())
        calm: dict[str, int] = {}
        for model in self._slos_ns:
            if model not in asked or copies[model] < 2 or any(coming == model for _, coming in self._coming):
                continue
            executor = loads.spare(model)
            if loads.highest_without(model, executor) < self._settings.idle_share:
                calm[model] = self._calm.get(model, 0) + 1
                if calm[model] >= self._settings.calm_periods:
                    spared.append((executor, model))
        self._calm = calm
        return spared

    def _may_go(self, name: str, model: str) -> bool:
        executor = self._view.executors.get(name)
        return executor is not None and executor.can_run(model) and not executor.uses(model)

    def _home_of(self, model: str) -> list[str]:
        """Where a model is to be loaded that no executor holds: where it fits, with least to do and to hold."""
        coming = [executor for executor, other in self._coming if other == model]
        executors = list(self._view.executors.values())
        if coming or not executors:
            return coming

        def rank(executor: ExecutorView) -> tuple[bool, bool, float, int]:
            residency, needed_bytes = executor.residency, self._view.models[model].spec.profile.memory_bytes
            fits = residency.pages_needed(needed_bytes) <= residency.pages_total
            held = len(residency.models()) + len(self._absent(executor))
            return (not fits, not self._has_room(executor, model), self._loads.get(executor.name, 0.0), held)

        name = min(executors, key=rank).name
        self._coming[name, model] = None
        return [name]

    def _has_room(self, executor: ExecutorView, model: str) -> bool:
        """Whether a model fits beside what is there and what is to come."""
        residency, models = executor.residency, self._view.models
        return residency.pages_free >= sum(
            residency.pages_needed(models[one].spec.profile.memory_bytes) for one in (*self._absent(executor), model)
        )

    def _absent(self, executor: ExecutorView) -> list[str]:
        """Models that are to come to an executor and hold no memory there yet."""
        return [
            model for name, model in self._coming if name == executor.name and not executor.residency.is_here(model)
        ]

    def _holders(self) -> dict[str, list[str]]:
        holders: dict[str, list[str]] = {model: [] for model in self._slos_ns}
        for executor in self._view.executors.values():
            for model in executor.residency.models():
                if model in holders and executor.can_run(model):
                    holders[model].append(executor.name)
        return holders

    def _forget(self, places: list[Place]) -> None:
        for place in places:
            self._coming.pop(place, None)
            self._rows.pop(place, None)
