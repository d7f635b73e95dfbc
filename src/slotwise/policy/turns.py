"""When those who are refused should come again: in company, at the instant when there is time for them.

Under overload a refusal that says "later" brings everybody back one by one, and a batch never fills. So refusals hand
out turns. Requests of one kind get the same instant until they make good company in a batch; instants follow one
another as fast as the executors can run such batches. Those who come unasked do not get in between, as long as those
who were told an instant do come: if they seldom do, nobody waits for them. No clock, no I/O.
"""

from __future__ import annotations

from collections import deque

from slotwise.facts.units import MS, S
from slotwise.facts.value import value


@value
class TurnSettings:
    """Turns lie at most `ahead_ns` in the future. Who comes within `grace_ns` of an instant has kept it."""

    ahead_ns: int = 2 * S
    grace_ns: int = 1 * MS
    overbooking: float = 1.0
    """Turns handed out for each that executors have time for; more where many who are told an instant stay away."""
    kept_min: float = 0.5
    """Nobody waits for those who were told to come where a smaller part of them does."""
    learning: float = 0.05
    """What the newest turn counts in that part."""


@value
class Company:
    """The batch that those who are refused had best come again as: so many requests, which run for so long."""

    requests: int
    run_ns: int


class Turn:
    """The turns of one kind of request: the newest that was handed out, and the newest whose instant has come."""

    __slots__ = ("at_ns", "called_ns", "came", "left", "wanted")

    def __init__(self) -> None:
        self.at_ns = 0
        self.left = 0
        """So many more may be told that instant."""
        self.called_ns = 0
        self.wanted = 0
        self.came = 0


class Turns:
    """The turns of all kinds; they share the executors' time."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._newest_ns = 0
        self._waiting: deque[tuple[int, int, Turn]] = deque()
        """Instants to come, how many are told each, and whose they are."""
        self._kept = 0.0

    def note(self, turn: Turn, now_ns: int) -> None:
        """A request of some kind came."""
        while self._waiting and self._waiting[0][0] <= now_ns:
            at_ns, wanted, called = self._waiting.popleft()
            if called.wanted:
                has_come = 2 * called.came >= called.wanted
                self._kept += (float(has_come) - self._kept) * self._settings.learning
            called.called_ns, called.wanted, called.came = at_ns, wanted, 0
        if now_ns - turn.called_ns <= self._settings.grace_ns:
            turn.came += 1

    def hand_out(self, turn: Turn, company: Company, executors: int, now_ns: int) -> int:
        """Tell one who is refused how long to wait before asking for the same again."""
        settings = self._settings
        if turn.left and turn.at_ns > now_ns:
            turn.left -= 1
            return turn.at_ns - now_ns
        gap_ns = int(company.run_ns / (executors * settings.overbooking))
        self._newest_ns = min(now_ns + settings.ahead_ns, max(now_ns, self._newest_ns) + gap_ns)
        turn.at_ns, turn.left = self._newest_ns, company.requests - 1
        self._waiting.append((turn.at_ns, company.requests, turn))
        return turn.at_ns - now_ns

    def is_in_between(self, turn: Turn, until_ns: int, executors: int, now_ns: int) -> bool:
        """Whether one who came unasked would, by being served until then, leave no executor to those told to come.

        Kinds that were not refused of late are worth more than those that were, and need not wait for them.
        """
        settings = self._settings
        is_unasked = now_ns - turn.called_ns > settings.grace_ns
        if not is_unasked or self._kept < settings.kept_min or turn.at_ns < now_ns - settings.ahead_ns:
            return False
        due = 0
        for at_ns, _, _ in self._waiting:
            if at_ns >= until_ns or due == executors:
                break
            due += 1
        return due == executors
