"""Runs an experiment: its cases on all cores, each once; then its claims are judged and its figure is drawn.

Every case that finishes is kept at once, so whatever ends a run early, the next goes on from there. Processes of the
pool find the experiment by its folder, as this one did, and are handed no more than the case's name.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain
from pathlib import Path

import msgspec

from slotwise.facts.value import value
from slotwise.laboratory.finding import Found, find
from slotwise.laboratory.ground import Ground
from slotwise.laboratory.keeping import Kept, Row, append_kept, read_kept, write_kept
from slotwise.laboratory.machine import machine
from slotwise.laboratory.values import LaboratoryError
from slotwise.laboratory.verdict import Verdict, read_verdict, write_verdict

ROWS_FILE, FIGURE_FILE = "rows.jsonl", "figure.svg"

Progress = Callable[[str, int, int], None]
"""Told of a case that has finished, and of how many that makes of all."""


@value
class Options:
    """How to run an experiment."""

    is_quick: bool = False
    jobs: int = 1
    """Processes at a time; 1 runs all in this one."""
    is_fresh: bool = False
    """Whether cases are run that have been run before."""


@value
class _Task:
    """A case to run, for a process that knows nothing yet."""

    folder: Path
    is_quick: bool
    case: str
    digest: str


def run_experiment(found: Found, options: Options, progress: Progress) -> Verdict:
    """Run what has not been run, judge it all, and keep verdict and figure. Raises LaboratoryError."""
    cases = found.experiment.cases(options.is_quick)
    ground = Ground(found.file)
    digests = {case.id: ground.digest(case) for case in cases}
    if len(digests) < len(cases):
        raise LaboratoryError(f"{found.file}: two cases have the same id; give each its own")
    results = found.results(options.is_quick)
    file = results / ROWS_FILE
    measured = {case.id for case in cases if case.is_measured}
    lasting = {name: digest for name, digest in digests.items() if name not in measured}
    kept = {} if options.is_fresh else read_kept(file, lasting)
    write_kept(file, kept.values())
    tasks = [
        _Task(folder=found.folder, is_quick=options.is_quick, case=name, digest=digests[name])
        for name in digests
        if name not in kept
    ]
    together = [task for task in tasks if task.case not in measured]
    alone = [task for task in tasks if task.case in measured]
    for finished in chain(_run_all(together, options.jobs), _run_all(alone, 1)):
        append_kept(file, finished)
        kept[finished.case] = finished
        progress(finished.case, len(kept), len(digests))
    in_order = [kept[name] for name in digests]
    write_kept(file, in_order)
    return _judge(found, options.is_quick, [row for one in in_order for row in one.rows], is_new=bool(tasks))


def _judge(found: Found, is_quick: bool, kept: list[Row], is_new: bool) -> Verdict:
    """The claims, held against rows; a verdict's machine stays that of its rows where none of these is new."""
    experiment, results = found.experiment, found.results(is_quick)
    rows = [msgspec.convert(row, experiment.row) for row in kept]
    before = None if is_new else read_verdict(found, is_quick)
    verdict = Verdict(
        name=experiment.name,
        title=experiment.title,
        is_quick=is_quick,
        machine=machine() if before is None else before.machine,
        claims=experiment.claims(rows),
    )
    write_verdict(results, verdict)
    try:
        experiment.draw(rows, results / FIGURE_FILE)
    except ModuleNotFoundError as error:
        raise LaboratoryError(
            f"the verdict is in {results}, but the figure needs {error.name}; "
            "install it with: pip install 'slotwise[experiments]'"
        ) from error
    return verdict


def _run_all(tasks: Sequence[_Task], jobs: int) -> Iterator[Kept]:
    """Run tasks, and yield each as it finishes. The first that fails ends it, once those under way have ended."""
    if jobs == 1 or len(tasks) <= 1:
        yield from map(_run, tasks)
        return
    # Fresh processes: a fork of one with threads may hang, and what a case finds shall not depend on what ran before.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context) as pool:
        try:
            for future in as_completed([pool.submit(_run, task) for task in tasks]):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _run(task: _Task) -> Kept:
    """Run one case."""
    experiment = find(task.folder.parent, task.folder.name).experiment
    case = next(case for case in experiment.cases(task.is_quick) if case.id == task.case)
    begin_s = time.monotonic()
    rows = [msgspec.to_builtins(row) for row in experiment.run(case)]
    took_s = round(time.monotonic() - begin_s, 1)
    return Kept(case=case.id, policy=case.policy, digest=task.digest, seconds=took_s, rows=rows)
