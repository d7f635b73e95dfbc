"""A journal holds every decision of a run, and a fresh controller decides the same again from it.

A short simulation is written to a journal. Then it is replayed twice: under the policy that made it, where every turn
must come out the same to the byte, and under another one, where the first turn that differs is found. Last, what the
journal says of who ran what is read from it. Journals of live servers (`slotwise serve --journal`) are read just so.
"""

import tempfile
from collections import Counter
from pathlib import Path

from slotwise.app import controller_of
from slotwise.engine.journal import read_header
from slotwise.engine.journal import replay as replay_turns
from slotwise.engine.timeline import read_timeline
from slotwise.simulation.reading import read_scenario
from slotwise.simulation.running import run
from slotwise.simulation.scenario import changed

SPEC = Path(__file__).with_name("mixed.toml")


def write(journal: Path) -> None:
    """One second under `edf`, with twice the load that the executors can carry."""
    scenario = changed(read_scenario(SPEC), policy="edf", scale=2.0, seconds=1.0)
    with journal.open("wb") as file:
        run(scenario, journal=file)


def replay(journal: Path, policy: str) -> str:
    """What a controller under some policy makes of the journal's events."""
    with journal.open("rb") as lines:
        header = read_header(lines.readline())
        difference = replay_turns(lines, controller_of({**header, "policy": policy})).difference
    if difference is None:
        return "every turn was decided the same again"
    is_told = difference.recorded != difference.replayed
    return f"it decides otherwise; the first turn that differs is told, with both decisions: {is_told}"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        write(journal)
        for policy in ("edf", "fifo"):
            print(f"replayed under {policy}: {replay(journal, policy)}")
        with journal.open("rb") as lines:
            timeline = read_timeline(lines)
    ends = Counter(asked.outcome.value if asked.outcome else "open" for asked in timeline.asked)
    print(f"endings in the journal: {', '.join(sorted(ends))}")
    print(f"executors: {', '.join(timeline.executors)}")
    rows = max(bar.rows for bar in timeline.bars)
    print(f"largest batch: {rows} rows, of {' and '.join(sorted({b.model for b in timeline.bars if b.rows == rows}))}")


if __name__ == "__main__":
    main()
