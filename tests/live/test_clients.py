"""The standard client's every call, unchanged, in a process of its own, against a whole server with real models."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from conformance.models import put_ours
from slotwise.edges.traces.recorder import has_library
from tests.live.systems import serving
from tests.repo.tree import ROOT

SCRIPT = ROOT / "conformance" / "scripts" / "use_tritonclient.py"
TRACES = "trace settings"
COLLECTOR = {"endpoint": "http://127.0.0.1:9/v1/traces", "answer_s_max": 0.1}
SCRIPT_S_MAX = 120.0


async def steps_of(root: Path) -> list[dict[str, object]]:
    settings = {"traces": COLLECTOR} if has_library() else {}
    logs = {"folder": str(root.parent / "logs")}
    async with serving(root, grpc=True, grpc_port=0, door={"shared_memory": True}, logs=logs, **settings) as system:
        assert system.grpc is not None
        words = [str(SCRIPT), str(system.http_port), str(system.grpc.port)]
        script = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
        said, _ = await asyncio.wait_for(script.communicate(), SCRIPT_S_MAX)
        assert script.returncode == 0
        return [json.loads(line) for line in said.splitlines()]


@pytest.mark.live
@pytest.mark.slow
def test_every_call_of_the_standard_client_is_answered_as_it_expects(tmp_path: Path) -> None:
    put_ours(tmp_path / "models")
    steps = asyncio.run(steps_of(tmp_path / "models"))
    failed = {str(step["what"]): step["outcome"] for step in steps if not step["is_well"]}
    if not has_library():
        failed = {what: outcome for what, outcome in failed.items() if not what.endswith(TRACES)}
    assert failed == {}
    assert len(steps) > 20
