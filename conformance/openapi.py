"""Requests made out of docs/openapi.yaml by schemathesis, sound ones and broken ones, against our server.

For the run the description is narrowed: models, versions, regions and keys are those that there are, and one of each
that there is not, so that requests come past the first 404.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import msgspec
import yaml
from peers.environment import Environment, prepare

from conformance.clients import WORDS_LEN, Ran
from conformance.exchange import Json
from conformance.http_cases import KEY, KEY_BYTES
from conformance.models import MODELS
from conformance.page import Run
from conformance.servers import CLIENTS, Server, ours

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "openapi.yaml"
CLIENT = "schemathesis"
EXAMPLES_EACH = 200
SEED = 1
RUN_S_MAX = 1200
NOBODY = "nobody"
THERE_ARE: Mapping[str, list[Json]] = {
    "name": [*(model.name for model in MODELS), NOBODY],
    "version": ["1", "9"],
    "region": ["mine", NOBODY],
}
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 503]

[[operations]]
include-path-regex = "/region/"
checks.negative_data_rejection.enabled = false
"""
"""501 and 503 are told on purpose, with what to do; and whatever stands in a path for a region is a name."""
LEFT_OUT = "positive_data_acceptance"
"""A description cannot say which tensors a model takes, so a sound request may still be a 400."""


class _Cases(msgspec.Struct):
    generated: int
    without_checks: int


class _Operations(msgspec.Struct):
    tested: int


class _Failure(msgspec.Struct):
    title: str
    operations: list[str]


class _Document(msgspec.Struct):
    """What is read of its report."""

    complete: bool
    operations: _Operations
    test_cases: _Cases
    failures: list[_Failure]
    errors: list[msgspec.Raw]


def run() -> Ran:
    """Install it, run it, read its report. Raises NotHere."""
    environment = prepare(CLIENTS, CLIENT, ("schemathesis==4.32.0",))
    memory = SharedMemory(KEY, create=True, size=KEY_BYTES)
    try:
        with tempfile.TemporaryDirectory() as name, ours(Path(name)) as server:
            runs = _checked(environment, server, Path(name))
    finally:
        memory.close()
        memory.unlink()
    return Ran({CLIENT: environment.installed.version}, runs)


def _checked(environment: Environment, server: Server, folder: Path) -> list[Run]:
    (folder / "openapi.json").write_text(json.dumps(_narrowed()))
    (folder / "schemathesis.toml").write_text(SETTINGS)
    command = [environment.program("schemathesis"), "--config-file", str(folder / "schemathesis.toml"), "run"]
    command += [str(folder / "openapi.json"), "--url", f"http://127.0.0.1:{server.http_port}", "--no-shrink"]
    command += ["--max-examples", str(EXAMPLES_EACH), "--seed", str(SEED), "--continue-on-failure"]
    command += ["--phases", "coverage,fuzzing", "--exclude-checks", LEFT_OUT]
    command += ["--report", "json", "--report-json-path", str(folder / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX, cwd=folder, check=False)
    print(done.stdout[done.stdout.find("=== FAILURES") :] if done.returncode else "", flush=True)
    if not (folder / "report.json").exists():
        return [Run(CLIENT, "the run", (done.stderr or done.stdout)[-WORDS_LEN:], is_well=False)]
    return _runs(msgspec.json.decode((folder / "report.json").read_bytes(), type=_Document))


def _runs(document: _Document) -> list[Run]:
    told = f"{document.test_cases.generated} requests to {document.operations.tested} operations"
    is_whole = document.complete and not document.errors
    runs = [Run(CLIENT, told, "the run is complete" if is_whole else f"{len(document.errors)} errors", is_whole)]
    runs += [Run(CLIENT, one.title, ", ".join(one.operations), is_well=False) for one in document.failures]
    if not document.failures:
        runs.append(Run(CLIENT, "its checks, but for `positive_data_acceptance`", "nothing found", is_well=True))
    return runs


def _narrowed() -> dict[str, object]:
    """The description with the names that there are in the place of any text, and small tensors."""
    document = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    for name, there_are in THERE_ARE.items():
        document["components"]["parameters"][name]["schema"] = {"enum": there_are}
    schemas = document["components"]["schemas"]
    schemas["Region"]["properties"]["key"] = {"enum": [KEY, "/slotwise-nobody"]}
    tensor = schemas["Input"]["properties"]
    tensor["name"] = {"enum": [given.name for model in MODELS for given in model.inputs]}
    tensor["shape"] = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 4}, "maxItems": 3}
    return document  # type: ignore[no-any-return]  # an object, as its first line says
