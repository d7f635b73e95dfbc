"""Files that an operator or the owner of a model writes. The first line of an input is the file's name."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from slotwise.app import controller_of
from slotwise.config import ConfigError, read
from slotwise.edges.oip.access import AccessError, read_grants
from slotwise.edges.repository import pbtxt, settings
from slotwise.engine.journal import JournalError, read_header, replay
from slotwise.engine.ports import ModelError
from slotwise.explain.story import read_stories, read_worst
from slotwise.explain.words import explanation
from slotwise.policy.presets import PresetError
from slotwise.simulation.measured import read_measured
from slotwise.simulation.reading import read_scenario

NAMES = (
    "server.toml",
    "slotwise.toml",
    "config.pbtxt",
    "tokens.toml",
    "journal.jsonl",
    "simulation.toml",
    "measured.json",
)
LINES_MAX = 60
_DECLARED = (ConfigError, AccessError, ModelError, JournalError, PresetError)


class Files:
    """All readers of files."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slotwise-fuzz-")
        self._root = Path(self._folder.name)

    def seeds(self) -> list[bytes]:
        """A file of each kind."""
        profile = {"rows": [1, 2], "run_ns": [10**6, 2 * 10**6], "load_ns": 1000, "memory_bytes": 1 << 20}
        spec = {
            "id": "m/1",
            "name": "m",
            "version": "1",
            "profile": profile,
            "slo_ns": 10**8,
            "batch_max": 4,
            "batchable": True,
        }
        request = {"id": 1, "model": "m/1", "arrival_ns": 10, "deadline_ns": 10**8}
        header = {"journal": 1, "policy": "slotwise", "settings": {}}
        lines = (
            header,
            [10, [["ModelAdded", {"spec": spec}]], []],
            [20, [["ExecutorUp", {"executor": "e", "memory_bytes": 1 << 30, "page_bytes": 1 << 20}]], []],
            [30, [["Arrived", {"request": request}]], []],
            [40, [["Woke", {}]], []],
        )
        journal = "\n".join(json.dumps(line) for line in lines)
        server = 'http_port = 0\ncores = [0]\npolicy = "edf"\n[door]\nrequests_max = 5\n[tls]\ncertificate = ""\n'
        own = (
            "slo_ms = 5.5\nbatch_max = 4\nversions = {latest = 2}\nexamples = {x = [1, 3]}\n"
            '[[variants]]\naccuracy = 1\nfile = "a"\n'
        )
        triton = (
            'name: "m"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'
            'input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]\n'
            "dynamic_batching { preferred_batch_size: [2, 4] default_priority_level: 2 priority_levels: 20 }\n"
            "version_policy { specific { versions: [1, 2] } }\ninstance_group [{ count: 2 }]\n"
        )
        tokens = f'[[token]]\nname = "a"\nsha256 = "{"0" * 64}"\nmodels = ["a*"]\nper_s = 1.5\nmanages = true\n'
        simulation = (
            'seconds = 0.01\n[[kinds]]\nname = "k"\npage_mib = 16\nprofiles = {m = "resnet18"}\n'
            '[[nodes]]\nname = "n"\ncount = 2\ndevices = [{kind = "k", slices = [{share = 0.5}, {share = 0.5}]}]\n'
            '[[faults]]\nat_s = 1\ndo = "slow"\nwhere = "n-0"\nfor_s = 2\n[chance]\nkill_every_s = 3\n'
            '[[models]]\nname = "m"\nrows = [1]\nrun_ms = [1]\nslo_ms = 9\n'
            '[[models]]\nname = "p"\nprofile = "resnet50"\ncopies = 3\nslo_ms = 9\n'
            "[workload]\nphases = [{seconds = 2, scale = 3}]\n"
            '[[workload.streams]]\nmodels = ["*"]\nslo_ms = 9\n[[workload.clients]]\nmodels = ["m"]\nslo_ms = 9\n'
        )
        measured = json.dumps(
            [{"model": "m/1", "rows": [1, 2], "run_ms": [1.5, 2], "load_ms": 3, "error": ""}], indent=1
        )
        texts = (server, own, triton, tokens, journal, simulation, measured)
        return [f"{name}\n{text}".encode() for name, text in zip(NAMES, texts, strict=True)]

    def run(self, data: bytes) -> None:
        """One file."""
        line, _, content = data.partition(b"\n")
        name = line.decode("latin-1")
        path = self._root / (name if name in NAMES else NAMES[len(line) % len(NAMES)])
        path.write_bytes(content)
        try:
            _read(path)
        except _DECLARED as error:
            str(error).encode()

    def check(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """The end."""
        self._folder.cleanup()


def _read(path: Path) -> None:
    match path.name:
        case "server.toml":
            read(path, {})
        case "slotwise.toml":
            settings.read(path).pick([1, 2, 3], "all")
        case "config.pbtxt":
            pbtxt.read(path, "m")
        case "tokens.toml":
            read_grants(path)
        case "journal.jsonl":
            _journal(path)
        case "measured.json":
            read_measured(path)
        case _:
            read_scenario(path)


def _journal(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)[:LINES_MAX]
    if lines:
        replay(lines[1:], controller_of(read_header(lines[0])))
        for story in read_stories(lines, read_worst(lines, 3)):
            explanation(story)
