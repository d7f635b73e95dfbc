"""A scheduler of one's own, tried in virtual time beside two that are there already.

`ShortestFirst` serves the model that takes least time first. It is a whole scheduler: `Serving` keeps the lines of
requests and has models loaded, and what is left to say is whose turn it is. To give it a name that `--policy` takes,
put the class into a file of `slotwise/policy/schedulers` and a line into the table there.
"""

from slotwise.facts.actions import Reply
from slotwise.facts.events import Event
from slotwise.facts.profile import Profile
from slotwise.facts.types import ModelSpec, Outcome, Refusal, Request
from slotwise.facts.units import MS, S
from slotwise.policy.controller import Controller
from slotwise.policy.estimates import Estimates, EstimateSettings
from slotwise.policy.presets import build_controller
from slotwise.policy.scheduling import Choice, Run
from slotwise.policy.serving import Serving, ServingSettings
from slotwise.policy.view import Ticket, View
from slotwise.sim.checks import Checks
from slotwise.sim.fleet import FleetSettings, SimSlice
from slotwise.sim.world import World
from slotwise.workload.arrivals import arrivals
from slotwise.workload.values import Phase, Stream, Workload


class ShortestFirst:
    """Serves the quickest model first; it refuses nothing and drops nothing."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._serving = Serving(view, ServingSettings(), self._run_ns)

    def arrived(self, ticket: Ticket, now_ns: int) -> Refusal | None:
        """Take everything in."""
        self._serving.put(ticket, now_ns)
        return None

    def withdrawn(self, ticket: Ticket, now_ns: int) -> None:
        """Forget a request that has ended."""
        self._serving.queues.remove(ticket)

    def noted(self, event: Event, now_ns: int) -> None:
        """Follow loads and executors."""
        self._serving.noted(event)

    def choose(self, now_ns: int) -> Choice | None:
        """Run the quickest model that waits, or see to the memory."""
        turn = self._serving.turn(now_ns)
        if turn is None:
            return self._serving.place(now_ns)
        model = turn.line[0]
        tickets = self._serving.queues.take(turn.line, self._view.models[model].spec.batch_max)
        return Run(executor=turn.executor, model=model, tickets=tickets)

    def due_ns(self, now_ns: int) -> int:
        """When to be asked again."""
        return self._serving.due_ns(now_ns)

    def _run_ns(self, ticket: Ticket) -> int:
        return self._view.models[ticket.request.model].spec.profile.expected_ns(1)


def model(name: str, run_ms: int) -> ModelSpec:
    """A model that takes so long, and may take ten times as long to answer."""
    profile = Profile(rows=(1,), run_ns=(run_ms * MS,), load_ns=5 * MS, memory_bytes=1 << 20)
    return ModelSpec(id=f"{name}/1", name=name, version="1", profile=profile, slo_ns=10 * run_ms * MS)


MODELS = (model("quick", 2), model("slow", 20))
RATES_PER_S = {"quick/1": 260.0, "slow/1": 26.0}
"""About half the time of one executor each: together slightly more than there is."""


def shortest_first() -> Controller:
    view = View(Estimates(EstimateSettings()))
    return Controller(view, ShortestFirst(view))


def in_time(controller: Controller) -> dict[str, int]:
    """Simulate ten seconds of one executor; the percentage of each model's requests that was answered in time."""
    met: dict[str, int] = dict.fromkeys(RATES_PER_S, 0)
    all_ends: dict[str, int] = dict.fromkeys(RATES_PER_S, 0)

    def count(request: Request, reply: Reply) -> None:
        all_ends[request.model] += 1
        met[request.model] += reply.outcome is Outcome.IN_TIME

    world = World(
        controller=controller,
        models=MODELS,
        fleet=FleetSettings(slices=(SimSlice(executor="one"),)),
        seed=1,
        recorders=[Checks({spec.id: spec for spec in MODELS})],  # every rule of the house, after every turn
        on_reply=count,
    )
    world.run(1 * S)  # the models are loaded
    streams = tuple(Stream(model=spec.id, rate_per_s=RATES_PER_S[spec.id], slo_ns=spec.slo_ns) for spec in MODELS)
    phases = (Phase(duration_s=1.0, scale=0.0), Phase(duration_s=10.0))
    world.feed(arrivals(Workload(streams=streams, phases=phases, seed=1)))
    world.run(60 * S)
    return {spec.name: 5 * round(20 * met[spec.id] / all_ends[spec.id]) for spec in MODELS}


def main() -> None:
    print("answered in time, in percent    quick  slow")
    contestants = {name: build_controller(name) for name in ("fifo", "edf")} | {"shortest first": shortest_first()}
    for name, controller in contestants.items():
        share = in_time(controller)
        print(f"{name:<30}  {share['quick']:>5}  {share['slow']:>4}")


if __name__ == "__main__":
    main()
