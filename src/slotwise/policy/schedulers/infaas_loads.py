"""What a period's requests ask of the executors, and with which batches these could do it: the sums under `infaas`.

A load is a share of an executor's time: rows a second, by the profiled time of a row in batches of the size that the
model has there. Copies of a model are taken to share what is asked of it evenly. Pure sums; `infaas` acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slotwise.facts.types import ModelSpec
from slotwise.facts.units import S
from slotwise.facts.value import value

Place = tuple[str, str]
"""An executor and a model that it holds."""


@value
class Asked:
    """What was asked of a model in a period, with the tightest allowance that came."""

    spec: ModelSpec
    rows_per_s: float
    slo_ns: int


def row_ns(spec: ModelSpec, rows: int) -> float:
    """The profiled time of a row in a batch of that size."""
    return spec.profile.expected_ns(rows) / rows


def rows_for(spec: ModelSpec, slo_ns: int, crowding: float) -> int:
    """The smallest profiled batch whose rows take so many times less than one alone, or else the one of the least.

    Only batches count that run within the allowance, and that of one.
    """
    sizes = [rows for rows in spec.profile.rows if rows <= spec.batch_max and spec.profile.expected_ns(rows) <= slo_ns]
    for rows in sizes:
        if row_ns(spec, rows) * crowding <= row_ns(spec, 1):
            return rows
    return min(sizes, key=lambda rows: row_ns(spec, rows), default=1)


class Loads:
    """The executors under what was asked, each model in batches of the size that its executor's load calls for."""

    def __init__(
        self, asked: Mapping[str, Asked], holders: Mapping[str, Sequence[str]], executors: Sequence[str], full: float
    ) -> None:
        self._asked = {model: one for model, one in asked.items() if holders.get(model)}
        self._holders = {model: list(holders[model]) for model in self._asked}
        self.rows: dict[Place, int] = {}
        self.by_executor = self._summed(executors)
        crowding = {executor: load / full for executor, load in self.by_executor.items()}
        for model, one in self._asked.items():
            for executor in self._holders[model]:
                self.rows[executor, model] = rows_for(one.spec, one.slo_ns, crowding[executor])
        self.by_executor = self._summed(executors)

    def models(self) -> list[str]:
        """All that something was asked of and that executors hold; those that ask for most time first."""
        return sorted(self._asked, key=lambda model: -self.asks(model, self._holders[model][0]))

    def asks(self, model: str, executor: str) -> float:
        """The part of an executor's time that its copy of a model asks for."""
        one = self._asked[model]
        rows = self.rows.get((executor, model), 1)
        return one.rows_per_s / len(self._holders[model]) * row_ns(one.spec, rows) / S

    def at(self, model: str) -> float:
        """The mean load of the executors that hold a model."""
        holders = self._holders[model]
        return sum(self.by_executor[executor] for executor in holders) / len(holders)

    def add(self, model: str, executor: str) -> None:
        """Count with one copy more, in batches as elsewhere."""
        holders = self._holders[model]
        self.rows[executor, model] = self.rows[holders[0], model]
        for holder in holders:
            self.by_executor[holder] -= self.asks(model, holder) / (len(holders) + 1)
        holders.append(executor)
        self.by_executor[executor] += self.asks(model, executor)

    def spare(self, model: str) -> str:
        """The copy that would be taken away: that of the executor with most to do."""
        return max(self._holders[model], key=lambda executor: self.by_executor[executor])

    def highest_without(self, model: str, executor: str) -> float:
        """The load of the busiest executor of the other copies if these did the work of this one."""
        others = [holder for holder in self._holders[model] if holder != executor]
        more = self.asks(model, executor) / len(others)
        return max(self.by_executor[holder] + more for holder in others)

    def _summed(self, executors: Sequence[str]) -> dict[str, float]:
        loads = dict.fromkeys(executors, 0.0)
        for model, holders in self._holders.items():
            for executor in holders:
                loads[executor] += self.asks(model, executor)
        return loads
