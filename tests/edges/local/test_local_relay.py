"""Requests that a client relays for others, at the local door: where their data may lie, and whose rights hold."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from slotwise.client import Array
from slotwise.edges.local import frames
from slotwise.edges.oip.access import Grant
from tests.edges.local.rig import MEMORY_BYTES, ROW, Bare, LocalSystem, ask, serving

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    with serving(tmp_path_factory.mktemp("local") / "socket", is_gate=True) as found:
        yield found


REFUSED = (("echo", 401), ("m", 403), ("echo", 401))


def head_of(*inputs: tuple[str, str, Array], **parameters: object) -> bytes:
    told = [
        {"name": name, "datatype": kind, "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
        for name, kind, array in inputs
    ]
    return msgspec.json.encode({"inputs": told, "parameters": {"binary_data_output": True, **parameters}})


def relayed(bare: Bare) -> tuple[dict[str, object], bytes]:
    heard = bare.hear()
    assert isinstance(heard, frames.Relayed), heard
    data = b"" if heard.region is None else os.pread(bare.outputs_fd, heard.nbytes, heard.region)
    return msgspec.json.decode(heard.head), data


def test_a_relayed_request_is_read_where_it_lies_and_answered_in_the_protocols_own_form(
    system: LocalSystem, bare: Bare
) -> None:
    bare.hello()
    bare.put(ROW, 192)
    bare.say(frames.Relay(3, "echo", "1", head_of(("x", "FP32", ROW)), 192, ROW.nbytes, timeout_us=7_000_000))
    head, data = relayed(bare)
    assert (head["model_name"], head["model_version"]) == ("echo", "1")
    assert data == ROW.tobytes()
    request = system.controller.requests[-1]
    assert not request.regions, "nothing was copied"
    assert request.deadline_ns - request.arrival_ns == 7_000_000_000


def test_what_must_be_checked_of_a_relayed_request_is_copied_and_checked(bare: Bare) -> None:
    bare.hello()
    good = np.frombuffer(b"\x02\x00\x00\x00ab\x00\x00\x00\x00", np.uint8)
    head = msgspec.json.decode(head_of(("t", "BYTES", good)))
    head["inputs"][0]["shape"] = [2]
    offset = 0
    for serial, content in enumerate((good.tobytes(), b"\x09" + good.tobytes()[1:])):
        bare.memory[offset : offset + len(content)] = content
        bare.say(frames.Relay(serial, "text", "", msgspec.json.encode(head), offset, len(content)))
        offset += frames.ALIGNMENT
    assert relayed(bare)[1] == good.tobytes()
    assert bare.refusal().status == 400


@pytest.mark.parametrize(
    ("offset", "nbytes", "complaint"),
    [
        (MEMORY_BYTES, ROW.nbytes, "not in the client's memory"),
        (32, ROW.nbytes, "multiple of 64"),
        (0, ROW.nbytes + 1, "announce"),
    ],
)
def test_a_relayed_request_whose_data_are_not_there_is_refused(
    bare: Bare, offset: int, nbytes: int, complaint: str
) -> None:
    bare.hello()
    bare.say(frames.Relay(1, "echo", "", head_of(("x", "FP32", ROW)), offset, nbytes))
    refusal = bare.refusal()
    assert refusal.status == 400
    assert complaint in refusal.error


def test_a_gate_judges_each_request_by_what_its_asker_has_shown_and_takes_no_others(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    grants = [Grant(name="one", sha256=digest, models=("echo",))]
    with serving(tmp_path / "socket", is_gate=True, grants=grants) as system, Bare(system.path) as bare:
        bare.hello()
        bare.say(ask(1, "echo", bare.put(ROW)))
        assert bare.refusal().status == 403
        for serial, (model, shown) in enumerate(
            (("echo", "Bearer secret"), ("echo", "Bearer none"), ("m", "Bearer secret"), ("echo", ""))
        ):
            head = head_of(("x", "FP32", ROW))
            bare.say(frames.Relay(serial, model, "", head, 0, ROW.nbytes, authorization=shown, peer="ipv4:10.0.0.1:5"))
        assert relayed(bare)[1] == ROW.tobytes()
        assert [bare.refusal().status for _ in range(3)] == [401, 403, 401]
        told = [(one.door, one.peer, one.target, one.status) for one in system.refused]
        assert told[1:] == [("grpc", "ipv4:10.0.0.1:5", model, status) for model, status in REFUSED]


def test_a_door_for_clients_takes_no_request_of_anothers(tmp_path: Path) -> None:
    with serving(tmp_path / "socket") as system, Bare(system.path) as bare:
        bare.hello()
        head = msgspec.json.decode(head_of(("x", "FP32", ROW)))
        head["inputs"][0]["parameters"] = {"shared_memory_region": "r", "shared_memory_byte_size": ROW.nbytes}
        bare.say(
            frames.Relay(1, "echo", "", msgspec.json.encode(head), 0, 0, authorization="Bearer secret", peer="not me")
        )
        refusal = bare.refusal()
        assert (refusal.serial, refusal.status, refusal.reason) == (1, 403, "forbidden")
        assert not system.controller.requests
        assert [(one.door, one.peer) for one in system.refused] == [("local", f"pid {os.getpid()} uid {os.getuid()}")]
        bare.say(ask(2, "echo", bare.put(ROW)))
        assert isinstance(bare.hear(), frames.Answer)
