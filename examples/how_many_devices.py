"""How many devices a load needs, and what they cost: the question of `slotwise capacity`, asked in code.

Eight models, two kinds of devices. Each count of each kind that is tried is a simulation with the same requests; counts
are doubled until one answers nine requests of ten in time, and the least such count is found between.
"""

from pathlib import Path

from slotwise.simulation.capacity import CapacityReport, find_capacity, wanted
from slotwise.simulation.reading import read_spec

SPEC = Path(__file__).with_name("capacity.toml")
TARGET = 0.9
SECONDS = 3.0


def tried(report: CapacityReport, kind: str, least: int) -> bool:
    """Whether both counts are among the trials, the one enough and the other not."""
    found = {trial.devices: trial.is_enough for trial in report.trials if trial.kind == kind}
    return found[least] and not found[least - 1]


def main() -> None:
    asked = wanted(read_spec(SPEC), target=TARGET, seconds=SECONDS)
    report = find_capacity(asked, jobs=1)
    large, small = report.least["v100"], report.least["small"]
    if large is None or small is None or report.cheapest is None:
        print("one of the kinds is never enough")
        return
    print(f"more of the small devices are needed: {small > large}")
    print(f"tried were, among others, the least count that is enough, and one less: {tried(report, 'small', small)}")
    print(f"the cheapest are: {report.cheapest.kind}")


if __name__ == "__main__":
    main()
