"""Loads with a file's samples: over every way they are sent in turn, and what does not fit is told before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slotwise.client.errors import BadRequest
from slotwise.client.pages import InputSpec, ServerModel
from slotwise.facts.units import S
from slotwise.load.given import InputsError, read_given
from slotwise.load.inputs import Questions
from slotwise.load.plan import Closed
from slotwise.load.report import LoadReport
from slotwise.load.requests import Requests
from slotwise.load.run import Prepared, Settings, Watcher, play
from slotwise.load.ways import Server
from slotwise.workload.values import Arrival
from tests.edges.echo import HOST, EchoController
from tests.edges.grpc.rig import opened
from tests.edges.local.rig import serving as serving_local

pytestmark = pytest.mark.live

WAYS = ("http", "grpc", "unix")
TINY = ServerModel(name="tiny", inputs=(InputSpec("x", "FP32", (-1, 2)),), slo_ns=None)
TEXT = ServerModel(name="text", inputs=(InputSpec("ids", "INT64", (2,)), InputSpec("t", "BYTES", (-1,))), slo_ns=None)


@dataclass
class Servers:
    """Where the echo is, by way, and what decides there."""

    urls: dict[str, str]
    controllers: dict[str, EchoController]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with opened() as door, serving_local(tmp_path_factory.mktemp("local") / "socket") as near:
        http = f"http://{HOST}:{door.system.port}"
        far = door.system.controller
        yield Servers(
            {"http": http, "grpc": f"grpc://{door.address}", "unix": f"unix://{near.path}"},
            {"http": far, "grpc": far, "unix": near.controller},
        )


def asked(model: str, rows: int = 1) -> Arrival:
    return Arrival(at_ns=0, model=model, slo_ns=S, rows=rows, priority=5)


def body(*tensors: tuple[str, str, list[int], list[Any]], model: str = "") -> dict[str, Any]:
    fields = ("name", "datatype", "shape", "data")
    return {"model_name": model, "inputs": [dict(zip(fields, one, strict=True)) for one in tensors]}


def arrays(path: Path, **given: Any) -> Path:
    np.savez(path / "samples.npz", **given)
    return path / "samples.npz"


def bodies(path: Path, *given: object) -> Path:
    (path / "samples.json").write_text(json.dumps(list(given)))
    return path / "samples.json"


@pytest.mark.parametrize("way", WAYS)
def test_samples_of_text_are_sent_in_turn_over_every_way_and_their_bytes_are_told(
    servers: Servers, way: str, tmp_path: Path
) -> None:
    words = [["a"], ["bc", ""], ["d\u00e9f"]]
    file = bodies(tmp_path, *(body(("t", "BYTES", [len(texts)], texts)) for texts in words))
    prepared: list[Prepared] = []
    settings = Settings(
        server=Server(url=servers.urls[way], pages_url=servers.urls["http"] if way == "unix" else ""),
        models=("text",),
        slo_ns=60 * S,
        inputs=file,
    )
    seen = len(servers.controllers[way].requests)

    async def load() -> LoadReport:
        watcher = Watcher(prepared=prepared.append, look=lambda _: None)
        return await play(settings, Closed(concurrency=1, requests_max=7), watcher, asyncio.Event())

    report = asyncio.run(load())
    sizes = [5, 10, 8]
    assert [one.inputs[0].nbytes for one in servers.controllers[way].requests[seen:]] == [*sizes, *sizes, 5]
    assert report.total.in_time == 7
    (told,) = report.inputs
    assert told == prepared[0].given[0]
    assert (told.model, told.samples, told.bytes_min, told.bytes_mean, told.bytes_max) == ("text", 3, 5, 7.7, 10)


def test_each_model_has_its_own_turn_and_a_sample_is_made_once() -> None:
    made: list[tuple[str, int]] = []

    def make(arrival: Arrival, sample: int) -> str:
        made.append((arrival.model, sample))
        return f"{arrival.model}{sample}"

    requests = Requests(make, len, {"a": 2, "b": 3}.__getitem__)
    assert [requests.of(asked(model)) for model in "aababba"] == ["a0", "a1", "b0", "a0", "b1", "b2", "a1"]
    assert len(made) == 5


def test_the_first_axis_of_an_array_counts_samples_with_the_batch_or_beside_it(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    given = read_given(arrays(tmp_path, x=x), [TINY])
    assert given.count("tiny") == 3
    np.testing.assert_array_equal(given.inputs("tiny", 1)["x"], x[1:2])
    pairs = read_given(arrays(tmp_path, x=np.stack([x, x + 1])), [TINY])
    assert pairs.count("tiny") == 2
    np.testing.assert_array_equal(pairs.inputs("tiny", 1)["x"], x + 1)


def test_an_array_of_a_models_own_comes_before_one_for_all(tmp_path: Path) -> None:
    other = ServerModel(name="other", inputs=TINY.inputs, slo_ns=None)
    x = np.zeros((4, 2), np.float32)
    given = read_given(arrays(tmp_path, **{"x": x, "other:x": x[:1] + 1}), [TINY, other])
    assert (given.count("tiny"), given.count("other")) == (4, 1)
    assert given.inputs("other", 0)["x"][0, 0] == 1.0


def test_text_of_arrays_goes_as_bytes(tmp_path: Path) -> None:
    file = arrays(tmp_path, ids=np.zeros((2, 2), np.int64), t=np.array([["\u00e4", "b"], ["c", "dd"]]))
    given = read_given(file, [TEXT])
    assert given.inputs("text", 1)["t"].tolist() == ["c", "dd"]
    given.count("text")
    assert (given.reports()[0].bytes_min, given.reports()[0].bytes_max) == (16 + 8 + 3, 16 + 8 + 3)


def test_bodies_may_be_one_models_or_everybodys(tmp_path: Path) -> None:
    other = ServerModel(name="other", inputs=TINY.inputs, slo_ns=None)
    one, two = body(("x", "FP32", [1, 2], [1, 2])), body(("x", "FP32", [2, 2], [[3, 4], [5, 6]]), model="other")
    given = read_given(bodies(tmp_path, one, two), [TINY, other])
    assert (given.count("tiny"), given.count("other")) == (1, 2)
    assert given.inputs("other", 1)["x"].tolist() == [[3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"y": np.zeros((2, 2))}, "no model takes 'y'; inputs are "),
        ({"x": np.zeros((2, 2))}, "tiny: input 'x' is FP64, and FP32 is taken; convert it"),
        ({"x": np.zeros((2, 3), np.float32)}, r"tiny: a sample of input 'x' has the shape \[1, 3\], which \[-1, 2\]"),
        ({"x": np.zeros((0, 2), np.float32)}, "0 samples for tiny"),
        ({"x": np.float32(1)}, "'x' is one value; its first axis should count samples"),
        ({"x": np.array([["a"]], dtype=object)}, "'x' cannot be read: it holds Python objects; texts are stored"),
        ({"tiny:z": np.zeros(1)}, "no model takes 'tiny:z'"),
        ({}, "tiny: no array 'x'"),
    ],
)
def test_arrays_that_do_not_fit_are_told_with_file_model_and_tensor(
    tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    file = arrays(tmp_path, **given)
    with pytest.raises(InputsError, match=f"samples.npz: .*{words}"):
        read_given(file, [TINY]).count("tiny")


def test_inputs_of_a_model_have_as_many_samples_each(tmp_path: Path) -> None:
    file = arrays(tmp_path, ids=np.zeros((2, 2), np.int64), t=np.array(["a", "b", "c"]))
    with pytest.raises(InputsError, match="text: inputs have different numbers of samples: 2 of 'ids', 3 of 't'"):
        read_given(file, [TEXT]).count("text")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (body(("x", "FP64", [1, 2], [1, 2])), "tiny, body 0: input 'x' is FP64, and FP32 is taken"),
        (body(("x", "FP32", [1, 2], [1, 2, 3])), "tiny, body 0: input 'x' has 3 values for a shape of 2"),
        (body(("x", "FP32", [1, 2], ["a", "b"])), "tiny, body 0: input 'x' has data of the wrong kind"),
        (body(("y", "FP32", [1, 2], [1, 2])), "tiny, body 0: input 'y' is not one of x"),
        (body(), "tiny, body 0: input 'x' is missing"),
        (body(("x", "FP32", [1, 2], [1, 2]), model="nobody"), "body 0 is for 'nobody', which is not asked"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}]}, "tiny, body 0: input 'x' has no data"),
        ({"outputs": []}, "is no list of bodies of requests"),
    ],
)
def test_bodies_that_do_not_fit_are_told_with_file_model_and_tensor(tmp_path: Path, given: object, words: str) -> None:
    file = bodies(tmp_path, given)
    with pytest.raises(InputsError, match=f"samples.json:? .*{words}"):
        read_given(file, [TINY]).count("tiny")


def test_what_is_no_file_of_inputs_is_told(tmp_path: Path) -> None:
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(2))
    with pytest.raises(InputsError, match=r"one.npz is no .npz file"):
        read_given(tmp_path / "one.npz", [TINY])
    for name, words in (("a.txt", "neither a .npz"), ("a.npz", "is no .npz file"), ("a.json", "is no list of bodies")):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(InputsError, match=words):
            read_given(tmp_path / name, [TINY])


def test_a_workload_of_several_rows_does_not_fit_samples_of_a_file(tmp_path: Path) -> None:
    given = read_given(arrays(tmp_path, x=np.zeros((3, 2), np.float32)), [TINY])
    questions = Questions([TINY], {}, seed=1, margin_ns=0, given=given)
    with pytest.raises(BadRequest, match="asks 2 rows of tiny at once"):
        questions.of(asked("tiny", rows=2))
