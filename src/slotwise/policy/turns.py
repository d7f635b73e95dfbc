"""When those who are refused should come again: in company, and when there is time for them.

Under overload a refusal that says "later" brings everybody back one by one, and a batch never fills. So refusals hand
out turns. As many requests of one kind as make good company in a batch are told the same instant, and instants follow
one another as fast as the executors can run such batches. Nothing is kept free for those who are told: whoever comes
meanwhile is served if there is time. No clock, no I/O.
"""

from __future__ import annotations

from slotwise.facts.units import S
from slotwise.facts.value import value


@value
class TurnSettings:
    """Turns lie at most `ahead_ns` in the future."""

    ahead_ns: int = 2 * S
    overbooking: float = 1.0
    """Turns handed out for each that executors have time for; more where many who are told an instant stay away."""


@value
class Company:
    """The batch that those who are refused had best come again as: so many requests, which run for so long."""

    requests: int
    run_ns: int


class Turn:
    """The newest instant at which some of one kind were told to come, and how many more may be told so."""

    __slots__ = ("at_ns", "left")

    def __init__(self) -> None:
        self.at_ns = 0
        self.left = 0


class Turns:
    """The turns of all kinds; they share the executors' time."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._newest_ns = 0

    def hand_out(self, turn: Turn, company: Company, executors: int, now_ns: int) -> int:
        """Tell one who is refused how long to wait before asking for the same again."""
        settings = self._settings
        if turn.left and turn.at_ns > now_ns:
            turn.left -= 1
            return turn.at_ns - now_ns
        gap_ns = int(company.run_ns / (executors * settings.overbooking))
        self._newest_ns = min(now_ns + settings.ahead_ns, max(now_ns, self._newest_ns) + gap_ns)
        turn.at_ns, turn.left = self._newest_ns, company.requests - 1
        return turn.at_ns - now_ns
