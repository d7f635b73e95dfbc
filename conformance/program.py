"""What `python -m conformance` runs: asks, writes the page and the answers, and says what is not as it should be."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from peers.environment import NotHere

from conformance import clients, openapi, peer
from conformance.page import Report, page

ANSWERS = Path(__file__).resolve().parent / "answers.json"
PARTS = ("peer", "clients", "openapi")


def main(about: str | None) -> int:
    """Run the parts; 0 where all is well."""
    options = _options(about)
    # An end from outside has to pass through every server that runs, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    report = _kept()
    try:
        for part in options.parts:
            report = _run(part, report)
    except NotHere as reason:
        print(f"not here: {reason}", file=sys.stderr)
        return 1
    faults = report.faults()
    print(
        "\n".join(faults) or f"{len(report.rows)} requests, {len(report.runs)} runs of clients: all explained, all well"
    )
    if options.write is not None:
        ANSWERS.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        options.write.write_text(page(report), encoding="utf-8")
    return 1 if faults else 0


def _run(part: str, report: Report) -> Report:
    """The report with that part new."""
    print(f"{part}:", flush=True)
    if part == "peer":
        found = peer.compare()
        return msgspec.structs.replace(report, versions={**report.versions, **found.versions}, rows=found.rows)
    if part == "clients":
        ran = clients.run()
        return msgspec.structs.replace(report, versions={**report.versions, **ran.versions}, runs=ran.runs)
    checked = openapi.run()
    return msgspec.structs.replace(report, versions={**report.versions, **checked.versions}, findings=checked.runs)


def _kept() -> Report:
    """What was answered last, for the parts that are not run."""
    return msgspec.json.decode(ANSWERS.read_bytes(), type=Report) if ANSWERS.exists() else Report({})


def _options(about: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m conformance", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="the page to write; answers go to conformance/answers.json then")
    parser.add_argument("--parts", type=_parts, default=PARTS, help="which of them [all]")
    return parser.parse_args()


def _parts(text: str) -> Sequence[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return chosen
