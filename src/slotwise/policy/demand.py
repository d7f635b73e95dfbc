"""How much is asked of whom, what it costs, and who is served when there is not enough time for all.

Requests of one model and priority are a *kind*. For each kind the recent rate and the executor time that an
answer really took are known, both forgetting exponentially. When together they exceed what the executors have,
time has a price: the kinds are served in the order of what an answer is worth per nanosecond that it takes, until
the time is used up (the greedy solution of the fractional knapsack, which is exact). The last kind served is
served in part; those behind it are not. Kinds that hardly differ stand together as one.

Requests whose allowance is far longer than any rate is foreseen are kinds of their own, which come last and are always
taken: they lose nothing by waiting for time that others leave, and are turned away only when their own deadlines
cannot be met any more.
"""

from __future__ import annotations

import math

from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.policy.turns import Company, Turn, Turns, TurnSettings

Kind = tuple[str, int, bool]
"""A model, a priority, and whether its requests can wait."""


PAST_ASSUMED = 0.01
"""How much silence a new kind is taken to have had before, in time constants; it keeps first rates from leaping."""


CREDIT_MAX = 2.0
"""What a kind may save up; more than one, or else a share that is not whole would lose what is left over."""


PLACED_MIN = 0.01
"""A kind of which a smaller part than this is served has no turns to hand out: it is told to wait as long as can be."""


@value
class DemandSettings:
    """`memory_ns` is the time constant of the rates. Scarcity begins above `full_share` of the executors' time."""

    memory_ns: int = 2 * S
    full_share: float = 1.0
    period_ns: int = S // 10
    period_ns_min: int = S // 200
    kinds_per_period: int = 50
    """The period grows by itself for each so many kinds, so that the work stays small beside the requests'."""
    busy_min: float = 0.5
    busy_memory_ns: int = S // 2
    """Demand lasts if executors were busy for this share of so recent a past; else it is a burst at most."""
    patience_ns: int = 10 * S
    """Requests with a longer allowance can wait."""
    alike: float = 0.05
    """Kinds whose worth for their time differs by less are served alike."""
    hope: float = 0.01
    """What a refusal counts in the mean cost of an answer, as one that cost what was first assumed."""
    turns: TurnSettings = TurnSettings()
    learning: float = 0.05
    """What the newest sample counts, in the mean cost of an answer and in the part that finds a place."""


class KindDemand:
    """What is asked of one kind. `cost_ns` is the executor time that an answer adds, `worth` what it is worth."""

    __slots__ = (
        "_first_ns",
        "_hoped_ns",
        "_last_ns",
        "_sum",
        "can_wait",
        "cost_ns",
        "credit",
        "is_last",
        "placed",
        "share",
        "turn",
        "worth",
    )

    def __init__(self, worth: float, cost_ns: float, can_wait: bool, now_ns: int) -> None:
        self.worth = worth
        self.can_wait = can_wait
        self.cost_ns = cost_ns
        self._hoped_ns = cost_ns
        self.share = 1.0
        self.credit = 0.0
        self.is_last = False
        """Whether it is among the last of those served, in part."""
        self.placed = 1.0
        """The part of those tried for which there was a place."""
        self._sum = 0.0
        self._first_ns = self._last_ns = now_ns
        self.turn = Turn()

    def note(self, now_ns: int, memory_ns: int) -> None:
        """A request arrived, and it is not the first: a rate is told by gaps."""
        self._sum = self._sum * math.exp((self._last_ns - now_ns) / memory_ns) + 1.0
        self._last_ns = now_ns

    def per_s(self, now_ns: int, memory_ns: int) -> float:
        """Requests per second; unbiased by the short past of a kind that is new."""
        seen = 1.0 - math.exp((self._first_ns - now_ns) / memory_ns - PAST_ASSUMED)
        return self._sum * math.exp((self._last_ns - now_ns) / memory_ns) / (memory_ns * seen) * S

    def take_credit(self) -> bool:
        """Whether this arrival is among the share that is served; the share is kept exactly, without chance."""
        self.credit = min(CREDIT_MAX, self.credit + self.share)
        return self.credit >= 1.0

    def hope(self, learning: float) -> None:
        """One was refused: what its kind costs is not seen, so what it was first taken to cost counts again."""
        self.cost_ns += (self._hoped_ns - self.cost_ns) * learning

    def spend_credit(self, debt_max: float) -> None:
        """One was served, of the share or beyond it."""
        self.credit = max(-debt_max, self.credit - 1.0)


class Demand:
    """What is asked of each kind, and the share of each that is served."""

    def __init__(self, settings: DemandSettings) -> None:
        self._settings = settings
        self._kinds: dict[Kind, KindDemand] = {}
        self._by_model: dict[str, list[KindDemand]] = {}
        self._due_ns = 0
        self._since_ns: int | None = None
        self.is_burst = True
        """Whether executors had little to do lately: if much is asked for all the same, it may not last."""
        self._busy_ns = 0.0
        self._busy_at_ns = 0
        self._turns = Turns(settings.turns)
        self.price_per_ns = 0.0
        """What a nanosecond of executor time is worth; zero while there is enough for those who cannot wait."""
        self.saved_per_ns = 0.0
        """What a nanosecond saved is worth; more than its price while those who can wait take what is left."""

    @property
    def patience_ns(self) -> int:
        """Requests that are allowed longer can wait."""
        return self._settings.patience_ns

    def can_wait(self, allowance_ns: int) -> bool:
        """Whether a request that is allowed so long loses nothing by waiting."""
        return allowance_ns > self._settings.patience_ns

    def knows(self, model: str, priority: int, allowance_ns: int) -> bool:
        """Whether there was a request of that kind before."""
        return (model, priority, self.can_wait(allowance_ns)) in self._kinds

    def note(
        self, model: str, priority: int, allowance_ns: int, worth: float, cost_ns: float, now_ns: int
    ) -> KindDemand:
        """A request arrived. Until it is known better, an answer is taken to cost `cost_ns`."""
        can_wait = self.can_wait(allowance_ns)
        kind = self._kinds.get((model, priority, can_wait))
        if kind is None:
            kind = self._kinds[model, priority, can_wait] = KindDemand(worth, cost_ns, can_wait, now_ns)
            self._by_model.setdefault(model, []).append(kind)
        else:
            kind.note(now_ns, self._settings.memory_ns)
        kind.worth = worth
        return kind

    def per_s(self, model: str, now_ns: int) -> float:
        """Requests for a model per second."""
        kinds, per_s = self._by_model.get(model), 0.0
        if kinds is not None:
            memory_ns = self._settings.memory_ns
            for kind in kinds:
                per_s += kind.per_s(now_ns, memory_ns)
        return per_s

    def rate_per_ns(self, kind: KindDemand, now_ns: int) -> float:
        """Requests of a kind per nanosecond."""
        return kind.per_s(now_ns, self._settings.memory_ns) / S

    def forget(self, model: str) -> None:
        """The model is gone."""
        self._by_model.pop(model, None)
        for key in [key for key in self._kinds if key[0] == model]:
            del self._kinds[key]

    def turn_ns(
        self, model: str, priority: int, allowance_ns: int, company: Company, executors: int, now_ns: int
    ) -> int:
        """How long one who is refused for the sake of others should wait before asking for the same again."""
        kind = self._kinds.get((model, priority, self.can_wait(allowance_ns)))
        if kind is None or kind.share * kind.placed < PLACED_MIN:
            return self._settings.turns.ahead_ns
        return self._turns.hand_out(kind.turn, company, executors, now_ns)

    def is_due(self, now_ns: int) -> bool:
        """Whether the shares are older than their period."""
        return now_ns >= self._due_ns

    def share_out(self, executors: int, has_patient: bool, now_ns: int) -> None:
        """Set every kind's share anew. `has_patient` tells whether requests that can wait do so at all executors."""
        settings = self._settings
        if self._since_ns is None:
            self._since_ns = now_ns
        # At first little is known, and it is outdated soon.
        period_ns = min(settings.period_ns, max(settings.period_ns_min, (now_ns - self._since_ns) // 2))
        self._due_ns = now_ns + period_ns * (1 + len(self._kinds) // settings.kinds_per_period)
        room = executors * settings.full_share
        self.price_per_ns = 0.0
        self.is_burst = self._busy_share(executors, now_ns) < settings.busy_min
        for alike in self._ranked():
            loads = [kind.per_s(now_ns, settings.memory_ns) * kind.cost_ns / S for kind in alike]
            load = sum(loads)
            share = min(1.0, max(0.0, room) / load) if load > 0 and not alike[0].can_wait else 1.0
            if load > room and not self.price_per_ns and not alike[0].can_wait:
                self.price_per_ns = alike[0].worth / alike[0].cost_ns
            for kind, own in zip(alike, loads, strict=True):
                kind.share = share
                kind.is_last = 0.0 < share < 1.0
                # What finds no place takes no time, so those behind may have it.
                room -= own * min(share, kind.placed)
        self.saved_per_ns = max(self.price_per_ns, self._patient_per_ns(now_ns) if has_patient else 0.0)

    def _patient_per_ns(self, now_ns: int) -> float:
        """What requests that can wait make of a nanosecond."""
        worth = cost_ns = 0.0
        for kind in self._kinds.values():
            if kind.can_wait:
                per_s = kind.per_s(now_ns, self._settings.memory_ns)
                worth += per_s * kind.worth
                cost_ns += per_s * kind.cost_ns
        return worth / cost_ns if cost_ns else 0.0

    def _ranked(self) -> list[list[KindDemand]]:
        """Kinds by worth per time, the most first; those that hardly differ stand together."""
        ranked: list[list[KindDemand]] = []
        first_ns = 0.0
        for kind in sorted(self._kinds.values(), key=lambda kind: (kind.can_wait, kind.cost_ns / kind.worth)):
            cost_ns = kind.cost_ns / kind.worth
            if (
                ranked
                and kind.can_wait == ranked[-1][0].can_wait
                and cost_ns <= first_ns * (1.0 + self._settings.alike)
            ):
                ranked[-1].append(kind)
            else:
                ranked.append([kind])
                first_ns = cost_ns
        return ranked

    def note_busy(self, run_ns: int, now_ns: int) -> None:
        """An executor was busy for so long."""
        self._busy_ns = self._busy_ns * math.exp((self._busy_at_ns - now_ns) / self._settings.busy_memory_ns) + run_ns
        self._busy_at_ns = now_ns

    def _busy_share(self, executors: int, now_ns: int) -> float:
        """The part of the recent past that executors were busy; before the first run they were not."""
        memory_ns = self._settings.busy_memory_ns
        busy_ns = self._busy_ns * math.exp((self._busy_at_ns - now_ns) / memory_ns)
        return busy_ns / (memory_ns * max(1, executors))

    def note_placed(self, kind: KindDemand, added_ns: int) -> None:
        """An answer of a kind was promised and adds so much work."""
        learning = self._settings.learning
        kind.cost_ns += (added_ns - kind.cost_ns) * learning
        kind.placed += (1.0 - kind.placed) * learning

    def note_refused(self, kind: KindDemand) -> None:
        """One of a kind was refused because others are worth more."""
        kind.hope(self._settings.hope)

    def note_unplaced(self, kind: KindDemand) -> None:
        """There was no place for one of a kind."""
        kind.placed -= kind.placed * self._settings.learning
