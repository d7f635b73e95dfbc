"""What the scripts share that run in a client's own environment: a step is done or it has failed, and both are told.

Nothing of ours is imported here; each step is told as a line of JSON on standard output.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable


def attempt(what: str, step: Callable[[], object]) -> None:
    """Take a step and tell what came of it; what it returns is said, if anything."""
    try:
        outcome, is_well = str(step() or "done"), True
    except Exception as error:  # noqa: BLE001  # whatever a client raises is what is to be told
        traceback.print_exc()
        outcome, is_well = f"{type(error).__name__}: {error}"[:300], False
    print(json.dumps({"what": what, "outcome": outcome, "is_well": is_well}), flush=True)


def same(found: object, expected: object) -> None:
    """Fail where two things are not equal."""
    if found != expected:
        raise AssertionError(f"{found!r} in place of {expected!r}")


def ports() -> tuple[int, int]:
    """The server's ports for HTTP and gRPC, as the script was told."""
    return int(sys.argv[1]), int(sys.argv[2])
