"""Who is served when memory is short: loads and time go to those requests that make the best use of them together.

Where models make way for each other, loads are scarce, and which of them pay is not known when a request comes: a load
is worth as many answers as requests come for it in time. So a request whose model is on no executor is promised
nothing. It bids, together with all others for its model, whenever an executor can load, and is told no as soon as no
load begun then could serve it in time. A load is worth the requests that it serves, less what the executor's time
costs, and what will be asked of the model later; it is made if that is more than what the models that make way are.

Executor time has a price then: nothing where none is promised, little while the backlog is short, and the more the
longer it is, up to what the best batches of all make of it. A request that does not pay that alone bids for company
until the last instant. Such prices need no forecast: they settle where supply meets demand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from slotwise.facts.profile import ROWS_MAX
from slotwise.facts.types import ModelSpec, Request
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.policy.demand import Demand
from slotwise.policy.schedulers.slotwise_bids import Bids
from slotwise.policy.stranded import Stranded
from slotwise.policy.timetable import Timetable
from slotwise.policy.view import ExecutorView, Ticket, View


@value
class AuctionSettings:
    """Time costs most when the backlog reaches this `backlog_share` of a request's allowance."""

    backlog_share: float = 0.5
    backlog_power: float = 3.0
    """How late the price of time rises, as a power of the backlog: a short one is no sign that there is too little."""
    memory_ns: int = 1 * S
    """For how long memory counts as short after a request had to bid."""
    urgency: float = 0.6
    """What having its whole allowance left takes off a load's rank, in requests: more may come until the last."""
    foresight: float = 0.3
    """What requests to be expected count in a load's rank, beside those that wait; at most as many as wait do."""
    margin_share: float = 0.25
    """How long a batch may have to wait after its load, beside the run of the best batch of its model."""


class Group:
    """Requests of one model that could be served together. `worth` is net of what their time costs."""

    __slots__ = ("rank", "run_ns", "spec", "tickets", "worth")

    def __init__(self, spec: ModelSpec, tickets: list[Ticket], run_ns: int, worth: float) -> None:
        self.spec = spec
        self.tickets = tickets
        self.run_ns = run_ns
        self.worth = worth
        self.rank = worth / run_ns


class Batching:
    """What a model's profile says of its batches."""

    __slots__ = ("best_run_ns", "rows_per_ns", "runs_ns", "spec")

    def __init__(self, spec: ModelSpec) -> None:
        best = spec.profile.best_rows(spec.batch_max)
        self.spec = spec
        self.best_run_ns = spec.profile.expected_ns(best)
        self.rows_per_ns = best / self.best_run_ns
        self.runs_ns = [spec.profile.expected_ns(rows) for rows in range(1, min(spec.batch_max, ROWS_MAX) + 1)]


class Auction:
    """Sells loads and time to those who bid. `promise` makes a promise to a request if there is a place for it."""

    def __init__(
        self,
        view: View,
        settings: AuctionSettings,
        demand: Demand,
        tables: Mapping[str, Timetable],
        stranded: Stranded,
        promise: Callable[[Ticket, int], bool],
    ) -> None:
        self.bids = Bids()
        self._view = view
        self._settings = settings
        self._demand = demand
        self._tables = tables
        self._stranded = stranded
        self._promise = promise
        self._open_until_ns = 0
        self._batchings: dict[str, Batching] = {}
        # Bounds over all that bid, by which most bids need not be looked at.
        self._best_per_ns = 0.0
        self._worth_max = 0.0
        self._allowance_ns_max = 1
        self._least_run_ns: list[int] = []

    def __len__(self) -> int:
        return len(self.bids)

    def is_open(self, now_ns: int) -> bool:
        """Whether memory is short, or was lately."""
        if len(self.bids):
            self.open(now_ns)
        return now_ns < self._open_until_ns

    def open(self, now_ns: int) -> None:
        """Memory is short: a request found its model on no executor."""
        if now_ns >= self._open_until_ns:
            self._best_per_ns = self._worth_max = 0.0
            self._allowance_ns_max = 1
        self._open_until_ns = now_ns + self._settings.memory_ns

    def bid(self, ticket: Ticket, spec: ModelSpec, now_ns: int) -> None:
        """Let a request bid as long as a load could serve it in time."""
        request = ticket.request
        self.open(now_ns)
        self._note(request, spec)
        lead_ns = self._view.estimates.load_ns(spec) + spec.profile.expected_ns(request.rows) + 2 * self._way_ns(spec)
        self.bids.put(ticket, request.deadline_ns - lead_ns)

    def outbid(self, now_ns: int) -> Ticket | None:
        """One that has no chance any more; it bids no longer. Where its model is ready there is one until the last."""
        ticket = self.bids.first_expired(now_ns)
        while ticket is not None:
            request = ticket.request
            spec = self._view.models[request.model].spec
            last_ns = request.deadline_ns - spec.profile.expected_ns(request.rows) - self._way_ns(spec)
            if last_ns <= now_ns or not self._is_ready(request.model):
                self.bids.take(ticket)
                return ticket
            self.bids.put(ticket, last_ns)
            ticket = self.bids.first_expired(now_ns)
        return None

    # Time

    def pays(self, executor: ExecutorView, spec: ModelSpec, request: Request, run_ns: int, now_ns: int) -> bool:
        """Whether answering such a request is worth the time that it takes."""
        self._note(request, spec)
        return request.worth(spec) >= self._price_per_ns(request, self._pressure_ns(executor, now_ns)) * run_ns

    def sell_time(self, spec: ModelSpec, now_ns: int) -> None:
        """Promise slots to those who bid for a model that is ready somewhere, if together they pay."""
        for executor in self._view.executors.values():
            if executor.can_run(spec.id) and self.bids.at(spec.id):
                group = self._group(executor, spec, now_ns, self._pressure_ns(executor, now_ns), now_ns)
                if group is not None and group.worth >= 0 and self._sell(group, now_ns):
                    return

    def join(self, model: str, now_ns: int) -> None:
        """A request of the model was promised a slot: those who bid may join it, if there is room."""
        for ticket in list(self.bids.at(model)):
            if self._promise(ticket, now_ns):
                self.bids.take(ticket)

    def fill(self, executor: ExecutorView, now_ns: int) -> None:
        """Promise slots to the groups that make the best use of an executor's time, as long as any pays."""
        while len(self.bids):
            best = self._best_here(executor, now_ns)
            if best is None or not self._sell(best, now_ns):
                return

    def _best_here(self, executor: ExecutorView, now_ns: int) -> Group | None:
        pressure_ns = self._pressure_ns(executor, now_ns)
        best: Group | None = None
        for model in executor.residency.models():
            if self.bids.at(model) and executor.can_run(model):
                group = self._group(executor, self._view.models[model].spec, now_ns, pressure_ns, now_ns)
                if group is not None and group.worth >= 0 and (best is None or _is_first(group, best)):
                    best = group
        return best

    def _sell(self, group: Group, now_ns: int) -> bool:
        served = [ticket for ticket in group.tickets if self._promise(ticket, now_ns)]
        for ticket in served:
            self.bids.take(ticket)
        return bool(served)

    def _pressure_ns(self, executor: ExecutorView, now_ns: int) -> int:
        """The work promised, and that for which a load is under way."""
        backlog_ns = executor.free_ns(now_ns) - now_ns + self._tables[executor.name].backlog_ns
        for load in executor.loads.values():
            coming = len(self._stranded.at((executor.name, load.model)))
            if coming and load.model in self._view.models:
                spec = self._view.models[load.model].spec
                backlog_ns += self._view.estimates.run_ns(executor.name, spec, min(spec.batch_max, coming))
        return backlog_ns

    def _price_per_ns(self, request: Request, pressure_ns: int) -> float:
        return self._price_at(request.deadline_ns - request.arrival_ns, pressure_ns)

    def _price_at(self, allowance_ns: int, pressure_ns: int) -> float:
        full_ns = self._settings.backlog_share * max(1, allowance_ns)
        return self._best_per_ns * float(min(1.0, pressure_ns / full_ns) ** self._settings.backlog_power)

    # Loads

    def best_load(self, executor: ExecutorView, only: Collection[str] | None, now_ns: int) -> Group | None:
        """The load that ranks first of those worth their price, of `only` these models where given."""
        pressure_ns = self._pressure_ns(executor, now_ns)
        if only is not None:
            models = [model for model in only if self.bids.at(model)]
            return self._first_load(executor, models, None, pressure_ns, now_ns)
        best: Group | None = None
        least_per_ns = self._price_at(self._allowance_ns_max, pressure_ns)
        for count in range(self.bids.count_max, 0, -1):
            rows = min(count, len(self._least_run_ns))
            most = rows * self._worth_max - least_per_ns * self._least_run_ns[rows - 1]
            if most > 0 and (best is None or most * (1.0 + self._settings.foresight) >= best.rank):
                best = self._first_load(executor, self.bids.models(count), best, pressure_ns, now_ns)
        return best

    def _first_load(
        self, executor: ExecutorView, models: Iterable[str], best: Group | None, pressure_ns: int, now_ns: int
    ) -> Group | None:
        wait_ns = self._view.load_wait_ns(executor, now_ns)
        for model in models:
            if executor.residency.is_here(model):
                continue
            spec = self._view.models[model].spec
            if executor.residency.pages_needed(spec.profile.memory_bytes) > executor.residency.pages_total:
                continue
            ready_ns = now_ns + wait_ns + self._view.estimates.load_ns(spec) + self._margin_ns(spec)
            ready_ns += self._view.estimates.way_ns(executor.name, spec.id)
            group = self._group(executor, spec, ready_ns, pressure_ns, now_ns)
            if group is None or group.worth <= 0:
                continue
            self._rank_load(group, executor, ready_ns, now_ns)
            if best is None or _is_first(group, best):
                best = group
        return best

    def _rank_load(self, group: Group, executor: ExecutorView, ready_ns: int, now_ns: int) -> None:
        request = group.tickets[0].request
        slack = (request.deadline_ns - ready_ns - group.run_ns) / max(1, request.deadline_ns - request.arrival_ns)
        expected = self.keeping(executor, group.spec, now_ns)
        foreseen = self._settings.foresight * min(expected, group.worth)
        group.rank = group.worth + foreseen - self._settings.urgency * slack * request.worth(group.spec)
        group.worth += expected

    def keeping(self, executor: ExecutorView, spec: ModelSpec, now_ns: int) -> float:
        """What holding a model is worth: what is asked of it while the link could load memory once over."""
        pages = max(1, executor.residency.pages_needed(spec.profile.memory_bytes))
        turnover_ns = self._view.estimates.load_ns(spec) * executor.residency.pages_total / pages
        return self._demand.per_s(spec.id, now_ns) * spec.weight * turnover_ns / S

    def _margin_ns(self, spec: ModelSpec) -> int:
        """A batch that is ready may have to wait for the end of another."""
        return int(self._settings.margin_share * self._batching(spec).best_run_ns)

    # Groups

    def _group(
        self, executor: ExecutorView, spec: ModelSpec, ready_ns: int, pressure_ns: int, now_ns: int
    ) -> Group | None:
        """Those who bid for a model that an executor could answer in one batch from `ready_ns` on; None if none."""
        estimates, table = self._view.estimates, self._tables[executor.name]
        tickets = list(self.bids.at(spec.id))
        if len(tickets) > 1:
            tickets.sort(key=_deadline_ns)
        way_ns = estimates.way_ns(executor.name, spec.id)
        ready_ns += way_ns
        base_ns = executor.free_ns(now_ns) + way_ns
        first = 0
        while first < len(tickets):
            request = tickets[first].request
            batch = tickets[first : first + max(1, spec.batch_max // request.rows)]
            rows = sum([ticket.request.rows for ticket in batch])
            run_ns = estimates.run_ns(executor.name, spec, rows, request.work)
            place = table.place_for(request.deadline_ns)
            if max(ready_ns, base_ns + table.start_ns(place)) + run_ns <= request.deadline_ns:
                if base_ns + run_ns > table.room_ns(place):
                    return None
                worth = sum([ticket.request.worth(spec) for ticket in batch])
                return Group(spec, batch, run_ns, worth - self._price_per_ns(request, pressure_ns) * run_ns)
            first += 1
        return None

    def _way_ns(self, spec: ModelSpec) -> int:
        """The shortest way to an executor and back."""
        return min((self._view.estimates.way_ns(name, spec.id) for name in self._view.executors), default=0)

    def _is_ready(self, model: str) -> bool:
        return any(executor.can_run(model) for executor in self._view.executors.values())

    def _note(self, request: Request, spec: ModelSpec) -> None:
        worth = request.worth(spec)
        self._best_per_ns = max(self._best_per_ns, worth * self._batching(spec).rows_per_ns)
        self._worth_max = max(self._worth_max, worth)
        self._allowance_ns_max = max(self._allowance_ns_max, request.deadline_ns - request.arrival_ns)

    def _batching(self, spec: ModelSpec) -> Batching:
        known = self._batchings.get(spec.id)
        if known is None or known.spec is not spec:
            known = self._batchings[spec.id] = Batching(spec)
            for count, run_ns in enumerate(known.runs_ns):
                if len(self._least_run_ns) == count:
                    self._least_run_ns.append(run_ns)
                self._least_run_ns[count] = min(self._least_run_ns[count], run_ns)
        return known


def _deadline_ns(ticket: Ticket) -> int:
    return ticket.request.deadline_ns


def _is_first(group: Group, other: Group) -> bool:
    """Whether a group goes before another: by rank, then by deadline, then as found."""
    mine, yours = group.tickets[0].request.deadline_ns, other.tickets[0].request.deadline_ns
    return group.rank > other.rank or (group.rank == other.rank and mine < yours)
