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


def come(turns: Turns, keeps: bool) -> Turn:
    """Twenty batches are told to come one after the other; a kind of which some were refused meanwhile."""
    called, refused = Turn(), Turn()
    now_ns = LATER
    for _ in range(20):
        now_ns += turns.hand_out(called, Company(requests=1, run_ns=6 * MS), 1, now_ns)
        if keeps:
            turns.note(called, now_ns)
    turns.note(refused, now_ns)
    turns.hand_out(refused, FOUR, 1, now_ns)
    return refused


def test_whoever_comes_unasked_does_not_get_in_between_those_who_keep_their_turns() -> None:
    turns = Turns(TurnSettings())
    refused = come(turns, keeps=True)
    now_ns = refused.at_ns - 5 * MS
    assert turns.is_in_between(refused, now_ns + 6 * MS, 1, now_ns)
    assert not turns.is_in_between(refused, now_ns + 4 * MS, 1, now_ns), "done before they come"
    assert not turns.is_in_between(refused, now_ns + 6 * MS, 2, now_ns), "there is another executor"
    assert not turns.is_in_between(Turn(), now_ns + 6 * MS, 1, now_ns), "none of that kind was refused"
    turns.note(refused, refused.at_ns)
    assert not turns.is_in_between(refused, refused.at_ns + 6 * MS, 1, refused.at_ns), "these are they"


def test_nobody_waits_for_those_who_stay_away() -> None:
    turns = Turns(TurnSettings())
    refused = come(turns, keeps=False)
    now_ns = refused.at_ns - 5 * MS
    assert not turns.is_in_between(refused, now_ns + 6 * MS, 1, now_ns)
