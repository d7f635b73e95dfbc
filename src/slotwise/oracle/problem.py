"""An offline problem: requests known in advance, and every way in which each could be run.

Here stands what a run costs and when it can start; nothing here decides which requests are run. The
bounds and the offline schedule read it. Numbers are numpy arrays with one entry per request, in the
order given.

A *way* is a total number of rows that a request could share a run of, itself included. A run of R rows
lasts `work * expected_ns(R)`, a request is charged for its share of the rows, and the run must start
after its arrival and end by its deadline. A way is open to a request only if at some such start enough
requests of the same form are there, with time left, to fill R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from slotwise.facts.profile import Profile
from slotwise.facts.types import Request
from slotwise.facts.value import value

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@value
class Way:
    """Running as part of a run of so many rows, for requests of equal model, form, work and rows."""

    members: Integers
    """Positions of the requests to which it is open."""
    run_ns: float
    share: float
    """The part of the run's time that each member is charged."""


@value
class Problem:
    """What there is to choose from. `least_ns` is a request's least executor time, infinite if it cannot be met."""

    executors: int
    arrivals_ns: Integers
    deadlines_ns: Integers
    ways: tuple[Way, ...]
    least_ns: Floats

    @property
    def offered(self) -> int:
        """How many requests there are."""
        return len(self.arrivals_ns)

    @property
    def possible(self) -> int:
        """How many could be met if each had an executor to itself and company as it liked."""
        return int(np.count_nonzero(np.isfinite(self.least_ns)))


def problem_of(
    requests: Sequence[Request], profiles: Mapping[str, Profile], batch_max: Mapping[str, int], executors: int
) -> Problem:
    """Collect the ways. A model absent from `batch_max` is run one request at a time."""
    if executors < 1:
        raise ValueError(f"executors is {executors}; it must be 1 or above")
    arrivals_ns = np.array([request.arrival_ns for request in requests], dtype=np.int64)
    deadlines_ns = np.array([request.deadline_ns for request in requests], dtype=np.int64)
    deadlines_ns = np.minimum(deadlines_ns, _last_end_ns(requests, profiles))
    families: dict[tuple[str, int], list[int]] = {}
    for position, request in enumerate(requests):
        families.setdefault((request.model, request.form), []).append(position)
    ways: list[Way] = []
    for (model, _), family in families.items():
        members = np.array(family, dtype=np.int64)
        rows = np.array([requests[position].rows for position in family], dtype=np.int64)
        work = np.array([requests[position].work for position in family], dtype=np.float64)
        kin = _Kin(members=members, rows=rows, work=work, first_ns=arrivals_ns[members], end_ns=deadlines_ns[members])
        ways.extend(_ways_of(kin, profiles[model], batch_max.get(model, 1)))
    least_ns = np.full(len(requests), np.inf)
    for way in ways:
        least_ns[way.members] = np.minimum(least_ns[way.members], way.run_ns * way.share)
    return Problem(
        executors=executors,
        arrivals_ns=arrivals_ns,
        deadlines_ns=deadlines_ns,
        ways=tuple(ways),
        least_ns=least_ns,
    )


@value
class _Kin:
    """Requests that may share a run."""

    members: Integers
    rows: Integers
    work: Floats
    first_ns: Integers
    end_ns: Integers


def _last_end_ns(requests: Sequence[Request], profiles: Mapping[str, Profile]) -> int:
    """No schedule gains by ending later: after the last arrival it need not idle, even on one executor."""
    last_ns = max((request.arrival_ns for request in requests), default=0)
    alone_ns = sum(profiles[request.model].expected_ns(request.rows) * request.work for request in requests)
    return last_ns + int(alone_ns) + 1


def _ways_of(kin: _Kin, profile: Profile, batch_max: int) -> list[Way]:
    found: list[Way] = []
    for rows, work in sorted(set(zip(kin.rows.tolist(), kin.work.tolist(), strict=True))):
        alike = (kin.rows == rows) & (kin.work == work)
        for total in range(rows, max(rows, batch_max) + 1):
            run_ns = work * profile.expected_ns(total)
            shortest_ns = float(kin.work.min()) * profile.expected_ns(total)
            is_open = alike & (kin.first_ns + run_ns <= kin.end_ns) & _has_company(kin, total, shortest_ns)
            if is_open.any():
                found.append(Way(members=kin.members[is_open], run_ns=run_ns, share=rows / total))
    return found


def _has_company(kin: _Kin, total: int, run_ns: float) -> NDArray[np.bool_]:
    """For each request, whether at some start that suits it `total` rows, its own among them, can run for `run_ns`.

    How many rows can start together changes upwards only at arrivals, so only those instants are looked at.
    """
    latest_ns = kin.end_ns - run_ns
    can_run = kin.first_ns <= latest_ns
    by_first = np.argsort(kin.first_ns[can_run], kind="stable")
    firsts_ns = kin.first_ns[can_run][by_first]
    by_latest = np.argsort(latest_ns[can_run], kind="stable")
    lates_ns = latest_ns[can_run][by_latest]
    come = np.concatenate(([0], np.cumsum(kin.rows[can_run][by_first])))
    gone = np.concatenate(([0], np.cumsum(kin.rows[can_run][by_latest])))
    there = come[np.searchsorted(firsts_ns, firsts_ns, "right")] - gone[np.searchsorted(lates_ns, firsts_ns, "left")]
    enough = np.concatenate(([0], np.cumsum(there >= total)))
    begin = np.searchsorted(firsts_ns, kin.first_ns, "left")
    end = np.searchsorted(firsts_ns, latest_ns, "right")
    found: NDArray[np.bool_] = can_run & (enough[np.maximum(begin, end)] > enough[begin])
    return found
