"""A local door of moderate limits before an engine that echoes, one for each module, and a bare socket to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slotwise.edges.local.limits import LocalLimits
from tests.conftest import WaitUntil
from tests.edges.local.rig import Bare, LocalSystem, serving

LIMITS = LocalLimits(
    connections_max=4, requests_max=8, memory_bytes_max=64 << 20, outputs_bytes=1 << 20, frame_bytes_max=4096
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    with serving(tmp_path_factory.mktemp("local") / "socket", LIMITS) as found:
        yield found


@pytest.fixture(autouse=True)
def all_comes_back(request: pytest.FixtureRequest, wait_until: WaitUntil) -> Iterator[None]:
    """Whatever a client does, what it took is given back, and its connection is forgotten."""
    yield
    if "system" in request.fixturenames:
        found: LocalSystem = request.getfixturevalue("system")
        wait_until(
            lambda: not found.clients and not found.in_flight and not found.arena.held and not found.memories.shared
        )


@pytest.fixture
def bare(system: LocalSystem) -> Iterator[Bare]:
    with Bare(system.path) as client:
        yield client
