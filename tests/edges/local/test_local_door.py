"""The local door against clients that say what they should, what they should not, and nothing."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest

from slotwise.client import Array
from slotwise.edges.local import frames
from slotwise.edges.local.limits import LocalLimits
from slotwise.edges.local.listener import ListenError
from slotwise.edges.store.files import make_memory
from tests.conftest import WaitUntil
from tests.edges.local.conftest import LIMITS
from tests.edges.local.rig import MEMORY_BYTES, ROW, Bare, LocalSystem, ask, descriptors, serving

pytestmark = pytest.mark.live


def output(bare: Bare, answer: frames.Answer) -> Array:
    (tensor,) = answer.outputs
    data = os.pread(bare.outputs_fd, tensor.nbytes, tensor.offset)
    return np.frombuffer(data, np.float32).reshape(tensor.shape)


def still_serves(system: LocalSystem) -> None:
    with Bare(system.path) as other:
        other.hello()
        other.say(ask(1, "echo", other.put(ROW)))
        np.testing.assert_array_equal(output(other, other.answer()), ROW)


def test_an_answer_lies_in_the_memory_that_the_server_lends(bare: Bare) -> None:
    bare.hello()
    bare.say(ask(7, "echo", bare.put(ROW, 128), id="mine", has_timing=True))
    answer = bare.answer()
    assert (answer.serial, answer.model, answer.version, answer.id) == (7, "echo", "2", "mine")
    assert answer.timing is not None
    assert answer.timing.request is not None
    told = (answer.timing.outcome, answer.timing.wait_us, answer.timing.execution_us, answer.timing.executor)
    assert told == ("in_time", 2, 3, "cpu:0")
    np.testing.assert_array_equal(output(bare, answer), ROW)


def test_nobody_but_the_server_can_write_to_the_memory_it_lends(bare: Bare) -> None:
    welcome = bare.hello()
    with pytest.raises(OSError, match=r"not permitted|denied"):
        mmap.mmap(bare.outputs_fd, welcome.outputs_bytes)
    again = os.open(f"/proc/self/fd/{bare.outputs_fd}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            mmap.mmap(again, welcome.outputs_bytes)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(again, 0)
    finally:
        os.close(again)


def test_each_client_has_memory_for_outputs_of_its_own(system: LocalSystem, bare: Bare) -> None:
    bare.hello()
    with Bare(system.path) as other:
        other.hello()
        assert os.fstat(bare.outputs_fd).st_ino != os.fstat(other.outputs_fd).st_ino


def test_answers_come_as_they_are_ready_and_not_in_order(system: LocalSystem, bare: Bare) -> None:
    bare.hello()
    tensor = bare.put(ROW)
    bare.say(ask(1, "silent", tensor))
    bare.say(ask(2, "echo", tensor))
    assert bare.answer().serial == 2
    system.release()
    assert bare.answer().serial == 1


@pytest.mark.parametrize(
    ("model", "status", "reason"),
    [("refused", 503, "infeasible"), ("expired", 504, "expired"), ("faulty", 500, "run_error"), ("late", 504, None)],
)
def test_an_ending_without_an_answer_says_what_it_says_over_http(
    bare: Bare, model: str, status: int, reason: str | None
) -> None:
    bare.hello()
    bare.say(ask(1, model, bare.put(ROW)))
    refusal = bare.refusal()
    assert (refusal.serial, refusal.status) == (1, status)
    assert reason in (None, refusal.reason)
    assert refusal.error
    if status == 503:
        assert (refusal.predicted_ms, refusal.retry_after_ms) == (250.0, 1200)


def test_a_late_answer_is_delivered_and_marked_where_the_server_is_told_so(tmp_path: Path) -> None:
    with serving(tmp_path / "socket", late_answers=True) as system, Bare(system.path) as bare:
        bare.hello()
        bare.say(ask(1, "late", bare.put(ROW)))
        assert bare.answer().timing == frames.Spent("late")


@pytest.mark.parametrize(
    ("model", "tensor", "status", "words"),
    [
        ("nobody", frames.Tensor("x", "FP32", (1, 4), 0, 16), 404, "unknown model"),
        ("coming", frames.Tensor("x", "FP32", (1, 4), 0, 16), 503, "LOADING"),
        ("echo", frames.Tensor("y", "FP32", (1, 4), 0, 16), 400, "no input 'y'"),
        ("echo", frames.Tensor("x", "FP64", (1, 4), 0, 32), 400, "FP64"),
        ("echo", frames.Tensor("x", "FP32", (1, 5), 0, 20), 400, "shape"),
        ("echo", frames.Tensor("x", "FP32", (9, 4), 0, 144), 400, "rows"),
        ("echo", frames.Tensor("x", "FP32", (1, 4), 0, 12), 400, "announces 12 bytes"),
        ("echo", frames.Tensor("x", "FP32", (1, 4), MEMORY_BYTES, 16), 400, "not in the client's memory"),
        ("echo", frames.Tensor("x", "FP32", (1, 4), 1 << 61, 16), 400, "not in the client's memory"),
        ("echo", frames.Tensor("x", "FP32", (1, 4), 4, 16), 400, "multiple of 64"),
        ("text", frames.Tensor("t", "BYTES", (1,), 0, 3), 400, "ends inside"),
        ("wide", frames.Tensor("w", "UINT8", (1 << 40,), 0, 1 << 40), 413, "the limit"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_and_the_connection_goes_on(
    bare: Bare, model: str, tensor: frames.Tensor, status: int, words: str
) -> None:
    bare.hello()
    bare.say(ask(1, model, tensor))
    refusal = bare.refusal()
    assert (refusal.serial, refusal.status) == (1, status)
    assert words in refusal.error
    bare.say(ask(1, "echo", bare.put(ROW)))
    assert bare.answer().serial == 1


@pytest.mark.parametrize("priority", [10, 1 << 61])
def test_a_priority_beyond_the_lowest_is_refused(bare: Bare, priority: int) -> None:
    bare.hello()
    bare.say(ask(1, "echo", bare.put(ROW), priority=priority))
    refusal = bare.refusal()
    assert (refusal.status, f"priority is {priority}" in refusal.error) == (400, True)


def lies(bare: Bare) -> dict[str, bytes]:
    tensor = bare.put(ROW)
    return {
        "version 9": b"\x09" + frames.encode(frames.Hello())[1:],
        "not a frame": b"\x01" + b"\xff" * 20,
        "hello once": frames.encode(frames.Hello()),
        "does not hold": frames.encode(frames.Release((64,))),
        "given back": frames.encode(ask(1, "echo", tensor, released=(0,))),
        "4096 bytes at most": b"\x01" * 5000,
        "not a frame:": b"\x01" + msgspec.msgpack.encode([16, "welcome", 1, 1, 1]),
    }


@pytest.mark.parametrize("words", ["version 9", "not a frame", "hello once", "does not hold", "4096 bytes at most"])
def test_a_client_that_lies_is_told_so_and_let_go_of(system: LocalSystem, bare: Bare, words: str) -> None:
    bare.hello()
    bare.send(lies(bare)[words])
    refusal = bare.refusal()
    assert refusal.serial is None
    assert words in refusal.error
    assert bare.is_closed()
    still_serves(system)


def test_a_serial_is_not_used_twice_at_once(bare: Bare) -> None:
    bare.hello()
    bare.say(ask(1, "silent", bare.put(ROW)))
    bare.say(ask(1, "silent", bare.put(ROW)))
    assert "serial 1" in bare.refusal().error
    assert bare.is_closed()


def test_what_is_given_back_twice_is_a_lie(bare: Bare) -> None:
    bare.hello()
    bare.say(ask(1, "echo", bare.put(ROW)))
    region = bare.answer().region
    assert region is not None
    bare.say(frames.Release((region,)))
    bare.say(frames.Release((region,)))
    assert "does not hold" in bare.refusal().error
    assert bare.is_closed()


def unsealed() -> int:
    fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    return fd


def half_sealed() -> int:
    fd = unsealed()
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def plain_file() -> int:
    return os.open(__file__, os.O_RDONLY)


def empty() -> int:
    return make_memory("empty", 0)


def large() -> int:
    return make_memory("large", LIMITS.memory_bytes_max + 1)


def test_memory_of_huge_pages_is_refused(bare: Bare) -> None:
    fd = os.memfd_create("huge", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    os.ftruncate(fd, 2 << 20)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    bare.say(frames.Hello(), fd)
    os.close(fd)
    assert "huge pages" in bare.refusal().error
    assert bare.is_closed()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (unsealed, "not sealed"),
        (half_sealed, "not sealed"),
        (plain_file, "not one of a memfd"),
        (empty, "empty"),
        (large, "are the limit"),
    ],
)
def test_memory_that_is_not_safe_to_map_is_refused(
    system: LocalSystem, bare: Bare, make: Callable[[], int], words: str
) -> None:
    fd = make()
    bare.say(frames.Hello(), fd)
    os.close(fd)
    assert words in bare.refusal().error
    assert bare.is_closed()
    still_serves(system)


@pytest.mark.parametrize("count", [0, 2, 20])
def test_a_client_brings_one_descriptor_and_no_other_is_kept(system: LocalSystem, bare: Bare, count: int) -> None:
    bare.say(frames.Hello(), *[bare.fd] * count)
    assert "begins with Hello" in bare.refusal().error
    assert bare.is_closed()


def test_descriptors_that_come_later_are_not_taken(system: LocalSystem, bare: Bare) -> None:
    bare.hello()
    before = descriptors()
    for _ in range(50):
        bare.say(frames.Release(()), *[bare.fd] * 10)
    bare.say(ask(1, "echo", bare.put(ROW)))
    bare.answer()
    assert descriptors() <= before


def test_a_client_that_asks_before_hello_is_let_go_of(bare: Bare) -> None:
    bare.say(ask(1, "echo", bare.put(ROW)))
    assert "begins with Hello" in bare.refusal().error
    assert bare.is_closed()


def test_a_client_that_says_nothing_is_let_go_of(tmp_path: Path) -> None:
    with serving(tmp_path / "socket", LocalLimits(hello_s=0.01)) as system, Bare(system.path) as bare:
        assert bare.refusal().status == 408
        assert bare.is_closed()


def test_requests_beyond_the_limit_are_refused_and_those_before_are_answered(system: LocalSystem, bare: Bare) -> None:
    bare.hello()
    tensor = bare.put(ROW)
    for serial in range(LIMITS.requests_max + 1):
        bare.say(ask(serial, "silent", tensor))
    refusal = bare.refusal()
    assert (refusal.serial, refusal.status, refusal.reason) == (LIMITS.requests_max, 503, "queue_full")
    system.release()
    assert sorted(bare.answer().serial for _ in range(LIMITS.requests_max)) == list(range(LIMITS.requests_max))


def test_a_client_that_never_lets_go_of_outputs_finds_no_room_and_nobody_else_is_harmed(
    system: LocalSystem, bare: Bare
) -> None:
    bare.hello()
    rows = np.arange(60_000, dtype=np.uint8)
    bare.memory[: rows.nbytes] = rows.tobytes()
    tensor = frames.Tensor("w", "UINT8", rows.shape, 0, rows.nbytes)
    regions = []
    for serial in range(LIMITS.outputs_bytes // rows.nbytes):
        bare.say(ask(serial, "wide", tensor))
        regions.append(bare.answer().region)
    bare.say(ask(100, "wide", tensor))
    refusal = bare.refusal()
    assert (refusal.serial, refusal.status, refusal.reason) == (100, 503, "no_room")
    still_serves(system)
    bare.say(ask(101, "wide", tensor, released=tuple(regions)))
    assert bare.answer().serial == 101


def test_a_cancelled_request_has_its_one_reply(system: LocalSystem, bare: Bare) -> None:
    bare.hello()
    bare.say(ask(1, "silent", bare.put(ROW)))
    bare.say(frames.Cancel(1))
    bare.say(frames.Cancel(77))
    assert (bare.refusal().reason) == "cancelled"
    bare.say(ask(2, "echo", bare.put(ROW)))
    assert bare.answer().serial == 2


def test_a_client_that_vanishes_has_its_requests_cancelled(
    system: LocalSystem, bare: Bare, wait_until: WaitUntil
) -> None:
    bare.hello()
    before = len(system.controller.cancelled)
    for serial in range(3):
        bare.say(ask(serial, "silent", bare.put(ROW)))
    wait_until(lambda: system.in_flight == 3)
    bare.socket.close()
    wait_until(lambda: not system.in_flight and not system.clients)
    assert len(system.controller.cancelled) == before + 3


def test_a_client_that_does_not_read_is_not_read_from_and_gets_all_its_answers(system: LocalSystem, bare: Bare) -> None:
    bare.hello()
    sent = bare.flood(frames.encode(ask(1, "n" * 200, bare.put(ROW))), 100_000)
    assert sent < 100_000
    still_serves(system)
    for _ in range(sent):
        assert bare.refusal().status == 404


def test_one_connection_too_many_is_told_so(system: LocalSystem, wait_until: WaitUntil) -> None:
    first = [Bare(system.path) for _ in range(LIMITS.connections_max)]
    for client in first:
        client.hello()
    with Bare(system.path) as late:
        refusal = late.refusal()
        assert (refusal.status, refusal.error) == (503, "too many connections")
        assert late.is_closed()
    for client in first:
        client.socket.close()
    wait_until(lambda: not system.clients)


def test_a_server_without_descriptors_says_when_to_come_again(
    system: LocalSystem, bare: Bare, wait_until: WaitUntil
) -> None:
    wait_until(lambda: system.clients == 1)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 50, before[1]))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    for _ in range(2):  # room for the client's memory and its mapping, and none for what is lent to it
        os.close(taken.pop())
    try:
        bare.say(frames.Hello(), bare.fd)
        refusal = bare.refusal()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken:
            os.close(fd)
    assert (refusal.status, refusal.reason) == (503, "no_room")
    assert refusal.retry_after_ms > 0
    still_serves(system)


def test_a_user_who_is_not_named_is_turned_away(tmp_path: Path) -> None:
    limits = LocalLimits(uids=(os.getuid() + 1,))
    with serving(tmp_path / "socket", limits) as system, Bare(system.path) as bare:
        refusal = bare.refusal()
        assert refusal.status == 403
        assert str(os.getuid()) in refusal.error
        assert bare.is_closed()


def test_the_server_knows_who_connects_by_the_kernel(system: LocalSystem, bare: Bare) -> None:
    bare.hello()
    (peer,) = system.door.statistics().clients
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_socket_left_behind_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(path))
    with serving(path) as system:
        with pytest.raises(ListenError, match="another program"), serving(path):
            pass
        still_serves(system)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.write_text("mine")
    with pytest.raises(ListenError, match="something else"), serving(path):
        pass
    assert path.read_text() == "mine"


@pytest.mark.parametrize("path", ["no/such/folder/socket", "x" * 200])
def test_a_path_that_cannot_be_had_is_told_by_its_name(tmp_path: Path, path: str) -> None:
    with pytest.raises(ListenError, match="cannot listen at"), serving(tmp_path / path):
        pass


def test_a_server_that_stops_answers_what_is_under_way_and_refuses_what_comes(
    system: LocalSystem, tmp_path: Path, wait_until: WaitUntil
) -> None:
    with serving(tmp_path / "socket") as other, Bare(other.path) as bare:
        bare.hello()
        bare.say(ask(1, "silent", bare.put(ROW)))
        wait_until(lambda: other.in_flight)
        wait = other.stop_soon(60.0)
        wait_until(lambda: not Path(other.path).exists())
        bare.say(ask(2, "echo", bare.put(ROW)))
        assert bare.refusal().reason == "shutting_down"
        other.release()
        assert bare.answer().serial == 1
        wait()
        assert bare.is_closed()


def test_whoever_outlasts_the_servers_patience_is_told_so(tmp_path: Path, wait_until: WaitUntil) -> None:
    with serving(tmp_path / "socket") as system, Bare(system.path) as bare:
        bare.hello()
        bare.say(ask(1, "silent", bare.put(ROW)))
        wait_until(lambda: system.in_flight)
        system.stop_soon(0.0)()
        assert bare.refusal().reason == "shutting_down"
        assert bare.is_closed()


def test_memory_of_clients_that_have_gone_is_given_back(system: LocalSystem, wait_until: WaitUntil) -> None:
    still_serves(system)
    wait_until(lambda: not system.clients)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        still_serves(system)
    wait_until(lambda: not system.clients)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10
    maps = Path("/proc/self/maps").read_text().count("memfd:slotwise-arena")
    assert maps <= 2
