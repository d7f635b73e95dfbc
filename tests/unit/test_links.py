"""What a simulated link does to what crosses it."""

from __future__ import annotations

import random

from slotwise.facts.units import MS, S
from slotwise.sim.links import Direction, LinkSettings


def direction(**settings: float) -> Direction:
    return Direction(LinkSettings(delay_ns=1 * MS, **settings), random.Random(1))


def test_a_way_varies_by_its_spread_and_what_is_sent_first_arrives_first() -> None:
    out = direction(spread=0.8)
    alone = [direction(spread=0.8).send(0)] + [
        Direction(LinkSettings(delay_ns=MS, spread=0.8), random.Random(seed)).send(0) for seed in range(99)
    ]
    together = [out.send(sent_ns) for sent_ns in range(0, 20 * MS, MS // 5)]
    assert 0.2 * MS <= min(alone) < 0.4 * MS
    assert 1.6 * MS < max(alone) <= 1.8 * MS
    assert together == sorted(together)


def test_bytes_follow_one_another() -> None:
    out = direction(bytes_per_s=1_000_000)
    assert out.send(0, 5_000) == 6 * MS
    assert out.would_arrive_ns(0, 5_000) == 11 * MS
    assert out.send(0, 5_000) == 11 * MS
    assert out.send(1 * S, 0) == 1 * S + 1 * MS, "what lay before has long arrived"
