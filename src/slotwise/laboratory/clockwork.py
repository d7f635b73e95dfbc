"""What the experiments on Clockwork's figures share: policies with the paper's settings, model, fleet, and one claim.

ResNet50 is that of the paper's table 1 on a V100; the paper's text, figures and code have four different times for it.
The network takes 0.05 to 0.45 ms each way, with which the published policy comes closest to figures 5, 7 and 8: the
paper tells of 10 Gbit/s Ethernet and of no delay.
"""

from __future__ import annotations

from collections.abc import Mapping

from slotwise.facts.units import MS, US
from slotwise.laboratory.values import Claim, at_least
from slotwise.sim.fleet import FleetSettings
from slotwise.simulation.fleets import CLOCKWORK_PAGES, clockwork_fleet
from slotwise.simulation.profiles import shipped_profile

PUBLISHED, MENDED, OURS = "clockwork-published", "clockwork", "slotwise"
POLICIES = (PUBLISHED, OURS, MENDED, "fifo", "edf", "bounded", "clipper", "infaas")
"""Clockwork as published and mended, ours, and baselines of ours: `clipper` and `infaas` are like Clipper and
INFaaS, and not these systems themselves."""
RESNET50 = shipped_profile("resnet50")
LESS_SHARE = 0.01
"""By this share of it `slotwise` may be below what Clockwork as published reaches."""


LINK_NS, LINK_SPREAD = 250 * US, 0.8


def fleet(devices: int, pages: int = CLOCKWORK_PAGES) -> FleetSettings:
    """So many of the paper's GPUs; all runs and loads take what the profile says."""
    return clockwork_fleet(devices, pages=pages, link_ns=LINK_NS, link_spread=LINK_SPREAD)


def settings_of(policy: str, *, ahead_ms: float, batch_max: int) -> Mapping[str, object]:
    """Settings that a figure was made with: how far Clockwork works ahead, and its largest batch.

    As the way varies here, `slotwise` tries what is in time if it is short; so does Clockwork, which counts no way.
    """
    if policy == OURS:
        return {"long_shot": 0.5}
    if policy not in (PUBLISHED, MENDED):
        return {}
    ahead_ns = int(ahead_ms * MS)
    return {"schedule_ahead_ns": ahead_ns, "window_ns": ahead_ns, "batch_max": batch_max}


def not_below(claim: str, found: Mapping[str, float]) -> tuple[Claim, ...]:
    """That `slotwise` reaches what Clockwork as published does, where both were run. `found` is by policy."""
    if PUBLISHED not in found or OURS not in found:
        return ()
    beside = found[PUBLISHED]
    tolerance = LESS_SHARE * beside
    return (at_least(claim, found[OURS], beside, policy=OURS, tolerance=tolerance, source=f"{PUBLISHED}, run here"),)
