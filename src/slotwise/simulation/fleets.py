"""Fleets to simulate with: devices of a known kind, by number."""

from __future__ import annotations

from slotwise.facts.units import US
from slotwise.sim.fleet import FleetSettings, Noise, SimSlice

CLOCKWORK_PAGE_BYTES = 16 << 20
CLOCKWORK_PAGES = 1376
"""What Clockwork keeps for weights of a GPU with 32 GB: 23,085,449,216 bytes; a ResNet50 takes 7 of these pages."""
CLOCKWORK_LINK_NS = 500 * US
"""From controller to worker, one way, over a data centre's network."""
EXACT = Noise()
"""Every run takes what its profile says."""


def clockwork_fleet(
    devices: int,
    *,
    pages: int = CLOCKWORK_PAGES,
    link_ns: int = CLOCKWORK_LINK_NS,
    link_spread: float = 0.0,
    noise: Noise = EXACT,
    slowness: float = 1.0,
) -> FleetSettings:
    """So many of the GPUs of Clockwork's paper, `gpu0` and so on, each one executor with pages of 16 MiB."""
    return FleetSettings(
        slices=tuple(
            SimSlice(
                executor=f"gpu{index}",
                memory_bytes=pages * CLOCKWORK_PAGE_BYTES,
                page_bytes=CLOCKWORK_PAGE_BYTES,
                slowness=slowness,
            )
            for index in range(devices)
        ),
        link_ns=link_ns,
        link_spread=link_spread,
        is_far=True,
        noise=noise,
    )
