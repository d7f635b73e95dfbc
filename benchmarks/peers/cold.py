"""Part d: cold start, from the start of the program to its first answer.

A small model, one worker, asked every five milliseconds until it answers. Files are in the kernel's cache. `first` is
the first start with this model; `again` the median of later ones, when what a server keeps between starts is there.
"""

from __future__ import annotations

import time
from collections import defaultdict

from harness.report import median

from peers.comparison import Comparison
from peers.environment import NotHere
from peers.memory import build_matrix
from peers.peer import Peer, Served, Settings

WIDTH = 512


def compare(comparison: Comparison) -> None:
    """Measure, and add a row for each peer."""
    starts = 2 if comparison.is_quick else 6
    path = build_matrix(comparison.folder / "cold.onnx", WIDTH, seed=time.monotonic_ns() % 1_000_000)
    model = Served(width=WIDTH, outputs=WIDTH, onnx=str(path))
    took_s: dict[Peer, list[float]] = defaultdict(list)
    peers = list(comparison.peers)
    for _ in range(starts):
        for peer in list(peers):
            try:
                with comparison.started(peer, {"cold": model}, Settings()) as running:
                    comparison.check(peer, running, "cold", model, Settings().form)
                    took_s[peer].append(time.monotonic() - running.started_s)
            except NotHere as reason:
                comparison.leave_out(peer, "d", reason)
                peers.remove(peer)
    first = len(comparison.report)
    for peer in peers:
        head, *rest = took_s[peer]
        comparison.report.add(
            part="d", server=peer.name, first_s=round(head, 2), again_s=median(rest), again_s_max=round(max(rest), 2)
        )
    comparison.report.print_table(f"d: cold start in seconds, {starts} starts each", first)
