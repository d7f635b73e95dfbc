"""Part b: answers in time against load and SLO, one model and five, with defaults and with each peer's best settings.

Models are emulated, so that neither the runtime nor a neighbour on the machine blurs what is compared: how a server
queues, batches and refuses. All models share one device, and a run of n rows takes a + b(n - 1). Capacity, the 1 of
the loads, is what the device does row by row; batches of 16 do three times that.

Settings are searched for each peer, workload and SLO apart: first with batches or without (and with patient ones, where
a server waits for rows), then each bound of the queue and each timeout that it knows; the best at the mean of two
loads is taken. Slotwise runs as it comes. Then all play the same arrivals in turn, each on a fresh server, from an
open-loop client that never waits for an answer before it asks again. In time means answered with 200 within the SLO,
counted from when the request was due to be sent. Beside it stands its share of the best possible: the most that any
scheduler could answer in time of these arrivals.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from harness.report import median

from peers.comparison import Comparison, input_row
from peers.environment import NotHere
from peers.peer import Peer, Running, Served, Settings
from slotwise.client.errors import ConnectionLost
from slotwise.facts.profile import Profile
from slotwise.facts.types import Request
from slotwise.facts.units import MS, S
from slotwise.load.ending import Sending
from slotwise.load.http import HttpWay
from slotwise.load.sender import Played, Sender
from slotwise.oracle.bound import best_possible
from slotwise.workload.arrivals import arrivals
from slotwise.workload.mixes import Share, mix
from slotwise.workload.player import Player, player_of
from slotwise.workload.values import Arrival, Phase, Workload

ROW_SHARE = 0.3
"""What a further row of a batch costs beside the first."""
BATCH_MAX = 16
WAIT_SHARE = 0.2
"""Of the shortest SLO: how long a patient server collects a batch."""
NETWORK_NS = 1 * MS
CONNECTIONS = 900
WARM_UP_S = 1.0
WARM_UP_PER_S = 20
HTTP_OK = 200
COSTS_MS = {"a": 2.0, "b": 5.0, "c": 10.0, "d": 20.0, "e": 40.0}
SLOS_MS = {"a": 50.0, "b": 75.0, "c": 100.0, "d": 200.0, "e": 400.0}
"""None is shorter than the longest run, so that a lone device can meet them all at light loads."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    loads: tuple[float, ...]
    slos_ms: tuple[float, ...]
    seconds: float
    rounds: int
    tuning_loads: tuple[float, ...]
    tuning_seconds: float
    queues: tuple[int, ...]
    timeouts: tuple[float, ...]
    """As shares of the longest SLO."""
    answer_s_max: float
    """Waited for answers after the last request; those that come later are told as unanswered."""


FULL = Plan(
    loads=(0.5, 1.0, 1.5, 2.0, 4.0),
    slos_ms=(50.0, 200.0),
    seconds=5.0,
    rounds=1,
    tuning_loads=(1.5, 4.0),
    tuning_seconds=2.0,
    queues=(4, 8, 16),
    timeouts=(0.5, 0.9),
    answer_s_max=3.5,
)
QUICK = Plan(
    loads=(0.5, 2.0),
    slos_ms=(100.0,),
    seconds=2.0,
    rounds=1,
    tuning_loads=(2.0,),
    tuning_seconds=1.5,
    queues=(8,),
    timeouts=(0.5,),
    answer_s_max=1.0,
)


@dataclass(frozen=True)
class Scenario:
    """Models, and in a word what is asked of them."""

    name: str
    models: Mapping[str, Served]

    @property
    def slo_ms_max(self) -> float:
        """The longest SLO."""
        return max(served.slo_ms for served in self.models.values())

    def profiles(self) -> dict[str, Profile]:
        """What each batch size of each model takes, at the least."""
        sizes = tuple(range(1, BATCH_MAX + 1))
        return {
            name: Profile(
                rows=sizes, run_ns=tuple(int(served.run_ms(n) * MS) for n in sizes), load_ns=0, memory_bytes=0
            )
            for name, served in self.models.items()
        }

    def workload(self, load: float, seconds: float, seed: int) -> Workload:
        """All models asked equally often."""
        slos_ns = {name: int(served.slo_ms * MS) for name, served in self.models.items()}
        streams = mix(self.profiles(), slos_ns, share=Share.RATE, utilisation=load, executors=1)
        return Workload(streams=streams, phases=(Phase(duration_s=seconds),), seed=seed)


@dataclass(frozen=True)
class Contestant:
    """A peer with its settings."""

    peer: Peer
    settings: Settings


@dataclass(frozen=True)
class Turn:
    """What the client saw of one contestant."""

    in_time: int
    played: Played

    @property
    def share(self) -> float:
        """Of what was offered."""
        return self.in_time / max(1, len(self.played.sendings))


def compare(comparison: Comparison) -> None:
    """Search, then measure, scenario by scenario."""
    plan = QUICK if comparison.is_quick else FULL
    for scenario in _scenarios(plan):
        contestants = [one for peer in comparison.peers for one in _contestants(comparison, scenario, peer, plan)]
        first = len(comparison.report)
        for load in plan.loads:
            for seed in range(plan.rounds):
                _play_all(comparison, scenario, contestants, load, seed, plan)
        title = (
            f"b: goodput, {scenario.name}; shares of the offered and of the best possible, {plan.seconds:g} s a turn"
        )
        comparison.report.print_table(title, first)


def _scenarios(plan: Plan) -> list[Scenario]:
    one = Served(width=64, outputs=10, sleep_ms=10.0, row_ms=10.0 * ROW_SHARE)
    five = {
        name: Served(width=64, outputs=10, sleep_ms=cost, row_ms=cost * ROW_SHARE, slo_ms=SLOS_MS[name])
        for name, cost in COSTS_MS.items()
    }
    return [
        *(
            Scenario(f"one model, SLO {slo_ms:g} ms", {"one": msgspec.structs.replace(one, slo_ms=slo_ms)})
            for slo_ms in plan.slos_ms
        ),
        Scenario("five models with SLOs of their own", five),
    ]


def _contestants(comparison: Comparison, scenario: Scenario, peer: Peer, plan: Plan) -> list[Contestant]:
    """The peer as it comes, and with its best settings if those are others. Empty where it does not run."""
    if not peer.knobs.batch:
        return [Contestant(peer, Settings(batch_max=BATCH_MAX))]
    tried: dict[Settings, float] = {}

    def best_of(candidates: Sequence[Settings]) -> Settings:
        for settings in candidates:
            if settings not in tried:
                tried[settings] = _tried(comparison, scenario, Contestant(peer, settings), plan)
        return max(candidates, key=tried.__getitem__)

    try:
        plain = best_of(_unbounded(peer, scenario))
        best = best_of([plain, *_bounded(peer, plain, scenario, plan)])
    except NotHere as reason:
        comparison.leave_out(peer, f"b ({scenario.name})", reason)
        return []
    found = ", ".join(f"{settings.described()}: {share:.0%}" for settings, share in tried.items())
    comparison.say(f"{peer.name}, {scenario.name}, in time while tuning: {found}")
    return [Contestant(peer, settings) for settings in dict.fromkeys((Settings(), best))]


def _unbounded(peer: Peer, scenario: Scenario) -> list[Settings]:
    batching = Settings(batch_max=BATCH_MAX)
    wait_ms = WAIT_SHARE * min(served.slo_ms for served in scenario.models.values())
    patient = [msgspec.structs.replace(batching, batch_wait_ms=wait_ms)] if peer.knobs.wait else []
    return [Settings(), batching, *patient]


def _bounded(peer: Peer, plain: Settings, scenario: Scenario, plan: Plan) -> list[Settings]:
    queues = plan.queues if peer.knobs.queue else ()
    timeouts = plan.timeouts if peer.knobs.timeout else ()
    return [
        *(msgspec.structs.replace(plain, queue_max=bound) for bound in queues),
        *(msgspec.structs.replace(plain, timeout_ms=share * scenario.slo_ms_max) for share in timeouts),
    ]


def _tried(comparison: Comparison, scenario: Scenario, contestant: Contestant, plan: Plan) -> float:
    """The mean share in time, load by load on one server, light loads first."""
    shares = []
    with comparison.serving(contestant.peer, scenario.models, contestant.settings) as running:
        for load in plan.tuning_loads:
            workload = scenario.workload(load, plan.tuning_seconds, seed=1000)
            shares.append(asyncio.run(_play(contestant, running, workload, plan.answer_s_max)).share)
    return sum(shares) / len(shares)


def _play_all(
    comparison: Comparison, scenario: Scenario, contestants: Sequence[Contestant], load: float, seed: int, plan: Plan
) -> None:
    """One round: the same arrivals for all, one after the other."""
    workload = scenario.workload(load, plan.seconds, seed)
    best = _best(scenario, workload)
    for contestant in contestants:
        try:
            with comparison.serving(contestant.peer, scenario.models, contestant.settings) as running:
                turn = asyncio.run(_play(contestant, running, workload, plan.answer_s_max))
        except NotHere as reason:
            comparison.leave_out(contestant.peer, f"b ({scenario.name}, load {load})", reason)
            continue
        _add(comparison, scenario, contestant, load, turn, best)


async def _play(contestant: Contestant, running: Running, workload: Workload, answer_s_max: float) -> Turn:
    peer, settings = contestant.peer, contestant.settings
    requests = {}
    for stream in workload.streams:
        timeout_us = (stream.slo_ns - NETWORK_NS) // 1000
        question = peer.question(stream.model, input_row(), settings.form, timeout_us)
        requests[stream.model] = question.encoded(running.port)
    way = HttpWay("127.0.0.1", running.port, lambda arrival: requests[arrival.model])
    client = Sender(way, lines=CONNECTIONS, drain_s_max=answer_s_max)
    try:
        await client.open()
        await client.record(Player(_gently(workload)), int(WARM_UP_S * S))
        await client.open()
        played = await client.record(player_of(workload), int(workload.phases[0].duration_s * S))
        await client.open()
    except ConnectionLost as error:
        raise NotHere(f"it takes no more connections: {error}") from error
    await client.close()
    slos_ns = {stream.model: stream.slo_ns for stream in workload.streams}
    return Turn(sum(_is_in_time(sending, slos_ns) for sending in played.sendings), played)


def _gently(workload: Workload) -> list[Arrival]:
    """A start well below capacity: every model in turn."""
    slow = replace(workload, phases=(Phase(duration_s=WARM_UP_S),))
    models = [(stream.model, stream.slo_ns) for stream in slow.streams]
    return [
        Arrival(at_ns=number * S // WARM_UP_PER_S, model=model, slo_ns=slo_ns, rows=1, priority=5)
        for number in range(int(WARM_UP_S * WARM_UP_PER_S))
        for model, slo_ns in [models[number % len(models)]]
    ]


def _is_in_time(sending: Sending, slos_ns: Mapping[str, int]) -> bool:
    took_ns = None if sending.ended_ns is None else sending.ended_ns - sending.due_ns
    return sending.status == HTTP_OK and took_ns is not None and took_ns <= slos_ns[sending.model]


def _best(scenario: Scenario, workload: Workload) -> float:
    """What no scheduler can exceed."""
    requests = [
        Request(
            id=number,
            model=arrival.model,
            arrival_ns=arrival.at_ns,
            deadline_ns=arrival.at_ns + arrival.slo_ns,
            rows=1,
        )
        for number, arrival in enumerate(arrivals(workload))
    ]
    return best_possible(requests, scenario.profiles(), dict.fromkeys(scenario.models, BATCH_MAX), 1).answers


def _add(
    comparison: Comparison, scenario: Scenario, contestant: Contestant, load: float, turn: Turn, best: float
) -> None:
    sendings = turn.played.sendings
    statuses = Counter("none" if sending.status is None else str(sending.status) for sending in sendings)
    answered_ms = _took_ms([sending for sending in sendings if sending.status == HTTP_OK])
    refused_ms = _took_ms([sending for sending in sendings if sending.status not in {HTTP_OK, None}])
    comparison.report.add(
        part="b",
        scenario=scenario.name,
        load=load,
        server=contestant.peer.name,
        settings=contestant.settings.described() if contestant.peer.knobs.batch else "as it comes",
        offered=len(sendings),
        in_time=turn.in_time,
        share=round(turn.share, 3),
        best=round(best),
        share_of_best=round(turn.in_time / max(1.0, best), 3),
        late=statuses[str(HTTP_OK)] - turn.in_time,
        refused=len(refused_ms),
        refusal_ms_p50=median(refused_ms) if refused_ms else None,
        unanswered=statuses["none"],
        answer_ms_p50=median(answered_ms) if answered_ms else None,
        missed=_missed(scenario, turn),
        statuses=" ".join(f"{status}:{count}" for status, count in sorted(statuses.items())),
        client_lag_ms=median([sending.lag_ns / MS for sending in sendings]) if sendings else None,
    )


def _missed(scenario: Scenario, turn: Turn) -> str:
    """Those not in time, model by model."""
    slos_ns = {name: int(served.slo_ms * MS) for name, served in scenario.models.items()}
    missed = Counter(sending.model for sending in turn.played.sendings if not _is_in_time(sending, slos_ns))
    return " ".join(f"{model}:{count}" for model, count in sorted(missed.items())) or "-"


def _took_ms(sendings: Sequence[Sending]) -> list[float]:
    return [(sending.ended_ns - sending.due_ns) / MS for sending in sendings if sending.ended_ns is not None]
