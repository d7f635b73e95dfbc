"""Shared memory of clients, with the client that others wrote: what lies there is read, and answers go there."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, shared_memory

from slotwise.edges.oip.limits import Limits
from slotwise.edges.oip.regions import FOLDER
from tests.edges.echo import System, serving

NAME, KEY = "mine", f"/slotwise-test-{os.getpid()}"
VALUES = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with serving(Limits(shared_memory=True, regions_max=2), arena_bytes=64 << 20) as found:
        yield found


@pytest.fixture
def client(system: System) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{system.port}") as found:
        yield found
        found.unregister_system_shared_memory()


@pytest.fixture
def memory() -> Iterator[object]:
    """An object of 64 bytes: room for an input and an output of sixteen bytes each, and more."""
    handle = shared_memory.create_shared_memory_region(NAME, KEY, 64)
    yield handle
    shared_memory.destroy_shared_memory_region(handle)


def ask(client: triton.InferenceServerClient, *, at: int = 0, nbytes: int = 16, to: int = 32) -> triton.InferResult:
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_shared_memory(NAME, nbytes, offset=at)
    wanted = triton.InferRequestedOutput("x")
    wanted.set_shared_memory(NAME, 16, offset=to)
    return client.infer("echo", [given], outputs=[wanted])


def refused(client: triton.InferenceServerClient, **changes: int) -> str:
    with pytest.raises(InferenceServerException) as refusal:
        ask(client, **changes)
    return str(refusal.value)


def test_an_input_is_read_from_a_region_and_the_output_goes_there(
    client: triton.InferenceServerClient, memory: object
) -> None:
    shared_memory.set_shared_memory_region(memory, [VALUES])
    client.register_system_shared_memory(NAME, KEY, 64)
    answer = ask(client)
    assert answer.get_output("x") == {"name": "x", "datatype": "FP32", "shape": [1, 4]}
    found = shared_memory.get_contents_as_numpy(memory, np.float32, [1, 4], offset=32)
    assert np.array_equal(found, VALUES)


def test_a_region_that_there_is_not_is_not_found(client: triton.InferenceServerClient) -> None:
    for ask_for in (client.get_system_shared_memory_status, client.get_cuda_shared_memory_status):
        with pytest.raises(InferenceServerException, match="no shared memory region 'nobody'") as refusal:
            ask_for("nobody")
        assert refusal.value.status() == "404"


def test_regions_are_listed_until_they_are_unregistered(client: triton.InferenceServerClient, memory: object) -> None:
    client.register_system_shared_memory(NAME, KEY, 32, offset=16)
    assert client.get_system_shared_memory_status() == [{"name": NAME, "key": KEY, "offset": 16, "byte_size": 32}]
    assert client.get_system_shared_memory_status(NAME)[0]["offset"] == 16
    client.unregister_system_shared_memory(NAME)
    client.unregister_system_shared_memory(NAME)
    assert client.get_system_shared_memory_status() == []
    assert "register it first" in refused(client)


def test_what_does_not_lie_in_the_region_is_refused(client: triton.InferenceServerClient, memory: object) -> None:
    client.register_system_shared_memory(NAME, KEY, 40)
    assert "are not in region" in refused(client, at=32, to=0)
    assert "are not in region" in refused(client, to=32)
    assert "its shape needs 16" in refused(client, nbytes=12)


def test_an_object_that_shrinks_costs_its_owner_an_error_and_nobody_else_anything(
    client: triton.InferenceServerClient, memory: object
) -> None:
    client.register_system_shared_memory(NAME, KEY, 64)
    os.truncate(FOLDER / KEY.strip("/"), 20)
    assert "shorter than it was" in refused(client)
    os.truncate(FOLDER / KEY.strip("/"), 0)
    assert "shorter than it was" in refused(client)
    assert client.is_server_live()


@pytest.mark.parametrize("key", ["../etc/passwd", "/etc/passwd", "..", "/", "", "a/b", "nul\0", "no-such-object"])
def test_only_names_of_objects_that_are_there_are_opened(client: triton.InferenceServerClient, key: str) -> None:
    with pytest.raises(InferenceServerException, match="shared memory object"):
        client.register_system_shared_memory(NAME, key, 16)


def test_a_link_is_not_followed(client: triton.InferenceServerClient, tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_bytes(bytes(64))
    link = FOLDER / f"{KEY.strip('/')}-link"
    link.symlink_to(target)
    try:
        with pytest.raises(InferenceServerException, match="may not open"):
            client.register_system_shared_memory(NAME, link.name, 16)
    finally:
        link.unlink()


def test_a_region_is_no_larger_than_its_object_and_their_number_is_bounded(
    client: triton.InferenceServerClient, memory: object
) -> None:
    with pytest.raises(InferenceServerException, match="has 64 bytes; offset and byte_size make 65"):
        client.register_system_shared_memory(NAME, KEY, 64, offset=1)
    client.register_system_shared_memory("a", KEY, 64)
    with pytest.raises(InferenceServerException, match="registered already"):
        client.register_system_shared_memory("a", KEY, 64)
    client.register_system_shared_memory("b", KEY, 64)
    with pytest.raises(InferenceServerException, match="the limit"):
        client.register_system_shared_memory("c", KEY, 64)


def test_it_is_off_unless_it_is_asked_for(memory: object) -> None:
    with (
        serving(Limits(), arena_bytes=1 << 20) as closed,
        triton.InferenceServerClient(f"127.0.0.1:{closed.port}") as client,
    ):
        with pytest.raises(InferenceServerException, match="shared_memory = true"):
            client.register_system_shared_memory(NAME, KEY, 64)
        assert "off at this server" in refused(client)
        assert "system_shared_memory" not in client.get_server_metadata()["extensions"]


def test_there_is_no_memory_of_a_gpu(client: triton.InferenceServerClient) -> None:
    assert client.get_cuda_shared_memory_status() == []
    with pytest.raises(InferenceServerException, match="no memory of a GPU"):
        client.register_cuda_shared_memory(NAME, b"x", 0, 16)


def test_an_object_that_cannot_grow_any_more_costs_its_owner_an_error_only(
    client: triton.InferenceServerClient, memory: object
) -> None:
    client.register_system_shared_memory(NAME, KEY, 64)
    shared_memory.set_shared_memory_region(memory, [VALUES])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))  # a full /dev/shm refuses in the same way
    try:
        assert "cannot be read or written there" in refused(client, to=48)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert client.is_server_live()
