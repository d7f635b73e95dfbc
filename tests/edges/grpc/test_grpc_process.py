"""The door's process: it comes back when it dies, and ends in peace when it is told to."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from slotwise.edges.oip.grpc.keeper import GrpcDoorError
from slotwise.edges.oip.tls import Tls
from tests.certificates import self_signed
from tests.conftest import WaitUntil
from tests.edges.echo import HOST
from tests.edges.grpc.rig import ROW, Door, Stream, opened, tensor

pytestmark = [pytest.mark.live, pytest.mark.slow]


def is_answering(door: Door) -> bool:
    with triton.InferenceServerClient(door.address) as client:
        try:
            return bool(client.infer("echo", [tensor("x", "FP32", ROW)]))
        except InferenceServerException:
            return False


def is_draining(channel: grpc.Channel) -> bool:
    checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return bool(checked.status == health_pb2.HealthCheckResponse.NOT_SERVING)


def test_a_door_that_is_killed_comes_back_on_the_same_port(door: Door, wait_until: WaitUntil) -> None:
    port = door.keeper.port
    for _ in range(3):
        pid, restarts = door.keeper.pid, door.keeper.restarts
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda before=restarts: door.keeper.restarts > before and door.keeper.pid is not None)
        wait_until(lambda: is_answering(door))
        assert door.keeper.pid != pid
    assert door.keeper.port == port


def test_the_requests_of_a_door_that_is_killed_are_cancelled(door: Door, wait_until: WaitUntil) -> None:
    controller = door.system.controller
    wait_until(lambda: is_answering(door))
    with triton.InferenceServerClient(door.address) as client, ThreadPoolExecutor() as threads:
        asked = threads.submit(client.infer, "silent", [tensor("x", "FP32", ROW)])
        wait_until(lambda: controller.silent)
        (waiting,) = controller.silent
        pid = door.keeper.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InferenceServerException) as broken:
            asked.result()
    assert broken.value.status() == "StatusCode.UNAVAILABLE"
    wait_until(lambda: waiting in controller.cancelled)


def test_a_door_that_drains_says_so_and_answers_what_is_under_way(wait_until: WaitUntil) -> None:
    with opened() as door, grpc.insecure_channel(door.address) as channel, ThreadPoolExecutor() as threads:
        pid = door.keeper.pid
        with triton.InferenceServerClient(door.address) as client:
            asked = threads.submit(client.infer, "silent", [tensor("x", "FP32", ROW)])
            wait_until(lambda: door.system.controller.silent)
            stopped = threads.submit(door.stop)
            wait_until(lambda: is_draining(channel))
            with pytest.raises(InferenceServerException, match="shutting down") as refused:
                client.infer("echo", [tensor("x", "FP32", ROW)])
            assert refused.value.status() == "StatusCode.UNAVAILABLE"
            door.system.release()
            assert asked.result().as_numpy("x").tolist() == ROW.tolist()
        stopped.result()
        assert door.keeper.pid is None
        assert not Path(f"/proc/{pid}").exists()


def test_a_stream_is_told_that_the_door_closes(wait_until: WaitUntil) -> None:
    with opened() as door, grpc.insecure_channel(door.address) as channel, ThreadPoolExecutor() as threads:
        stream = Stream(channel)
        stream.send("echo", "first")
        assert stream.read(1)[0].infer_response.id == "first"
        stream.send("silent", "last")
        wait_until(lambda: door.system.controller.silent)
        stopped = threads.submit(door.stop)
        wait_until(lambda: is_draining(channel))
        door.system.release()
        assert stream.read(1)[0].infer_response.id == "last"
        with pytest.raises(grpc.RpcError) as ended:
            stream.read(1)
        stream.end()
        stopped.result()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in str(ended.value.details())


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GrpcDoorError, match=str(port)), opened(port=port):
            pytest.fail("it opened on a taken port")


def test_a_door_with_a_certificate_speaks_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = Tls(certificate=str(certificate), key=str(key))
    with opened(tls=tls) as door:
        client = triton.InferenceServerClient(door.address, ssl=True, root_certificates=tls.certificate)
        assert client.infer("echo", [tensor("x", "FP32", ROW)])
        client.close()
