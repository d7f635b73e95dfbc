"""A machine is lost and comes back: what becomes of requests before, meanwhile and after, in virtual time.

Two machines with two GPUs each carry a steady load beside clients that ask as fast as they are answered. One machine is
gone for two seconds. Models are loaded again when it is back, and nobody waits for an answer that cannot come.
"""

from pathlib import Path

from slotwise.simulation.reading import read_scenario
from slotwise.simulation.report import Report
from slotwise.simulation.running import run

SPEC = Path(__file__).with_name("fleet.toml")
PARTS = {"before": (0.0, 2.0), "meanwhile": (2.0, 4.0), "after": (4.5, 6.0)}
QUARTER = "#####"


def in_time_bar(report: Report, from_s: float, to_s: float) -> str:
    """The share of the requests of some seconds that was answered in time, as a bar of whole quarters."""
    points = [point for point in report.course if from_s <= point.start_s < to_s]
    in_time, offered = (
        sum(counts) for counts in zip(*((p.outcomes["in_time"], p.offered) for p in points), strict=True)
    )
    return QUARTER * round(4 * in_time / offered)


def main() -> None:
    report = run(read_scenario(SPEC))
    print("Requests answered in time, of all that were sent, to the nearest quarter")
    for part, (from_s, to_s) in PARTS.items():
        print(f"  {part:<10}|{in_time_bar(report, from_s, to_s):<20}|")
    print(f"requests without an answer: {report.unanswered}")


if __name__ == "__main__":
    main()
