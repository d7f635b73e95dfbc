"""Two policies under the same load, side by side, in virtual time.

The same six models, two executors and arrivals are simulated at half the load that the executors can carry, at just
that load, and at three times as much: once first in, first out, as most servers do, and once with Slotwise's own
scheduler. Nothing is slept through: a second of virtual time takes a fraction of a second.
"""

from pathlib import Path

from slotwise.simulation.reading import read_scenario
from slotwise.simulation.running import run
from slotwise.simulation.scenario import Scenario, changed

SPEC = Path(__file__).with_name("mixed.toml")
SECONDS = 5.0
POLICIES = ("fifo", "slotwise")
SCALES = (0.5, 1.0, 3.0)
QUARTER = "#####"


def in_time_bar(scenario: Scenario, policy: str, scale: float) -> str:
    """The share of requests that were answered in time, as a bar of whole quarters."""
    total = run(changed(scenario, policy=policy, scale=scale, seconds=SECONDS)).total
    return QUARTER * round(4 * total.in_time / total.offered)


def main() -> None:
    scenario = read_scenario(SPEC)
    print("Requests answered in time, of all that were sent, to the nearest quarter")
    for scale in SCALES:
        print(f"\nload x{scale:g}")
        for policy in POLICIES:
            print(f"  {policy:<10}|{in_time_bar(scenario, policy, scale):<20}|")


if __name__ == "__main__":
    main()
