"""Which requests are traced, where their clients have begun the trace."""

from __future__ import annotations

from slotwise.edges.traces.sampling import Sampling
from slotwise.engine.ports import OwnTraceSetting
from slotwise.facts.types import Request

RATIO_LEAST = 1e-9


def test_a_client_that_traces_stands_for_the_share_but_not_for_the_switch_or_the_count() -> None:
    request = Request(id=1, model="m/1", arrival_ns=0, deadline_ns=1)
    sampling = Sampling(RATIO_LEAST)
    assert not sampling.takes(request)
    assert sampling.takes(request, by_client=True)
    assert not Sampling(1.0).takes(request, by_client=False)
    sampling.put(OwnTraceSetting(left=1))
    assert [sampling.takes(request, by_client=True) for _ in range(2)] == [True, False]
    sampling.put(OwnTraceSetting(is_on=False))
    assert not sampling.takes(request, by_client=True)
