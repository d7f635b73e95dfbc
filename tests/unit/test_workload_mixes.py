"""Mixes load the executors to the stated degree."""

from __future__ import annotations

import pytest

from slotwise.facts.profile import Profile
from slotwise.workload.mixes import Share, mix, utilisation
from slotwise.workload.values import WorkloadError

PROFILES = {
    name: Profile(rows=(1,), run_ns=(run_ms * 1_000_000,), load_ns=0, memory_bytes=0)
    for name, run_ms in {"small": 1, "middle": 4, "large": 20}.items()
}
SLO_NS = dict.fromkeys(PROFILES, 100_000_000)


@pytest.mark.parametrize("share", Share)
def test_a_mix_has_the_stated_utilisation(share: Share) -> None:
    streams = mix(PROFILES, SLO_NS, share=share, utilisation=1.5, executors=2)
    assert utilisation(streams, PROFILES, executors=2) == pytest.approx(1.5)
    assert [stream.model for stream in streams] == list(PROFILES)


def test_equal_work_gives_every_model_the_same_time() -> None:
    streams = mix(PROFILES, SLO_NS, share=Share.WORK, utilisation=3, executors=1)
    assert [stream.rate_per_s for stream in streams] == pytest.approx([1000, 250, 50])


def test_equal_rate_asks_every_model_equally_often() -> None:
    streams = mix(PROFILES, SLO_NS, share=Share.RATE, utilisation=1, executors=1)
    assert [stream.rate_per_s for stream in streams] == pytest.approx([40, 40, 40])


def test_a_mix_that_cannot_be_is_refused() -> None:
    with pytest.raises(WorkloadError, match="at least one model"):
        mix({}, {}, share=Share.WORK, utilisation=1, executors=1)
    with pytest.raises(WorkloadError, match="no slo_ns given for large"):
        mix(PROFILES, {"small": 1, "middle": 1}, share=Share.WORK, utilisation=1, executors=1)
    with pytest.raises(WorkloadError, match="executors is 0"):
        mix(PROFILES, SLO_NS, share=Share.WORK, utilisation=1, executors=0)
