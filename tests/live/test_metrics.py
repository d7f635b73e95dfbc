"""Prometheus can read what a server tells of itself, and it adds up with what clients have seen."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from slotwise.app import METRICS_PATH, LiveSystem
from tests.live.nodes import hosting
from tests.live.systems import client_of, put_emulated, serving, tensor, until

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

pytestmark = pytest.mark.live


async def scrape(system: LiveSystem, accept: str = "text/plain") -> str:
    asked = urllib.request.Request(f"http://127.0.0.1:{system.http_port}{METRICS_PATH}", headers={"accept": accept})

    def read() -> str:
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return str(reply.read().decode())

    return await asyncio.to_thread(read)


def number(families: Iterable[Metric], name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, f"no {name} with {labels}"
    return sum(found)


def test_a_scrape_tells_goodput_and_misses_by_reason_and_where_time_went(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)

    async def ask() -> tuple[str, str]:
        async with serving(tmp_path / "models") as system, client_of(system) as client:
            inputs = [tensor("x", np.ones((1, 4), np.float32))]
            for _ in range(3):
                await client.infer("quick", inputs)
            with pytest.raises(Exception, match="after its deadline"):
                await client.infer("quick", inputs, timeout=10)
            return await scrape(system), await scrape(system, OPEN_METRICS)

    plain, open_metrics = asyncio.run(ask())
    families, model = list(parse(plain)), {"model": "quick", "version": "1"}
    assert number(families, "slotwise_requests_in_time_total", **model) == 3
    assert number(families, "slotwise_misses_total", **model, reason="infeasible") == 1
    assert number(families, "slotwise_requests_total", **model) == 4
    assert number(families, "slotwise_attainment_ratio", **model) == 0.75
    assert number(families, "slotwise_request_duration_seconds_count", **model) == 3
    assert number(families, "slotwise_execution_duration_seconds_sum", **model) >= 3 * 0.002
    assert number(families, "slotwise_request_duration_seconds_bucket", **model, le="+Inf") == 3
    assert number(families, "slotwise_batches_total", **model, rows="1") == 3
    assert number(families, "slotwise_executor_up") >= 1
    assert number(families, "slotwise_executor_busy_seconds_total") >= 3 * 0.002
    assert number(families, "slotwise_model_resident", **model) >= 1
    assert number(families, "slotwise_http_replies_total", status="200") == 3
    assert number(families, "slotwise_http_replies_total", status="503") == 1
    assert number(families, "slotwise_loop_lag_seconds_count") > 3
    assert number(families, "slotwise_front_memory_bytes") > 0
    assert {family.name for family in parse_open_metrics(open_metrics)} == {family.name for family in families}
    names = {family.name for family in families}
    assert [name for name in names if not is_told(name, metrics_table())] == []


def metrics_table() -> str:
    documented = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
    return documented.partition("## Metrics")[2].partition("\n## ")[0]


def is_told(name: str, table: str) -> bool:
    """Whether a table of metrics has a name, in full or by its ending behind a longer one in the same row."""
    rows = [row for row in table.splitlines() if f"`{name}`" in row]
    for kind in ("slotwise_executor_", "slotwise_node_"):
        ending = f"`_{name.removeprefix(kind)}`"
        rows += [row for row in table.splitlines() if row.startswith(f"| `{kind}") and ending in row]
    return bool(rows)


def test_a_scrape_tells_how_each_node_stands(tmp_path: Path) -> None:
    put_emulated(tmp_path / "models", "quick", run_ms=2)

    async def ask(address: str) -> str:
        nodes = {"addresses": [f"far={address}", "gone=127.0.0.1:9"], "start_s": 0.5}
        async with serving(tmp_path / "models", nodes=nodes) as system:
            await until(lambda: any(one.bytes_per_s for one in system.node_statistics()))
            return await scrape(system)

    with hosting(tmp_path / "node", "--emulated", 2) as node:
        families = list(parse(asyncio.run(ask(node.address))))
    found = {family.name.removeprefix("slotwise_node_"): family for family in families if "_node_" in family.name}
    values = {
        (name, sample.labels["node"]): sample.value for name, family in found.items() for sample in family.samples
    }
    assert [values["up", name] for name in ("far", "gone")] == [1, 0]
    assert [values["executors_up", name] for name in ("far", "gone")] == [2, 0]
    assert values["batches_not_sent", "far"] == values["losses", "far"] == 0
    assert values["clock_error_seconds", "far"] == pytest.approx(values["round_trip_seconds", "far"] / 2, abs=1e-9)
    assert values["link_bytes_per_second", "far"] > 0
    assert values["link_backlog_bytes", "far"] >= 0
    assert ("round_trip_seconds", "gone") not in values
    assert [family.name for family in found.values() if not is_told(family.name, metrics_table())] == []
