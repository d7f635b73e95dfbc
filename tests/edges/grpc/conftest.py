"""One door for each module, and the standard client, unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tritonclient.grpc as triton

from tests.conftest import WaitUntil
from tests.edges.grpc.rig import Door, opened


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with opened() as found:
        yield found


@pytest.fixture
def client(door: Door) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(door.address) as found:
        yield found


@pytest.fixture(autouse=True)
def all_regions_come_back(request: pytest.FixtureRequest, wait_until: WaitUntil) -> Iterator[None]:
    """Whatever a client does, the shared memory it took is given back."""
    yield
    if "door" in request.fixturenames:
        found: Door = request.getfixturevalue("door")
        wait_until(lambda: not found.system.arena.held)
