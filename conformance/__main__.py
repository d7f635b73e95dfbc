"""Slotwise beside real Triton, request by request, and standard clients unchanged against Slotwise.

    .venv/bin/python -m conformance [--write docs/conformance.md] [--parts peer,clients,openapi]

Installs Triton and the clients into environments of their own (from PyPI, once), starts both servers with the same
models, asks both the same, and prints what differs. Ends with 1 where a difference is not explained, or a client fails.
All talk goes over the loopback interface.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    # Servers and scratch environments are those of the benchmarks.
    sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "benchmarks"))
    from conformance import program

    sys.exit(program.main(__doc__))


if __name__ == "__main__":
    main()
