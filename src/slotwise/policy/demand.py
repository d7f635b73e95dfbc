"""How much is asked of each model: decayed rates, and the price of a moment of an executor's time.

The price answers one question: when more is asked than can be done, what must an answer be worth, for each
nanosecond that it takes, to be worth doing at all? It is the dual of a knapsack that is filled with the best
use first, taken over the recent past; it is zero while everything fits.
"""

from __future__ import annotations

import math

from slotwise.facts.value import value

S = 1_000_000_000


@value
class DemandSettings:
    """`memory_ns` is the time constant of the rates. Scarcity begins where demand passes `full_share` of capacity."""

    memory_ns: int = 2 * S
    full_share: float = 1.0
    period_ns: int = S // 10


@value
class Price:
    """What executor time is worth, in answers per nanosecond, and the share of those at that very price to admit."""

    per_ns: float = 0.0
    marginal_share: float = 1.0


class Rate:
    """Events per second in the recent past, forgetting exponentially; unbiased from the first second on."""

    __slots__ = ("_first_ns", "_last_ns", "_memory_ns", "_sum")

    def __init__(self, memory_ns: int, now_ns: int) -> None:
        self._memory_ns = memory_ns
        self._sum = 0.0
        self._first_ns = self._last_ns = now_ns

    def add(self, amount: float, now_ns: int) -> None:
        """Something happened."""
        self._sum = self._sum * math.exp((self._last_ns - now_ns) / self._memory_ns) + amount
        self._last_ns = now_ns

    def per_s(self, now_ns: int) -> float:
        """The rate now."""
        seen = 1.0 - math.exp((self._first_ns - now_ns) / self._memory_ns - 0.05)
        decayed = self._sum * math.exp((self._last_ns - now_ns) / self._memory_ns)
        return decayed / (self._memory_ns * seen) * S


class Demand:
    """What is asked of each model."""

    def __init__(self, settings: DemandSettings) -> None:
        self._settings = settings
        self._rates: dict[str, Rate] = {}
        self._price = Price()
        self._price_due_ns = 0

    def note(self, model: str, rows: float, now_ns: int) -> None:
        """A request for so many rows arrived, whether or not it is taken in."""
        rate = self._rates.get(model)
        if rate is None:
            rate = self._rates[model] = Rate(self._settings.memory_ns, now_ns)
        rate.add(rows, now_ns)

    def rows_per_s(self, model: str, now_ns: int) -> float:
        """Rows asked for, per second."""
        rate = self._rates.get(model)
        return rate.per_s(now_ns) if rate is not None else 0.0

    def forget(self, model: str) -> None:
        """The model is gone."""
        self._rates.pop(model, None)

    def is_price_due(self, now_ns: int) -> bool:
        """Whether the price is older than its period."""
        return now_ns >= self._price_due_ns

    def set_price(self, uses: list[tuple[float, float, str]], executors: int, now_ns: int) -> None:
        """Price executor time anew. `uses` has (worth per ns, ns per row, model) of every model asked for."""
        self._price_due_ns = now_ns + self._settings.period_ns
        room = executors * self._settings.full_share
        for worth_per_ns, row_ns, model in sorted(uses, reverse=True):
            load = self.rows_per_s(model, now_ns) * row_ns / S
            if load > room:
                self._price = Price(per_ns=worth_per_ns, marginal_share=max(0.0, room / load))
                return
            room -= load
        self._price = Price()

    @property
    def price(self) -> Price:
        """The price last set."""
        return self._price
