"""What tests of the edges share: the zoo of real models, built once for all runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from slotwise.edges.zoo.build import build

ZOO = Path(__file__).parents[2] / ".zoo"


@pytest.fixture(scope="session")
def zoo_path() -> Path:
    """A repository of real models. The first run fetches them; later runs find them complete."""
    build(ZOO)
    return ZOO
