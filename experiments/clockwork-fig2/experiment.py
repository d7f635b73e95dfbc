"""Is a forward pass predictable alone, and what becomes of that when several compete? On one core of this machine.

The model is a small convolutional network of fixed shape, run by the runtime that executors use. Alone: one process on
the core. Competing: several threads of one process, or several processes, on the same core at the same time, each
with a session of its own. Every case is measured by `passes.py` in processes of its own, with no garbage collection.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from slotwise.edges.slices import cores
from slotwise.facts.units import S
from slotwise.facts.value import value
from slotwise.laboratory.values import Case, Claim, Experiment, at_least, at_most

PASSES = Path(__file__).with_name("passes.py")
SHAPE = (1, 3, 128, 128)
CHANNELS = (3, 16, 32, 64)
ANSWERS = 10
START_S = 0.5
"""From when all are warm to when they begin."""
CASE_S_MAX = 200.0
ALONE = "alone"
COMPETITORS = (2, 4, 8)
TAILS = {"us_p50": "median", "us_p90": "p90", "us_p99": "p99", "us_p999": "p99.9", "us_p9999": "p99.99"}

TAIL_MAX = 1.5
"""Up to so many medians the 99th percentile of a pass alone is called small, on a machine that others share."""
GROWTH_MIN = 5.0
"""The tail of eight at once is called far larger from so many times that of one."""
GAIN_MAX = 1.5
"""Throughput is called little gained up to so many times that of one."""
PUBLISHED_LONGEST = {1: 2.9 / 2.9, 2: 11 / 2.9, 4: 39 / 2.9, 8: 95 / 2.9}
"""The paper's longest pass of so many at once on a GPU, over that of one; its text speaks of a hundredfold tail."""
PUBLISHED_THROUGHPUT = {1: 343 / 343, 2: 352 / 343, 4: 402 / 343, 8: 427 / 343}
SOURCE = "shape of figure 2; the paper's GPU had a p99.99 within 0.03% of the median, not comparable"


@value
class Competition(Case):
    """So many competitors, threads of one process or processes, each for so long or so many passes."""

    how: str
    competitors: int
    seconds: float
    runs_max: int


class Row(msgspec.Struct, frozen=True):
    """What the passes of one case took, of all competitors together."""

    how: str
    competitors: int
    passes: int
    per_s: float
    us_p50: float
    us_p90: float
    us_p99: float
    us_p999: float
    us_p9999: float
    us_max: float


def cases(is_quick: bool) -> tuple[Competition, ...]:
    """Alone, by the number of passes; and competing, for a while."""
    seconds, runs = (2.0, 10_000) if is_quick else (20.0, 100_000)
    alone = _case(ALONE, 1, CASE_S_MAX, runs)
    competing = (_case(how, many, seconds, runs) for how in ("threads", "processes") for many in COMPETITORS)
    return (alone, *competing)


def _case(how: str, competitors: int, seconds: float, runs_max: int) -> Competition:
    return Competition(
        id=f"{how}-{competitors}",
        policy="none",
        is_measured=True,
        how=how,
        competitors=competitors,
        seconds=seconds,
        runs_max=runs_max,
    )


def run(case: Competition) -> list[Row]:
    """Measure one case: a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passes = _measured(case, _built(folder / "model.onnx"), folder)
    span_s = int(passes.sum(axis=1).max() - passes[:, 0].min()) / S
    took_us = [float(f"{us:.4g}") for us in np.quantile(passes[:, 1] / 1000, [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0])]
    return [Row(case.how, case.competitors, len(passes), round(len(passes) / span_s, 1), *took_us)]


def _measured(case: Competition, model: Path, folder: Path) -> NDArray[np.int64]:
    """When each pass began and what it took, of all competitors together."""
    processes, threads = (case.competitors, 1) if case.how == "processes" else (1, case.competitors)
    outs = [folder / f"{number}.times" for number in range(processes)]
    shared = [str(part) for part in (model, max(cores.available()), threads, case.seconds, case.runs_max)]
    running = [
        subprocess.Popen(
            [sys.executable, str(PASSES), *shared, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for out in outs
    ]
    for process in running:
        process.stdout.readline()
    begin_ns = time.monotonic_ns() + int(START_S * S)
    for process in running:
        process.stdin.write(f"{begin_ns}\n")
        process.stdin.flush()
    statuses = [process.wait(2 * CASE_S_MAX) for process in running]
    assert not any(statuses), f"{PASSES.name} ended with {statuses}"
    return np.concatenate([np.fromfile(out, np.int64) for out in outs]).reshape(-1, 2)


def _built(path: Path) -> Path:
    """A network of three convolutions with weights of a fixed seed."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    last = "x"
    for number, (given, made) in enumerate(pairwise(CHANNELS)):
        weights.append(_weights(rng, f"w{number}", (made, given, 3, 3)))
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], strides=[2, 2], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last = f"r{number}"
    weights.append(_weights(rng, "answers", (ANSWERS, CHANNELS[-1])))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "answers"], ["y"], transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, ANSWERS))
    graph = helper.make_graph(nodes, "network", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _weights(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> TensorProto:
    spread = np.sqrt(np.prod(shape[1:]), dtype=np.float32)
    return numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) / spread, name)


def claims(rows: Sequence[Row]) -> tuple[Claim, ...]:
    """The shape alone: one pass after the other nearly constant; eight at once a long tail for little throughput."""
    alone = next((row for row in rows if row.how == ALONE), None)
    if alone is None:
        return ()
    small = at_most("fig2.alone.p99_over_median", alone.us_p99 / alone.us_p50, TAIL_MAX, policy="none", source=SOURCE)
    return (small, *(claim for row in rows if row.competitors == COMPETITORS[-1] for claim in _compared(row, alone)))


def _compared(row: Row, alone: Row) -> tuple[Claim, Claim]:
    """Many at once beside one alone."""
    name, many = f"fig2.{row.how}{row.competitors}", row.competitors
    worse = f"the paper's longest pass grew by {PUBLISHED_LONGEST[many]:.0f} on a GPU, not comparable"
    more = f"the paper's throughput grew by {PUBLISHED_THROUGHPUT[many]:.2f} on a GPU, not comparable"
    growth, gain = row.us_p999 / alone.us_p999, row.per_s / alone.per_s
    return (
        at_least(f"{name}.p999_growth", growth, GROWTH_MIN, policy="none", source=worse),
        at_most(f"{name}.throughput_gain", gain, GAIN_MAX, policy="none", source=more),
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Left the tails of every case, right throughput and tail beside the paper's, all over those of one alone."""
    from matplotlib.figure import Figure

    alone = next(row for row in rows if row.how == ALONE)
    figure = Figure(figsize=(11, 4), layout="constrained")
    tails, growth = figure.subplots(1, 2)
    for row in rows:
        over = [getattr(row, field) / alone.us_p50 for field in TAILS]
        tails.plot(list(TAILS.values()), over, marker="o", label=f"{row.competitors} {row.how}")
    tails.set(yscale="log", ylabel="time of a pass, in medians of one alone", title="Passes on one core")
    tails.legend()
    for how in ("threads", "processes"):
        chosen = [alone, *(row for row in rows if row.how == how)]
        many = [row.competitors for row in chosen]
        growth.plot(many, [row.us_p999 / alone.us_p999 for row in chosen], marker="o", label=f"p99.9, {how}")
        growth.plot(many, [row.per_s / alone.per_s for row in chosen], marker="s", label=f"throughput, {how}")
    for label, published in (("longest", PUBLISHED_LONGEST), ("throughput", PUBLISHED_THROUGHPUT)):
        growth.plot(list(published), list(published.values()), "k:", marker=".", label=f"{label}, paper's GPU")
    growth.set(yscale="log", xlabel="at once", ylabel="over one alone", title="What competing costs, and brings")
    growth.legend()
    figure.savefig(path)


EXPERIMENT = Experiment(
    name="clockwork-fig2",
    title="A pass alone is predictable; passes that compete are not",
    row=Row,
    cases=cases,
    run=run,
    claims=claims,
    draw=draw,
)
