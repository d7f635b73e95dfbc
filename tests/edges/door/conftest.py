"""A door of moderate limits before an engine that echoes, one for each module, and a bare socket to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import WaitUntil
from tests.edges.echo import System, serving
from tests.edges.wire import LIMITS, Wire


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with serving(LIMITS, arena_bytes=512 << 20) as found:
        yield found


@pytest.fixture(autouse=True)
def all_regions_come_back(request: pytest.FixtureRequest, wait_until: WaitUntil) -> Iterator[None]:
    """Whatever a client does, the shared memory it took is given back."""
    yield
    if "system" in request.fixturenames:
        found: System = request.getfixturevalue("system")
        wait_until(lambda: not found.arena.held)


@pytest.fixture
def wire(system: System) -> Iterator[Wire]:
    with Wire(system.address) as client:
        yield client
