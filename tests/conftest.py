"""What every test shares: how to wait for something, and settings of the property tests.

No test sleeps and hopes. What happens in another process or thread is waited for with `wait_until`,
whose limit is far above what even a very busy machine needs, so that only a real fault reaches it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

SOURCES = Path(__file__).parent.parent / "src"
WAIT_S_MAX = 60.0
POLL_S = 0.005

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # the runtime would start a thread that reports home

# A machine shared with others is slow at times, so no example has a deadline; in CI the examples are always the same.
settings.register_profile("slotwise", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("slotwise")


def pytest_configure() -> None:
    """Compiled modules take precedence over their sources; older ones would be tested in the place of these."""
    stale = [path for path in SOURCES.rglob("*.so") if path.stat().st_mtime < _source(path).stat().st_mtime]
    if stale:
        raise pytest.UsageError(f"{_source(stale[0])} was edited after it was compiled: run `make compiled`")


def _source(compiled: Path) -> Path:
    source = compiled.with_name(compiled.name.partition(".")[0] + ".py")
    return source if source.exists() else compiled  # what they share has none


WaitUntil = Callable[[Callable[[], object]], None]


@pytest.fixture
def wait_until() -> WaitUntil:
    """Wait for a condition of the outside world to come true; fails after a minute."""
    return _wait_until


def _wait_until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < end_s, f"waited {WAIT_S_MAX:.0f} s in vain"
        time.sleep(POLL_S)
