"""Loading a model once to see what it is: its tensors, whether rows may be batched, and what it costs.

To be called in a process of its own, on the cores of a slice: it may crash, and it measures its own
memory. One thread is timed by its processor time, which neighbours on the machine disturb little; more
than one by the wall, for a thread's own time says nothing of its helpers.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slotwise.edges.runtimes import Description, Model, RunError, Stopped, load
from slotwise.edges.runtimes.examples import SEED, Example, run, working_example
from slotwise.edges.runtimes.packing import packed
from slotwise.edges.runtimes.tensors import Array
from slotwise.engine.ports import Inspection, ModelError
from slotwise.facts.profile import Profile
from slotwise.facts.value import value

REPEATS_MIN = 3
REPEATS_MAX = 15
MEMORY_MARGIN = 1.1
MEMORY_MARGIN_BYTES = 1 << 20
"""A model is booked with a tenth and so much more than it was seen to take."""
STOPPABLE_NS_MIN = 2_000_000
"""Runs shorter than this are over before a stop could save anything."""
TOLERANCE = 1e-2
"""How far a row's result may lie from its result in a batch, as a share of the largest number in the output.

Kernels for other sizes add up in another order, and models that quantise as they go look at the whole batch;
rows that truly know of each other differ by more."""


@value
class Cost:
    """Medians of several runs of one size, and what they took in all."""

    run_ns: int
    wall_ns: int
    spent_ns: int


def inspect(
    path: str, batch_max: int, threads: int, budget_ns: int, shapes: Mapping[str, tuple[int, ...]], pack_into: str = ""
) -> Inspection:
    """Load, try and measure a model within about `budget_ns` of runs. Raises ModelError.

    Given a folder to pack into, it is packed there if it can be, and measured in that form.
    """
    file = packed(path, pack_into, threads, shapes) if pack_into else None
    memory_before = _memory_bytes()
    wall_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
    model = load(file or path, threads)
    wall_ns, cpu_ns = time.monotonic_ns() - wall_ns, time.thread_time_ns() - cpu_ns
    described = model.describe()
    if described.profile is not None:
        return Inspection(
            inputs=described.inputs,
            outputs=described.outputs,
            batchable=bool(described.batchable),
            profile=described.profile,
        )
    example = working_example(path, model, shapes)
    batchable = _is_batchable(model, described, example)
    costs = _measure(model, described, example, batch_max if batchable else 1, threads, budget_ns)
    longest_rows = max(costs)
    stop_ns = _stop_ns(model, described, example, longest_rows, costs[longest_rows].wall_ns)
    grown_bytes = max(0, _memory_bytes() - memory_before)
    profile = Profile(
        rows=tuple(costs),
        run_ns=tuple(cost.run_ns for cost in costs.values()),
        load_ns=cpu_ns if threads == 1 else wall_ns,
        memory_bytes=int(grown_bytes * MEMORY_MARGIN) + MEMORY_MARGIN_BYTES,
        wall_ns=tuple(cost.wall_ns for cost in costs.values()),
        stop_ns=stop_ns,
    )
    return Inspection(
        inputs=described.inputs,
        outputs=described.outputs,
        batchable=batchable,
        profile=profile,
        pack=Path(file).name if file else "",
    )


def _is_batchable(model: Model, described: Description, example: Example) -> bool:
    """Whether every first dimension varies, and two rows at once come out as they do one by one."""
    specs = described.inputs + described.outputs
    if not described.inputs or not all(spec.shape and spec.shape[0] < 0 for spec in specs):
        return False
    first, second = example.feeds(1, SEED), example.feeds(1, SEED + 1)
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    try:
        pairs = zip(run(model, described, first), run(model, described, second), strict=True)
        together = run(model, described, both)
    except RunError:
        return False
    return all(_is_same(a, b, whole) for (a, b), whole in zip(pairs, together, strict=True))


def _is_same(first: Array, second: Array, whole: Array) -> bool:
    if first.ndim == 0 or first.shape[0] != 1 or first.shape != second.shape:
        return False
    if whole.shape != (2, *first.shape[1:]):
        return False
    expected = np.concatenate([first, second])
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, whole))
    scale = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    return bool(np.allclose(whole, expected, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True))


def _measure(
    model: Model, described: Description, example: Example, batch_max: int, threads: int, budget_ns: int
) -> dict[int, Cost]:
    """Costs by batch size: 1, 2, 4 and so on, until the next size would go over the budget.

    The budget is counted as runs are, so that with one thread neighbours do not shorten the climb.
    """
    costs: dict[int, Cost] = {}
    rows, left_ns = 1, budget_ns
    while rows <= batch_max:
        if costs and 2 * costs[rows // 2].run_ns * (REPEATS_MIN + 1) > left_ns:
            break
        sizes_left = (batch_max // rows).bit_length()
        costs[rows] = _cost(model, described, example.feeds(rows), threads, left_ns // sizes_left)
        left_ns -= costs[rows].spent_ns
        rows *= 2
    return costs


def _cost(model: Model, described: Description, feeds: Mapping[str, Array], threads: int, budget_ns: int) -> Cost:
    run(model, described, feeds)
    run_ns: list[int] = []
    wall_ns: list[int] = []
    while len(wall_ns) < REPEATS_MIN or (len(wall_ns) < REPEATS_MAX and sum(run_ns) < budget_ns):
        wall, cpu = time.monotonic_ns(), time.thread_time_ns()
        run(model, described, feeds)
        cpu, wall = time.thread_time_ns() - cpu, time.monotonic_ns() - wall
        run_ns.append(max(1, cpu if threads == 1 else wall))
        wall_ns.append(max(1, wall))
    median_ns = int(statistics.median(run_ns))
    return Cost(run_ns=median_ns, wall_ns=int(statistics.median(wall_ns)), spent_ns=sum(run_ns) + median_ns)


def _stop_ns(model: Model, described: Description, example: Example, rows: int, wall_ns: int) -> int:
    """How long a run of so many rows goes on after having been stopped half way; the longest of a few tries."""
    if wall_ns < STOPPABLE_NS_MIN:
        return wall_ns
    return max(_stop_once(model, described, example.feeds(rows), wall_ns / 2e9) for _ in range(REPEATS_MIN))


def _stop_once(model: Model, described: Description, feeds: Mapping[str, Array], after_s: float) -> int:
    stopped_ns = 0

    def stop() -> None:
        nonlocal stopped_ns
        stopped_ns = time.monotonic_ns()
        model.stop()

    model.arm()
    timer = threading.Timer(after_s, stop)
    timer.start()
    try:
        run(model, described, feeds)
    except Stopped:
        return max(1, time.monotonic_ns() - stopped_ns)
    finally:
        timer.cancel()
        timer.join()
        model.arm()
    return max(1, time.monotonic_ns() - stopped_ns) if stopped_ns else 1


def _memory_bytes() -> int:
    """What this process takes of the machine's memory, shared pages in proportion."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ModelError("the kernel does not say how much memory a process takes (/proc/self/smaps_rollup)")
