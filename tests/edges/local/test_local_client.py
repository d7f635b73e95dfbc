"""The clients on shared memory against a real door: arrays that are not copied, streams, deadlines, tries."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import numpy as np
import pytest

from slotwise.client import (
    AddressError,
    AsyncLocalClient,
    BadRequest,
    Client,
    ConnectionLost,
    LocalClient,
    ModelNotFound,
    NoAnswer,
    NoRoom,
    Question,
    Refused,
    ServerFault,
    TooLate,
    Unreachable,
)
from slotwise.client.address import Tries
from slotwise.client.sharing import Inputs
from slotwise.edges.local.limits import LocalLimits
from tests.conftest import WaitUntil
from tests.edges.local.conftest import LIMITS
from tests.edges.local.rig import ROW, LocalSystem, serving

pytestmark = pytest.mark.live

X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
MIXED = {
    "i": np.array([-(2**62), 7]),
    "t": np.array(["a", "\u00e4\u00df", ""], dtype=object),
    "b": np.array([[True, False]]),
    "d": np.array([1.5, float("nan")]),
}


@pytest.fixture
def client(system: LocalSystem) -> Iterator[LocalClient]:
    with LocalClient(system.path) as made:
        yield made


def awaited(make: Callable[[], Coroutine[object, object, object]]) -> object:
    return asyncio.run(make())


def test_arrays_come_back_as_they_went_and_cannot_be_written_to(client: LocalClient) -> None:
    answer = client.infer("echo/1", X, has_timing=True)
    assert (answer.model, answer.version) == ("echo", "1")
    np.testing.assert_array_equal(answer.outputs["x"], X["x"])
    assert not answer.outputs["x"].flags.writeable
    assert answer.timing is not None
    assert (answer.timing.outcome, answer.timing.execution_us, answer.timing.batch_rows) == ("in_time", 3, 2)
    mixed = client.infer("mixed", MIXED).outputs
    assert mixed["t"].tolist() == [b"a", "\u00e4\u00df".encode(), b""]
    for name in ("i", "b", "d"):
        np.testing.assert_array_equal(mixed[name], MIXED[name])
        assert mixed[name].dtype == MIXED[name].dtype
    assert list(client.infer("mixed", MIXED, outputs=["d", "i"]).outputs) == ["d", "i"]


def test_an_array_in_shared_memory_is_sent_as_it_lies_and_others_are_copied(system: LocalSystem) -> None:
    inputs = Inputs(1 << 20)
    array = inputs.empty((4, 16), np.float32)
    array[:] = 3
    whole, taken = inputs.place("x", array)
    assert (taken, whole.offset, whole.nbytes) == (None, whole.offset, 256)
    row, taken = inputs.place("x", array[2:])
    assert (taken, row.offset) == (None, whole.offset + 128)
    for other in (array[:, 1:], array.T, array.copy(), array[0, 1:2]):
        place, taken = inputs.place("x", other)
        assert taken == place.offset != whole.offset
    inputs.close()


def test_shapes_without_elements_and_without_dimensions_go_through(client: LocalClient) -> None:
    nothing = client.infer("half", {"h": np.empty(0, np.float16)}).outputs["h"]
    assert (nothing.shape, nothing.dtype) == ((0,), np.dtype(np.float16))
    empty = client.empty((0, 4), np.float32)
    with pytest.raises(BadRequest, match="rows"):
        client.infer("echo", {"x": empty})


@pytest.mark.parametrize(
    ("model", "error", "status"),
    [
        ("refused", Refused, 503),
        ("expired", TooLate, 504),
        ("faulty", ServerFault, 500),
        ("nobody", ModelNotFound, 404),
    ],
)
def test_each_ending_raises_its_own_error(client: LocalClient, model: str, error: type[Exception], status: int) -> None:
    with pytest.raises(error) as raised:
        client.infer(model, X)
    assert raised.value.status == status  # type: ignore[attr-defined]  # every one of them has it
    np.testing.assert_array_equal(client.infer("echo", X).outputs["x"], X["x"])


def test_room_for_outputs_comes_back_when_arrays_are_forgotten(client: LocalClient) -> None:
    array = client.empty(LIMITS.outputs_bytes // 3, np.uint8)
    array[:] = 7
    for _ in range(100):
        answer = client.infer("wide", {"w": array})
        part = answer.outputs["w"][5:10]
        del answer
        np.testing.assert_array_equal(part, [7] * 5)
        del part
    kept = [client.infer("wide", {"w": array}) for _ in range(2)]
    with pytest.raises(Refused, match="no room") as raised:
        client.infer("wide", {"w": array})
    assert raised.value.reason == "no_room"
    kept[0].release()
    client.infer("wide", {"w": array})
    np.testing.assert_array_equal(kept[1].outputs["w"], array)


def test_room_for_inputs_comes_back_when_arrays_are_forgotten(system: LocalSystem) -> None:
    inputs = Inputs(1 << 20)
    with LocalClient(system.path, inputs=inputs) as client:
        for number in range(50):
            array = client.empty(300_000, np.uint8)
            array[:] = number
            assert client.infer("wide", {"w": array}).outputs["w"][0] == number
            assert client.infer("wide", {"w": array.copy()}).outputs["w"][0] == number
        held = [array, client.empty(300_000, np.uint8), client.empty(300_000, np.uint8)]
        with pytest.raises(NoRoom, match="let go of arrays"):
            client.empty(300_000, np.uint8)
        with pytest.raises(NoRoom):
            client.infer("wide", {"w": np.zeros(300_000, np.uint8)})
        del array, held
        client.empty(1_000_000, np.uint8)
    inputs.close()


def test_arrays_outlive_their_client(system: LocalSystem) -> None:
    with LocalClient(system.path) as client:
        mine = client.empty((1, 4), np.float32)
        mine[:] = ROW
        theirs = client.infer("echo", {"x": mine}).outputs["x"]
    gc.collect()
    np.testing.assert_array_equal(theirs, mine)
    with pytest.raises(ConnectionLost):
        client.infer("echo", X)


def test_a_stream_hands_out_answers_as_they_come_and_says_which_is_which(
    system: LocalSystem, client: LocalClient
) -> None:
    def questions() -> Iterator[Question]:
        yield Question(model="silent", inputs={"x": ROW})
        for number in range(20):
            yield Question(model="echo", inputs={"x": ROW + number})
        system.release()
        yield Question(model="refused", inputs={"x": ROW})

    answers = list(client.stream(questions(), window=4))
    assert sorted(answer.index for answer in answers) == list(range(22))
    assert answers[0].index == 1
    for answer in answers:
        if 1 <= answer.index <= 20:
            np.testing.assert_array_equal(answer.result().outputs["x"], ROW + answer.index - 1)
    (refused,) = [answer for answer in answers if answer.index == 21]
    with pytest.raises(Refused):
        refused.result()


def test_a_stream_that_is_left_takes_its_questions_back(
    system: LocalSystem, client: LocalClient, wait_until: WaitUntil
) -> None:
    questions = [Question(model=name, inputs=X) for name in ("echo", "silent", "silent")]
    answers = client.stream(questions, window=3)
    assert next(answers).index == 0
    answers.close()
    wait_until(lambda: not system.in_flight)
    np.testing.assert_array_equal(client.infer("echo", X).outputs["x"], X["x"])


def test_a_stream_of_large_answers_never_waits_for_itself(client: LocalClient) -> None:
    questions = (Question(model="n" * 200, inputs=X) for _ in range(3000))
    assert all(isinstance(answer.outcome, ModelNotFound) for answer in client.stream(questions, window=8))


def test_no_reply_within_the_clients_patience_takes_the_question_back(
    system: LocalSystem, wait_until: WaitUntil
) -> None:
    with LocalClient(system.path, answer_s_max=0.05) as client:
        with pytest.raises(NoAnswer):
            client.infer("silent", X)
        wait_until(lambda: not system.in_flight)


def test_a_server_that_goes_away_is_told_as_a_lost_connection(tmp_path: Path, wait_until: WaitUntil) -> None:
    with serving(tmp_path / "socket") as system:
        client = LocalClient(system.path)
        kept = client.infer("echo", X).outputs["x"]
    with client, pytest.raises(ConnectionLost):
        client.infer("echo", X)
    np.testing.assert_array_equal(kept, X["x"])


def test_a_client_that_is_not_taken_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="there is no server at"):
        LocalClient(str(tmp_path / "nobody"))
    path = tmp_path / "socket"
    with (
        serving(path, LocalLimits(connections_max=1)),
        LocalClient(str(path)),
        pytest.raises(Refused, match="too many"),
    ):
        LocalClient(str(path))
    with serving(path, LocalLimits(memory_bytes_max=1 << 20)), pytest.raises(BadRequest, match="are the limit"):
        LocalClient(str(path))


def test_many_questions_are_under_way_at_once_within_a_loop(system: LocalSystem) -> None:
    async def ask() -> None:
        async with AsyncLocalClient(system.path) as client:
            rows = [client.empty((1, 4), np.float32) for _ in range(40)]
            for number, row in enumerate(rows):
                row[:] = number
            answers = await asyncio.gather(*[client.ask(Question(model="echo", inputs={"x": row})) for row in rows])
            assert [answer.outputs["x"][0, 0] for answer in answers] == list(range(40))

    awaited(ask)


def test_whoever_is_cancelled_takes_the_question_back(system: LocalSystem, wait_until: WaitUntil) -> None:
    async def ask() -> None:
        async with AsyncLocalClient(system.path) as client:
            asking = asyncio.create_task(client.ask(Question(model="silent", inputs=X)))
            await asyncio.to_thread(wait_until, lambda: system.in_flight)
            asking.cancel()
            await asyncio.to_thread(wait_until, lambda: not system.in_flight)
            answer = await client.ask(Question(model="echo", inputs=X))
            np.testing.assert_array_equal(answer.outputs["x"], X["x"])

    awaited(ask)


def test_all_who_wait_hear_that_the_server_has_gone(tmp_path: Path, wait_until: WaitUntil) -> None:
    async def ask() -> list[object]:
        async with AsyncLocalClient(system.path) as client:
            asking = [client.ask(Question(model="silent", inputs=X)) for _ in range(3)]
            stop = threading.Thread(target=lambda: (wait_until(lambda: system.in_flight == 3), system.stop_soon(0.0)()))
            stop.start()
            endings = await asyncio.gather(*asking, return_exceptions=True)
            stop.join()
            return list(endings)

    with serving(tmp_path / "socket") as system:
        endings = awaited(ask)
    assert [type(ending) for ending in endings] == [Refused] * 3  # type: ignore[attr-defined]  # a list of them


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "http://", "http://h:99999", "unix://", "unix://host/p", "h:80", "http://h/v2", "grpc://"]
)
def test_an_address_of_no_known_kind_is_told_so(url: str) -> None:
    with pytest.raises(AddressError, match="no address"):
        Client(url)


def test_a_client_finds_a_server_that_was_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Client(f"unix://{path}") as client:
        array = client.empty((1, 4), np.float32)
        array[:] = ROW
        with serving(path):
            client.infer("echo", {"x": array})
        with pytest.raises(ConnectionLost):
            client.infer("echo", {"x": array})
        with serving(path):
            np.testing.assert_array_equal(client.infer("echo", {"x": array}).outputs["x"], ROW)


def test_a_server_that_is_not_there_yet_is_tried_again_within_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Client(f"unix://{path}", tries=2) as client, pytest.raises(Unreachable):
        client.infer("echo", X)
    began, done = threading.Event(), threading.Event()

    def serve() -> None:
        began.wait(60)
        with serving(path):
            done.wait(60)

    server = threading.Thread(target=serve)
    server.start()
    with Client(f"unix://{path}", tries=50) as client:
        began.set()
        np.testing.assert_array_equal(client.infer("echo", X, timeout_us=50_000_000).outputs["x"], X["x"])
    done.set()
    server.join()


def refusal(after_ms: int) -> Refused:
    return Refused("full", status=503, retry_after_ms=after_ms)


def question(timeout_us: int | None) -> Question:
    return Question(model="m", inputs=X, timeout_us=timeout_us)


def test_what_was_refused_is_asked_again_only_where_that_is_before_the_deadline() -> None:
    assert Tries(question(10_000_000), 3).pause_s(refusal(1200)) == 1.2
    for timeout_us, after_ms, tries in (
        (1_000_000, 1200, 3),
        (None, 1200, 3),
        (10_000_000, 0, 3),
        (10_000_000, 1200, 1),
    ):
        with pytest.raises(Refused):
            Tries(question(timeout_us), tries).pause_s(refusal(after_ms))


@pytest.mark.parametrize("error", [ConnectionLost("gone"), NoAnswer("none"), ServerFault("bug"), TooLate("late")])
def test_what_may_have_run_is_never_asked_again(error: Exception) -> None:
    with pytest.raises(type(error)):
        Tries(question(10_000_000), 3).pause_s(error)  # type: ignore[arg-type]  # each is a ClientError


def test_a_question_asked_again_has_what_is_left_of_its_time() -> None:
    tries = Tries(question(10_000_000), 3)
    first, second = tries.question(), tries.question()
    assert first.timeout_us is not None
    assert second.timeout_us is not None
    assert 0 < second.timeout_us <= first.timeout_us <= 10_000_000
    with pytest.raises(TooLate):
        Tries(question(1), 3).question()


def test_importing_the_client_loads_no_heavy_library() -> None:
    program = (
        "import sys, slotwise.client\n"
        "heavy = {'onnxruntime', 'onnx', 'grpc', 'uvicorn', 'starlette', 'matplotlib', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
