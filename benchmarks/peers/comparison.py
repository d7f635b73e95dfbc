"""One comparison: the peers that are here, and a fresh server of any of them with the same work.

Only one server is alive at a time, so that none pays for another's idling; rounds go over all peers in turn, so that
a busy moment of the machine hits all alike. A peer that cannot do something is noted with its words, and left out.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from harness.models import MLP_LAYERS
from harness.report import Report
from numpy.typing import NDArray

from peers.environment import NotHere
from peers.peer import Form, Peer, Running, Served, Settings, Work, started, wait_for
from peers.ports import free_port
from slotwise.edges.runtimes import load

TOLERANCE = 1e-5


def input_row(width: int = MLP_LAYERS[0]) -> NDArray[np.float32]:
    """The row that is always asked."""
    return np.random.default_rng(1).standard_normal((1, width), dtype=np.float32)


def expected_row(served: Served) -> NDArray[np.float32]:
    """What the plain runtime says to it, in this process."""
    if served.onnx is None:
        return np.zeros(served.outputs, np.float32)
    outputs = load(served.onnx, 1).run({"x": input_row(served.width)}, 1, ("y",), {})
    return np.asarray(outputs[0], np.float32)[0].copy()


class Comparison:
    """What the parts share."""

    def __init__(self, peers: Sequence[Peer], folder: Path, report: Report, *, is_quick: bool) -> None:
        self.peers = list(peers)
        self.report = report
        self.is_quick = is_quick
        self.folder = folder
        self.notes: list[str] = []
        self._expected: dict[str, NDArray[np.float32]] = {}

    @contextlib.contextmanager
    def started(self, peer: Peer, models: Mapping[str, Served], settings: Settings) -> Iterator[Running]:
        """A server that has just been started. Raises NotHere."""
        folder = Path(tempfile.mkdtemp(prefix=f"{peer.name}-", dir=self.folder))
        device = folder / "device"
        device.touch()
        launch = peer.launch(folder, Work(models=models, settings=settings, device=str(device)), free_port())
        with started(launch, folder) as running:
            yield running

    @contextlib.contextmanager
    def serving(self, peer: Peer, models: Mapping[str, Served], settings: Settings) -> Iterator[Running]:
        """A server that has answered for every model, and rightly. Raises NotHere."""
        with self.started(peer, models, settings) as running:
            for name, served in models.items():
                self.check(peer, running, name, served, settings.form)
            yield running

    def check(self, peer: Peer, running: Running, name: str, served: Served, form: Form) -> None:
        """Wait for the first answer; it must be the plain runtime's. Raises NotHere."""
        question = peer.question(name, input_row(served.width), form, None)
        reply = wait_for(running, question)
        key = served.onnx or name
        if key not in self._expected:
            self._expected[key] = expected_row(served)
        try:
            found = peer.answer(reply, form).ravel()
        except (ValueError, LookupError) as error:
            raise NotHere(f"an answer that cannot be read ({error}): {reply.content[:200]!r}") from error
        expected = self._expected[key]
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise NotHere(f"a wrong answer for {name}: {found} in place of {expected}")

    def leave_out(self, peer: Peer, what: str, reason: NotHere) -> None:
        """Say that a peer is left out of something, and why."""
        self.say(f"{peer.name}: left out of {what}: {reason}")

    def say(self, words: str) -> None:
        """Print, and keep beside the figures, once."""
        if words not in self.notes:
            self.notes.append(words)
            print(words, "\n", flush=True)
