"""Streams and clients side by side: who asks next, and when a client asks again."""

from __future__ import annotations

import pytest

from slotwise.facts.units import MS, S
from slotwise.workload.player import Asking, Player, player_of
from slotwise.workload.values import Bursty, Clients, Fixed, Phase, Stream, Workload, WorkloadError


def workload(*clients: Clients, streams: tuple[Stream, ...] = (), seconds: float = 1.0, seed: int = 1) -> Workload:
    return Workload(streams=streams, phases=(Phase(duration_s=seconds),), seed=seed, clients=clients)


def played(player: Player, takes_ns: int, retry_after_ns: int = 0) -> list[tuple[int, str]]:
    """What is asked where every answer takes the same time."""
    asked: list[tuple[int, str]] = []
    open_: list[tuple[int, Asking]] = []
    while True:
        due_ns = player.due_ns()
        if open_ and (due_ns is None or open_[0][0] <= due_ns):
            at_ns, asking = open_.pop(0)
            player.answered(asking, at_ns, retry_after_ns)
        elif due_ns is None:
            return asked
        else:
            asking = player.take()
            asked.append((due_ns, asking.arrival.model))
            open_.append((due_ns + takes_ns, asking))


def test_each_client_has_one_request_open_and_asks_again_after_its_pause() -> None:
    clients = Clients(models=("a",), concurrency=2, slo_ns=S, pause_ns=10 * MS)
    asked = played(player_of(workload(clients)), takes_ns=90 * MS)
    assert [at_ns for at_ns, _ in asked] == sorted(2 * [number * 100 * MS for number in range(10)])


def test_clients_ask_their_models_in_turn() -> None:
    clients = Clients(models=("a", "b", "c"), concurrency=1, slo_ns=S)
    asked = played(player_of(workload(clients)), takes_ns=200 * MS)
    assert [model for _, model in asked] == ["a", "b", "c", "a", "b"]


def test_clients_stop_after_their_last_request_and_at_the_end() -> None:
    few = Clients(models=("a",), concurrency=4, slo_ns=S, requests_max=6)
    assert len(played(player_of(workload(few)), takes_ns=1 * MS)) == 6
    endless = Clients(models=("a",), concurrency=1, slo_ns=S)
    asked = played(player_of(workload(endless)), takes_ns=300 * MS)
    assert [at_ns for at_ns, _ in asked] == [0, 300 * MS, 600 * MS, 900 * MS]


def test_only_clients_that_heed_retry_after_wait_for_it() -> None:
    for heeds, times in ((True, 4), (False, 10)):
        clients = Clients(models=("a",), concurrency=1, slo_ns=S, heeds_retry_after=heeds)
        assert len(played(player_of(workload(clients)), takes_ns=100 * MS, retry_after_ns=200 * MS)) == times


def test_clients_ask_in_bursts_alone() -> None:
    bursts = Bursty(mean_burst_s=1.0, mean_idle_s=3.0)
    clients = Clients(models=("a",), concurrency=1, slo_ns=S, bursts=bursts)
    asked = played(player_of(workload(clients, seconds=2_000.0)), takes_ns=100 * MS)
    assert 0.2 < len(asked) / 20_000 < 0.3


def test_sets_of_clients_do_not_burst_in_step() -> None:
    bursts = Bursty(mean_burst_s=1.0, mean_idle_s=3.0)
    sets = [Clients(models=(f"m{index}",), concurrency=1, slo_ns=S, bursts=bursts) for index in range(200)]
    asked = played(player_of(workload(*sets, seconds=0.1)), takes_ns=S)
    assert 30 < len(asked) < 70, "a quarter of them are in a burst as it begins"


def test_slos_of_clients_change_by_phases_of_their_own_and_stay_after_the_last() -> None:
    phases = (Phase(duration_s=1.0), Phase(duration_s=1.0, slo_scale=3.0))
    clients = Clients(models=("a",), concurrency=1, slo_ns=10 * MS, phases=phases)
    player = player_of(workload(clients, seconds=4.0))
    slos_ms = []
    while (at_ns := player.due_ns()) is not None:
        asking = player.take()
        slos_ms.append(asking.arrival.slo_ns // MS)
        player.answered(asking, at_ns + S // 2)
    assert slos_ms == [10, 10, 30, 30, 30, 30, 30, 30]
    with pytest.raises(WorkloadError, match="clients have no rate"):
        Clients(models=("a",), concurrency=1, slo_ns=S, phases=(Phase(duration_s=1.0, scale=2.0),))


def test_a_stream_goes_on_whatever_clients_wait_for() -> None:
    stream = Stream(model="open", rate_per_s=10.0, slo_ns=S, process=Fixed())
    clients = Clients(models=("closed",), concurrency=1, slo_ns=S)
    asked = played(player_of(workload(clients, streams=(stream,))), takes_ns=10 * S)
    assert [model for _, model in asked].count("open") == 10
    assert [model for _, model in asked].count("closed") == 1
    assert [at_ns for at_ns, _ in asked] == sorted(at_ns for at_ns, _ in asked)


def test_a_ramp_of_slos_is_a_row_of_phases() -> None:
    stream = Stream(
        model="a",
        rate_per_s=100.0,
        slo_ns=10 * MS,
        phases=tuple(Phase(duration_s=1.0, slo_scale=1.5**step) for step in range(3)),
    )
    player = player_of(Workload(streams=(stream,), phases=(), seed=1))
    slos_ns: list[set[int]] = [set(), set(), set()]
    while (due_ns := player.due_ns()) is not None:
        slos_ns[due_ns // S].add(player.take().arrival.slo_ns)
    assert slos_ns == [{10 * MS}, {15 * MS}, {22_500_000}]
