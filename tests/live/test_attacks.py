"""One server, every door open, and what hostile clients send: each is told no, it is logged, and others are served.

The table in docs/security.md names these tests. What once found a fault by chance is sent again too.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import socket
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from onnx import ModelProto, TensorProto

from fuzz.server import HOST, Server, model_bytes, private_bytes, put_model
from fuzz.target import kept
from fuzz.targets import LIVE, make_live
from fuzz.targets.wire import LAST, Replies, get, post
from slotwise.edges.local import frames
from slotwise.edges.oip.grpc import inference_pb2 as pb
from tests.conftest import WaitUntil
from tests.edges.local.rig import Bare

pytestmark = pytest.mark.live

INFER = "/v2/models/plain/infer"
NOBODY = pb.ModelInferRequest(model_name="nobody").SerializeToString()
WAIT_S_MAX = 20.0
ROUNDS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def others_are_served(server: Server) -> Iterator[None]:
    """After each attack a good request is answered right, and nobody has seen a traceback."""
    yield
    server.check()


def statuses(server: Server, data: bytes) -> list[int]:
    """What is answered to bytes on a connection, until the server closes it."""
    replies = Replies()
    with socket.create_connection((HOST, server.http_port), WAIT_S_MAX) as connection:
        connection.sendall(data)
        while received := connection.recv(1 << 16):
            replies.feed(received)
    return replies.statuses


def refused(server: Server) -> list[dict[str, str]]:
    """The rows of the log of refusals, so far."""
    files = sorted((server.folder / "logs").glob("refused-*.csv"))
    return [row for file in files for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())]


def metrics(server: Server) -> str:
    with urllib.request.urlopen(f"http://{HOST}:{server.http_port}/metrics", timeout=WAIT_S_MAX) as reply:
        text: str = reply.read().decode()
        return text


# What may be read as two requests by one reader and as one by another

SMUGGLED = b"GET /v2/smuggled HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Content-Length: 5, 5",
        b"Content-Length: 5 5",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length: ",
        b"Content-Length : 5",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\x0bchunked",
        b"X: a\r\n\tb: c\r\n folded\x00",
        b"X: a\rContent-Length: 5",
    ],
)
def test_a_request_whose_end_is_in_doubt_is_refused_and_nothing_behind_it_is_read(
    server: Server, headers: bytes
) -> None:
    start = b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: here\r\n"
    found = statuses(server, start + headers + b"\r\n\r\n0\r\n\r\n" + SMUGGLED)
    assert found in ([400], [413]), found


@pytest.mark.parametrize("chunk", [b"-1", b"0x1", b"1 1", b"ffffffffffffffffff", b"", b"g"])
def test_a_chunk_whose_size_is_no_number_ends_the_connection(server: Server, chunk: bytes) -> None:
    start = b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert statuses(server, start + chunk + b"\r\n{\r\n0\r\n\r\n" + SMUGGLED) == [400]


@pytest.mark.parametrize("target", [b"/\xff", b"/none?\xff", b"http://here", b"//[", b"*?\x80"])
def test_a_target_that_is_no_url_is_refused(server: Server, target: bytes) -> None:
    assert statuses(server, get(target) + LAST)[0] in (400, 404)


# Sizes that do not mean what they say


@pytest.mark.parametrize(
    "shape",
    [
        [(1 << 62) - 1, 4],
        [1 << 62, 4],
        [1 << 64, 4],
        [-1, 4],
        [-(1 << 63), -4],
        [1 << 32, 1 << 32],
        [0, 4],
        [1, 4, (1 << 62) - 1],
        [1.0, 4],
        ["1", 4],
        [1] * 100_000,
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["json", "binary", "region"])
def test_a_shape_that_cannot_be_is_refused(server: Server, shape: list[object], how: str) -> None:
    given: dict[str, object] = {"name": "x", "datatype": "FP32", "shape": shape}
    if how == "json":
        given["data"] = [1, 2, 3, 4]
    elif how == "binary":
        given["parameters"] = {"binary_data_size": 16}
    else:
        given["parameters"] = {"shared_memory_region": "r", "shared_memory_byte_size": 16}
    head = json.dumps({"inputs": [given]}).encode()
    more = (b"Inference-Header-Content-Length: %d" % len(head), b"Connection: close")
    assert statuses(server, post(INFER.encode(), head + bytes(16), *more)) == [400]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\xffabc",
        b"\x01\x00\x00",
        b"\x05\x00\x00\x00abc",
        b"\x00\x00\x00\x00" * 3,
        b"\x01\x00\x00\x00a\xff\xff\xff\x7f",
        b"\x00\x00\x00\x80",
        b"\x01\x00\x00\x00a\x01\x00\x00\x00\xff",
    ],
)
def test_a_string_that_lies_about_its_length_or_is_no_text_is_refused(server: Server, data: bytes) -> None:
    given = {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [given]}).encode()
    more = (b"Inference-Header-Content-Length: %d" % len(head), b"Connection: close")
    assert statuses(server, post(b"/v2/models/text/infer", head + data, *more)) == [400]
    request = pb.ModelInferRequest(model_name="text", raw_input_contents=[data])
    request.inputs.add(name="x", datatype="BYTES", shape=[2])
    assert grpc_status(server, "ModelInfer", request.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT


def test_json_beyond_its_limit_is_told_to_come_as_binary_data(server: Server) -> None:
    status, said = server.post(INFER, b'{"inputs":[' + b" " * (1 << 20) + b"]}")
    assert (status, "limit" in str(said["error"])) == (413, True)


# Files of the server's machine

PATHS = ("../secret", "..%2fsecret", "%2e%2e", ".", "..", "%2fetc%2fpasswd", "a%00b", "a%0d%0ab", "%ff", "~", "a%5cb")


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("verb", ["load", "unload"])
def test_a_path_that_leads_elsewhere_is_no_model(server: Server, name: str, verb: str) -> None:
    status, said = server.post(f"/v2/repository/models/{name}/{verb}")
    assert status in (400, 404)
    assert str(server.folder) not in str(said)
    assert server.get(f"/v2/models/{name}")[0] in (400, 404)


def test_a_link_out_of_the_repository_is_not_followed(server: Server, tmp_path: Path) -> None:
    put_model(tmp_path / "secret" / "1", model_bytes("FP32", ["batch", 4]))
    (server.models / "linked").symlink_to(tmp_path / "secret")
    (server.models / "partly" / "1").mkdir(parents=True)
    (server.models / "partly" / "1" / "model.onnx").symlink_to(tmp_path / "secret" / "1" / "model.onnx")
    for name in ("linked", "partly"):
        status, said = server.post(f"/v2/repository/models/{name}/load")
        assert (status, "leads out" in str(said["error"])) == (400, True)
        assert str(server.folder) not in str(said)


@pytest.mark.parametrize("location", ["../../../secret", "{secret}", "link"])
def test_weights_that_lie_outside_of_a_model_are_not_read(server: Server, tmp_path: Path, location: str) -> None:
    secret = server.folder / "secret"
    secret.write_bytes(b"SECRET-SECRET-16")
    folder = server.models / "outside" / "1"
    put_model(folder, with_weights_at(location.format(secret=secret)))
    if not (folder / "link").is_symlink():
        (folder / "link").symlink_to(secret)
    status, said = server.post("/v2/repository/models/outside/load")
    assert status == 400
    assert "SECRET" not in str(said)
    (folder / "link").unlink()


def with_weights_at(location: str) -> bytes:
    """A model that says of a weight that it lies in another file."""
    model = ModelProto.FromString(model_bytes("FP32", ["batch", 4]))
    weight = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=text)
    del model.graph.node[:]
    model.graph.node.add(op_type="Mul", input=["x", "w"], output=["y"])
    content: bytes = model.SerializeToString()
    return content


def test_a_folder_whose_name_is_no_text_stands_in_the_index_and_breaks_nothing(server: Server) -> None:
    folder = server.models / os.fsdecode(b"bad\xff\nname")
    folder.mkdir()
    try:
        assert server.post("/v2/repository/models/none/load")[0] == 400
        assert server.post("/v2/repository/index")[0] == 200
    finally:
        folder.rmdir()


# Names and texts that a reader might take for something else

NASTY = ("a\r\nX-Evil: 1", 'a"} 1\nslotwise_evil{x="', "=cmd|' /C calc'!A0", "\x1b[31mred", "\u202edlrow", "a" * 5000)


@pytest.mark.parametrize("text", NASTY)
def test_a_text_of_a_client_is_a_text_in_answers_logs_and_metrics(
    server: Server, text: str, wait_until: WaitUntil
) -> None:
    body = {"id": text, "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    body["parameters"] = {"timeout": 20_000_000}
    request = urllib.request.Request(f"http://{HOST}:{server.http_port}{INFER}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=WAIT_S_MAX) as reply:
        assert json.loads(reply.read())["id"] == text
        assert {name.lower() for name in reply.headers} == {"date", "content-type", "content-length", "connection"}
    before = len(refused(server))

    def is_logged() -> bool:
        """Rows are few a second, so it is asked again until there is room for them."""
        assert server.get(f"/v2/models/{quote(text, safe='')}")[0] == 404
        assert server.post(f"/v2/models/{quote(text, safe='')}/infer", b"{}")[0] == 404
        return len(refused(server)) >= before + 2

    wait_until(is_logged)
    for row in refused(server):
        assert None not in row
        assert all(found.isprintable() and found.isascii() and len(found) <= 201 for found in row.values())
        assert not any(found.startswith(("=", "+", "-", "@")) for found in row.values())
    assert "evil" not in metrics(server)
    assert all(re.fullmatch(r"(#.*|\w+(\{[^{}]*\})? \S+)", line) for line in metrics(server).splitlines())


def test_two_requests_of_one_id_have_each_its_own_answer(server: Server) -> None:
    def asking(number: float) -> bytes:
        given = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [number] * 4}
        body = {"id": "same", "inputs": [given], "parameters": {"timeout": 20_000_000}}
        return post(INFER.encode(), json.dumps(body).encode())

    with socket.create_connection((HOST, server.http_port), WAIT_S_MAX) as connection:
        connection.sendall(asking(1) + asking(2) + asking(3) + LAST)
        said = b""
        while received := connection.recv(1 << 16):
            said += received
    found = re.findall(rb'"data":\[([\d.]+)[^{}]*}],"id":"same"', said)
    assert [float(number) for number in found] == [1, 2, 3]


# What is turned away is known


def grpc_status(server: Server, method: str, raw: bytes) -> grpc.StatusCode:
    with grpc.insecure_channel(f"{HOST}:{server.grpc_port}") as channel:
        try:
            channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(raw, timeout=WAIT_S_MAX)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined,no-any-return]  # such an error is a call as well
    return grpc.StatusCode.OK


def test_every_door_counts_and_logs_what_it_turns_away(server: Server, wait_until: WaitUntil) -> None:
    expected = [
        ("http", "400", "plain/1"),
        ("http", "404", "/v2/none"),
        ("grpc", "400", "ModelInfer"),
        ("grpc", "404", "nobody"),
        ("grpc", "501", "/v2/cudasharedmemory/region/r/register"),
        ("grpc", "404", "/v2/models/nobody"),
        ("local", "404", "nobody"),
    ]

    def is_logged() -> bool:
        be_refused(server)
        return {(row["door"], row["status"], row["target"]) for row in refused(server)} >= set(expected)

    wait_until(is_logged)
    text = metrics(server)
    for door, status, _ in expected:
        assert re.search(
            rf'^slotwise_refusals_total{{door="{door}",reason="\w+",status="{status}"}} [1-9]', text, re.MULTILINE
        )


def test_what_the_server_refuses_of_grpc_is_counted_once_and_logged_with_who_asked(
    server: Server, wait_until: WaitUntil
) -> None:
    def counted(status: int) -> float:
        pattern = rf'^slotwise_refusals_total{{door="grpc",reason="\w+",status="{status}"}} (\S+)'
        return sum(float(found) for found in re.findall(pattern, metrics(server), re.MULTILINE))

    unknown, broken = counted(404), counted(400)
    assert grpc_status(server, "ModelInfer", NOBODY) is grpc.StatusCode.NOT_FOUND
    assert grpc_status(server, "ModelInfer", b"\xff") is grpc.StatusCode.INVALID_ARGUMENT
    wait_until(lambda: counted(400) > broken)  # told by the gRPC door, which would by now have told of the other
    assert counted(404) == unknown + 1

    def is_logged() -> bool:
        grpc_status(server, "ModelInfer", NOBODY)
        return any(row["target"] == "nobody" and row["peer"].startswith("ipv4:127.0.0.1:") for row in refused(server))

    wait_until(is_logged)
    assert ("404", "ModelInfer") not in {(row["status"], row["target"]) for row in refused(server)}


def be_refused(server: Server) -> None:
    """Ask every door for what it refuses."""
    assert server.post(INFER, b"no json")[0] == 400
    assert server.get("/v2/none")[0] == 404
    assert grpc_status(server, "ModelInfer", b"\xff") is grpc.StatusCode.INVALID_ARGUMENT
    assert grpc_status(server, "ModelInfer", NOBODY) is grpc.StatusCode.NOT_FOUND
    region = pb.CudaSharedMemoryRegisterRequest(name="r", byte_size=1).SerializeToString()
    assert grpc_status(server, "CudaSharedMemoryRegister", region) is grpc.StatusCode.UNIMPLEMENTED
    request = pb.ModelMetadataRequest(name="nobody").SerializeToString()
    assert grpc_status(server, "ModelMetadata", request) is grpc.StatusCode.NOT_FOUND
    with Bare(server.local) as client:
        client.hello()
        client.say(frames.Ask(1, "nobody", "", ()))
        assert client.refusal().status == 404


def test_a_flood_of_refusals_is_counted_in_full_and_logged_in_part(server: Server, wait_until: WaitUntil) -> None:
    def counted() -> int:
        found = re.findall(r"^slotwise_refusals_total\S+http\S+ (\S+)", metrics(server), re.MULTILINE)
        return int(sum(float(number) for number in found))

    before, rows_before = counted(), len(refused(server))
    flood = get(b"/v2/flood") * 1000 + LAST
    assert statuses(server, flood) == [404] * 1000 + [200]
    assert counted() == before + 1000
    wait_until(lambda: server.get("/v2/after") and any(row["target"] == "/v2/after" for row in refused(server)))
    assert len(refused(server)) - rows_before < 300
    assert sum(int(row["left_out"]) for row in refused(server)) > 500


@pytest.mark.parametrize("name", LIVE)
def test_what_once_found_a_fault_finds_none(server: Server, name: str) -> None:
    target = make_live(name, server)
    for data in [*target.seeds(), *kept(name)]:
        target.run(data)
    target.check()


def test_a_head_without_an_end_and_a_length_that_never_comes_are_cut_off(server: Server) -> None:
    start = b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: here\r\n"
    assert statuses(server, start + b"Content-Length: 100\r\n\r\n{") == [408]
    assert statuses(server, start + b"X: y\r\n" * 10) == [408]
    assert statuses(server, start + b"X: y\r\n" * 4000) == [431]


def test_numbers_that_are_none_in_a_message_are_refused(server: Server) -> None:
    for shape in ([-1, 4], [1 << 62, 4], [(1 << 63) - 1, 2]):
        request = pb.ModelInferRequest(model_name="plain", raw_input_contents=[struct.pack("<4f", 1, 2, 3, 4)])
        request.inputs.add(name="x", datatype="FP32", shape=shape)
        assert grpc_status(server, "ModelInfer", request.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT


def test_what_is_refused_is_not_held(server: Server) -> None:
    """Whatever an error has seen goes with it at once, and is not left to a collector that comes seldom."""
    _, said = server.get("/v2/slotwise/status")
    pids = (server.process.pid, int(said["grpc"]["pid"]))  # type: ignore[call-overload]  # as the status route has it
    bomb, long = gzip.compress(bytes(2 << 20)), b"[" + b" " * 900_000
    before = [private_bytes(pid) for pid in pids]
    for _ in range(ROUNDS):
        found = statuses(server, post(INFER.encode(), bomb, b"Content-Encoding: gzip"))
        found += statuses(server, post(b"/v2/repository/index", long, b"Connection: close"))
        assert found == [413, 400]
        assert grpc_status(server, "ModelInfer", b"\xff" * 900_000) is grpc.StatusCode.INVALID_ARGUMENT
    grown = [private_bytes(pid) - then for pid, then in zip(pids, before, strict=True)]
    assert max(grown) < ROUNDS * 900_000 // 2
