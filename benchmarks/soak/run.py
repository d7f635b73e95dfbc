"""The whole server for hours: mixed load through every door, faults at random instants, and a look at it now and then.

    .venv/bin/python benchmarks/soak/run.py [--minutes 120] [--rate 60] [--seed 1] [--zoo FOLDER]

Load is modest, so that the machine stays of use to others: the question is not how fast the server is, but whether
every request gets exactly one answer whatever dies, and whether memory and descriptors stay level. Bursts over
capacity come now and then. Executors are killed, the gRPC door's process too, models go and come back, clients are slow
or vanish.

Lines of JSON go to `results/soak-DATE.jsonl` while it runs, so that a run which is cut off still says something. Ends
with 1 when a request was left unanswered or answered wrongly, or when the server left something behind.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    # Run as a file, Python looks for modules in its folder first; the package and the harness are one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from soak import program

    program.main(__doc__)


if __name__ == "__main__":
    main()
