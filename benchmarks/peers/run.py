"""Slotwise beside other inference servers: the same models, the same client, the same cores, in one run.

    .venv/bin/python benchmarks/peers/run.py [--quick] [--peers mosec,triton] [--parts a,b,c,d] [--environments FOLDER]

Installs what is asked for into environments of its own (from PyPI, once), then measures:

a   tiny requests: rate, processor time per request, latency, on 1, 16 and 64 connections
b   goodput: answers in time against load and SLO, with defaults and with the best settings of each peer
c   memory with several workers of one model of 100 MB
d   cold start: from the start of the program to its first answer

What a peer cannot do, or does not do here, is said and left out. All talk goes over the loopback interface.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    # Run as a file, Python looks for modules in its folder first, where several carry the names of what they install.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from peers import program

    program.main(__doc__)


if __name__ == "__main__":
    main()
