"""What `run.py` runs: reads the options, installs, and measures part by part."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.report import Report

from peers import cold, goodput, memory, tiny
from peers.bentoml import BentoML
from peers.comparison import Comparison
from peers.environment import FOLDER, NotHere
from peers.litserve import LitServe
from peers.mlserver import MLServer
from peers.mosec import Mosec
from peers.ours import Slotwise
from peers.peer import Peer
from peers.ray import RayServe
from peers.triton import Triton

PEERS: tuple[type[Peer], ...] = (Slotwise, Triton, Mosec, LitServe, BentoML, MLServer, RayServe)
NAMES = [kind.name for kind in PEERS]
PARTS = {"a": tiny.compare, "b": goodput.compare, "c": memory.compare, "d": cold.compare}


def main(about: str | None) -> None:
    options = _options(about)
    # An end from outside has to pass through every server that runs, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory() as name:
        versions = {kind(): "" for kind in PEERS if kind.name in options.peers}
        for peer in versions:
            versions[peer] = _installed(peer, options.environments)
        peers = [peer for peer, version in versions.items() if version]
        for part in options.parts:
            # A line of results for each part: an end in the middle of one loses no other.
            report = Report("peers", is_quick=options.quick)
            comparison = Comparison(peers, Path(name), report, is_quick=options.quick)
            PARTS[part](comparison)
            for peer in peers:
                report.add(part=part, server=peer.name, version=versions[peer])
            for words in comparison.notes:
                report.add(part=part, note=words)
            report.keep()


def _options(about: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look at each; figures are rough")
    parser.add_argument("--peers", type=_names, default=NAMES, help="which of them")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help="which of the parts")
    parser.add_argument("--environments", type=Path, default=FOLDER, help="where peers are installed [%(default)s]")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return _chosen(text, NAMES)


def _parts(text: str) -> list[str]:
    return _chosen(text, list(PARTS))


def _chosen(text: str, there_are: Sequence[str]) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in there_are]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(there_are)}")
    return chosen


def _installed(peer: Peer, environments: Path) -> str:
    """A peer's version; empty where it is not to be had, which is said."""
    try:
        version = peer.install(environments)
    except NotHere as reason:
        print(f"{peer.name}: left out: {reason}", flush=True)
        return ""
    print(f"{peer.name} {version}", flush=True)
    return version
