"""When those who are refused are told to come again."""

from __future__ import annotations

from slotwise.facts.units import MS, S
from slotwise.policy.turns import Company, Turn, Turns, TurnSettings

FOUR = Company(requests=4, run_ns=6 * MS)
LATER = 10 * S


def test_a_batch_is_told_one_instant_and_the_next_batch_the_instant_when_it_has_run() -> None:
    turns, cats, dogs = Turns(TurnSettings()), Turn(), Turn()
    told_ms = [turns.hand_out(cats, FOUR, 1, LATER) / MS for _ in range(5)]
    assert told_ms == [6, 6, 6, 6, 12]
    assert turns.hand_out(dogs, FOUR, 1, LATER) == 18 * MS, "all kinds share the executor's time"
    assert turns.hand_out(cats, FOUR, 1, LATER + 2 * MS) == 10 * MS, "the instant that was told last has room"


def test_several_executors_run_as_many_batches_at_once() -> None:
    turns = Turns(TurnSettings())
    assert [turns.hand_out(Turn(), FOUR, 3, LATER) / MS for _ in range(3)] == [2, 4, 6]


def test_nobody_is_told_to_wait_for_longer_than_is_foreseen() -> None:
    turns = Turns(TurnSettings(ahead_ns=20 * MS))
    assert max(turns.hand_out(Turn(), FOUR, 1, LATER) for _ in range(100)) == 20 * MS
