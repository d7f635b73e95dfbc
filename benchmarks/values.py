"""What it costs to make a value: `@value` beside frozen dataclasses and the other ways to write one.

The hot path makes about a dozen values per request. `@value` is frozen for the type checker only; the table shows what
freezing at run time would cost for a request (eleven fields) and for a batch's action (eight).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, make_dataclass
from functools import partial
from typing import NamedTuple

import msgspec
from harness.report import Report, is_quick, median

from slotwise.facts.actions import RunBatch
from slotwise.facts.types import Request

REQUEST: Mapping[str, object] = {"id": 1, "model": "m/1", "arrival_ns": 10, "deadline_ns": 20}
ACTION: Mapping[str, object] = {
    "executor": "core0",
    "batch_id": 1,
    "model": "m/1",
    "requests": (),
    "rows": 1,
    "earliest_ns": 0,
    "latest_ns": 10,
    "expected_ns": 5,
}
RUNS = 7


def main() -> None:
    quick = is_quick(__doc__)
    calls = 20_000 if quick else 200_000
    report = Report("values", is_quick=quick)
    for kind, given in ((Request, REQUEST), (RunBatch, ACTION)):
        for way, make in ways(kind, given).items():
            report.add(value=kind.__name__, way=way, us=median([cost_us(make, calls) for _ in range(RUNS)]))
    report.print_table(f"Median of {RUNS} runs of {calls:,} each")
    report.keep()


def ways(kind: type, given: Mapping[str, object]) -> dict[str, Callable[[], object]]:
    """The same fields and defaults, made in each way with the same arguments."""
    described = [(field.name, field.type, field.default) for field in fields(kind)]
    plain = [(name, hint) for name, hint, default in described if default is MISSING]
    defaulted = [(name, hint, default) for name, hint, default in described if default is not MISSING]
    frozen = make_dataclass(kind.__name__, [*plain, *defaulted], frozen=True, slots=True, kw_only=True)
    struct = msgspec.defstruct(kind.__name__, [*plain, *defaulted], frozen=True, kw_only=True, gc=False)
    named = NamedTuple(kind.__name__, [(name, object) for name, _, _ in described])
    named.__new__.__defaults__ = tuple(default for _, _, default in defaulted)
    return {
        "@value": partial(kind, **given),
        "frozen dataclass": partial(frozen, **given),
        "NamedTuple": partial(named, **given),
        "msgspec.Struct": partial(struct, **given),
    }


def cost_us(make: Callable[[], object], calls: int) -> float:
    """Processor time of one call."""
    gc.disable()
    begin_ns = time.thread_time_ns()
    for _ in range(calls):
        make()
    took_ns = time.thread_time_ns() - begin_ns
    gc.enable()
    return took_ns / calls / 1000


if __name__ == "__main__":
    main()
