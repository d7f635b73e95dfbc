"""Who may import whom, as tables, and a reader of imports that says where they are broken.

Three tables: which rooms a room may use, which standard modules the pure rooms may use, and where each
third-party library lives. A module without a room, or a library without a home, is a finding too: whoever
adds one says here where it belongs, and in docs/architecture.md.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ARROWS: dict[str, tuple[str, ...]] = {
    "slotwise.facts": (),
    "slotwise.policy": ("slotwise.facts",),
    "slotwise.engine": ("slotwise.facts",),
    "slotwise.workload": ("slotwise.facts",),
    "slotwise.pipelines": ("slotwise.facts", "slotwise.engine.ports"),
    "slotwise.sim": ("slotwise.facts", "slotwise.engine", "slotwise.workload", "slotwise.pipelines"),
    "slotwise.oracle": ("slotwise.facts",),
    "slotwise.edges": ("slotwise.facts", "slotwise.engine.ports"),
    "slotwise.worker": (
        "slotwise.facts",
        "slotwise.engine.ports",
        "slotwise.edges.store",
        "slotwise.edges.runtimes",
        "slotwise.edges.slices",
        "slotwise.edges.fleets.ring",
        "slotwise.edges.fleets.messages",
    ),
    "slotwise.zygote": (
        "slotwise.worker",
        "slotwise.lifeline",
        "slotwise.facts",
        "slotwise.engine.ports",
        "slotwise.edges.store",
        "slotwise.edges.runtimes",
        "slotwise.edges.slices",
        "slotwise.edges.fleets.ring",
        "slotwise.edges.fleets.messages",
    ),
    "slotwise.grpc_door": ("slotwise.edges.oip.grpc", "slotwise.engine.ports", "slotwise.lifeline"),
    "slotwise.lifeline": (),
    "slotwise.client": (
        "slotwise.facts",
        "slotwise.edges.oip.codec",
        "slotwise.edges.oip.datatypes",
        "slotwise.edges.oip.grpc.inference_pb2",
        "slotwise.edges.local",
        "slotwise.edges.store",
    ),
    "slotwise.load": ("slotwise.facts", "slotwise.workload", "slotwise.client"),
    "slotwise.demo": (
        "slotwise.facts",
        "slotwise.workload",
        "slotwise.client",
        "slotwise.load",
        "slotwise.engine.timeline",
        "slotwise.edges.plots",
    ),
    "slotwise.explain": ("slotwise.facts", "slotwise.engine.journal", "slotwise.engine.timeline"),
    "slotwise.recording": ("slotwise.facts", "slotwise.engine.timeline", "slotwise.workload"),
    "slotwise.top": ("slotwise.facts", "slotwise.edges.metrics"),
    "slotwise.config": ("slotwise.edges", "slotwise.policy.controller", "slotwise.pipelines.deadlines"),
    "slotwise.executors": (
        "slotwise.config",
        "slotwise.summary",
        "slotwise.edges.fleets",
        "slotwise.edges.slices",
        "slotwise.edges.store",
        "slotwise.engine.clock",
        "slotwise.engine.ports",
        "slotwise.facts",
    ),
    "slotwise.summary": ("slotwise.facts", "slotwise.edges.fleets"),
    "slotwise.app": ("slotwise",),
    "slotwise.simulation": ("slotwise",),
    "slotwise.laboratory": ("slotwise",),
    "slotwise.measuring": ("slotwise",),
    "slotwise.audit": ("slotwise.facts", "slotwise.edges.slices"),
    "slotwise.terminal": (),
    "slotwise.cli": ("slotwise",),
}
"""Room -> what its modules may import of ours, beside their own room. A room inside `edges` is one folder of it."""

EDGE_ARROWS: dict[str, tuple[str, ...]] = {"slotwise.edges.oip": ("slotwise.edges.local", "slotwise.edges.store")}
"""What one edge may import of another.

The protocol's door for local clients stands on the channel that carries it, and the gRPC door is one of these clients,
with shared memory of its own.
"""

VALUE_MODULES = frozenset(
    (
        "__future__",
        "abc",
        "bisect",
        "collections",
        "dataclasses",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "itertools",
        "math",
        "operator",
        "typing",
    )
)
"""All that `facts` may use of the standard library."""

EFFECT_MODULES = frozenset(
    (
        "asyncio",
        "concurrent",
        "ctypes",
        "fcntl",
        "http",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
    )
)
"""What has an effect, or asks the machine something; the rooms of `PURE_ROOMS` use none of it."""

PURE_ROOMS = (
    "slotwise.policy",
    "slotwise.engine",
    "slotwise.pipelines",
    "slotwise.workload",
    "slotwise.sim",
    "slotwise.oracle",
)
EFFECTS_ALLOWED: dict[str, frozenset[str]] = {
    "slotwise.engine.clock": frozenset({"asyncio", "time"}),
}

HOMES: dict[str, tuple[str, ...]] = {
    "google": ("slotwise.edges.oip", "slotwise.edges.repository"),
    "grpc": ("slotwise.edges.oip.grpc", "slotwise.client.grpc", "slotwise.load.grpc"),
    "grpc_health": ("slotwise.edges.oip.grpc",),
    "grpc_reflection": ("slotwise.edges.oip.grpc",),
    "httptools": ("slotwise.edges.oip", "slotwise.client"),
    "matplotlib": ("slotwise.edges.plots",),
    "msgspec": (
        "slotwise.engine",
        "slotwise.edges",
        "slotwise.worker",
        "slotwise.zygote",
        "slotwise.grpc_door",
        "slotwise.client",
        "slotwise.load",
        "slotwise.demo",
        "slotwise.explain",
        "slotwise.top",
        "slotwise.app",
        "slotwise.config",
        "slotwise.laboratory",
        "slotwise.cli",
        "slotwise.measuring",
        "slotwise.recording",
        "slotwise.simulation",
        "slotwise.terminal",
        "slotwise.workload",
    ),
    "numpy": (
        "slotwise.policy",
        "slotwise.workload",
        "slotwise.oracle",
        "slotwise.edges",
        "slotwise.worker",
        "slotwise.zygote",
        "slotwise.client",
        "slotwise.load",
        "slotwise.demo",
        "slotwise.app",
    ),
    "onnx": ("slotwise.edges.runtimes", "slotwise.edges.store", "slotwise.edges.zoo"),
    "onnxruntime": ("slotwise.edges.runtimes", "slotwise.edges.zoo"),
    "openvino": ("slotwise.edges.runtimes",),
    "prometheus_client": ("slotwise.edges.metrics",),
    "opentelemetry": ("slotwise.edges.traces",),
    "pyarrow": ("slotwise.edges.logs",),
    "ray": ("slotwise.edges.fleets.ray",),
    "rich": ("slotwise.cli", "slotwise.terminal", "slotwise.top", "slotwise.demo"),
    "scipy": ("slotwise.policy.planners.solver",),
    "starlette": ("slotwise.edges.oip",),
    "torch": ("slotwise.edges.runtimes", "slotwise.edges.slices"),
    "typer": ("slotwise.cli", "slotwise.terminal"),
    "uvicorn": ("slotwise.edges.oip",),
    "yaml": ("slotwise.edges.repository",),
}
"""Third-party library -> the only places that may import it."""

HEAVY = (
    "grpc",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "opentelemetry",
    "openvino",
    "pyarrow",
    "ray",
    "starlette",
    "torch",
    "uvicorn",
)
"""What must not be loaded by `import slotwise`, the policies and the simulator."""


@dataclass(frozen=True)
class Import:
    """One name that a module imports, dotted in full, or beginning with a dot where it is relative."""

    importer: str
    target: str
    line: int

    @property
    def library(self) -> str:
        return self.target.partition(".")[0]


def module_name(path: str) -> str:
    """The dotted name of a file under src/."""
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def read_imports(name: str, tree: ast.Module, known: set[str]) -> Iterator[Import]:
    """Every import of a module, wherever it stands. `from a import b` counts as `a.b` where that is one of `known`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(name, full if full in known else base, node.lineno)


def room_of(module: str) -> str | None:
    """The room that a module is in: a key of ARROWS, or a folder of `edges`; None where it has none."""
    if is_in(module, "slotwise.edges"):
        return ".".join(module.split(".")[:3])
    rooms = [room for room in ARROWS if is_in(module, room)]
    return rooms[0] if rooms else None


def is_in(module: str, place: str) -> bool:
    """Whether a module is a place or lies in it."""
    return module == place or module.startswith(place + ".")


def faults(trees: dict[str, ast.Module]) -> list[str]:
    """What is wrong with the imports of some modules, a sentence each; empty when all is well."""
    homeless = [name for name in trees if room_of(name) is None and name != "slotwise"]
    found = [f"{name} is in no room: give it one in ARROWS" for name in homeless]
    for name, tree in trees.items():
        for item in read_imports(name, tree, set(trees)):
            fault = _fault(item)
            if fault:
                found.append(f"{name}:{item.line} imports {item.target}: {fault}")
    return found


def unused(trees: dict[str, ast.Module], roots: Iterable[str]) -> set[str]:
    """The modules that none of `roots` leads to, by import or by a string that names them to be started."""
    reached: set[str] = set()
    ahead = [root for root in roots if root in trees]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead.extend(found for found in _leads_to(name, trees) if found in trees)
    return trees.keys() - reached


def _leads_to(name: str, trees: dict[str, ast.Module]) -> Iterator[str]:
    yield from (name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1))
    yield from (item.target for item in read_imports(name, trees[name], set(trees)))
    for node in ast.walk(trees[name]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _fault(item: Import) -> str | None:
    if item.target.startswith("."):
        return "write the name in full"
    if item.library == "slotwise":
        return _arrow_fault(item)
    if item.library in sys.stdlib_module_names:
        return _effect_fault(item)
    if item.library not in HOMES:
        return "a library without a home: give it one in HOMES"
    if not any(is_in(item.importer, home) for home in HOMES[item.library]):
        return f"it lives only in {', '.join(HOMES[item.library])}"
    return None


def _arrow_fault(item: Import) -> str | None:
    room = room_of(item.importer)
    if item.target == "slotwise" and room != "slotwise.facts":
        return None  # the version, and nothing else, stands there
    if room is None:
        return "only what has a room may import"
    arrows = (*ARROWS["slotwise.edges" if is_in(room, "slotwise.edges") else room], *EDGE_ARROWS.get(room, ()))
    if any(is_in(item.target, place) for place in (room, *arrows)):
        return None
    return f"{room} may import only {', '.join(arrows) or 'values of the standard library'} and itself"


def _effect_fault(item: Import) -> str | None:
    if is_in(item.importer, "slotwise.facts") and item.library not in VALUE_MODULES:
        return "facts use only value modules of the standard library"
    is_pure = any(is_in(item.importer, room) for room in PURE_ROOMS)
    if is_pure and item.library in EFFECT_MODULES - EFFECTS_ALLOWED.get(item.importer, frozenset()):
        return "this room has no effects and reads no clock"
    return None
