"""What is done to the server while it is asked: each kind at random instants of its own, drawn from the seed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from soak.clients import RudeClients
from soak.questions import MODELS
from soak.status import models_ready, status
from soak.tally import End, Outcome, Tally
from soak.ways import GrpcWay
from soak.web import Connections, NoReply

KILL_EXECUTOR_EVERY_S = 20.0
KILL_DOOR_EVERY_S = 180.0
UNLOAD_EVERY_S = 40.0
UNLOADED_S_MAX = 3.0
RELOAD_EVERY_S = 90.0
TOUCH_EVERY_S = 240.0
SCRAPE_EVERY_S = 15.0
RUDE_EVERY_S = 12.0
RETURN_S_MAX = 30.0
"""How long models and processes may take to be back."""
LEAVE_S_MAX = 10.0
"""How long, at the end, what was begun may take to finish."""
POLL_S = 0.1
PAGES = "pages"

Act = Callable[[], Coroutine[None, None, None]]


class Faults:
    """Does harm until told to stop, and mends what it may not leave."""

    def __init__(
        self,
        pid: int,
        repository: Path,
        connections: Connections,
        grpc: GrpcWay,
        clients: RudeClients,
        tally: Tally,
        seed: int,
    ) -> None:
        self._pid = pid
        self._repository = repository
        self._connections = connections
        self._grpc = grpc
        self._tally = tally
        self._seed = seed
        self._rng = random.Random(seed)
        self._managing = asyncio.Lock()
        self._acting: set[asyncio.Task[None]] = set()
        self._kinds: Mapping[str, tuple[float, Act]] = {
            "executor_killed": (KILL_EXECUTOR_EVERY_S, self._kill_executor),
            "grpc_door_killed": (KILL_DOOR_EVERY_S, self._kill_door),
            "unloaded": (UNLOAD_EVERY_S, self._unload),
            "reloaded": (RELOAD_EVERY_S, self._reload),
            "touched": (TOUCH_EVERY_S, self._touch),
            "scraped": (SCRAPE_EVERY_S, self._scrape),
            "trickled": (RUDE_EVERY_S, clients.trickle),
            "halted": (RUDE_EVERY_S, clients.halt),
            "vanished_early": (RUDE_EVERY_S, clients.vanish_early),
            "vanished_late": (RUDE_EVERY_S, clients.vanish_late),
            "idled": (RUDE_EVERY_S, clients.idle),
            "vanished_grpc": (RUDE_EVERY_S, clients.vanish_grpc),
            "vanished_local": (RUDE_EVERY_S, clients.vanish_local),
            "idled_local": (RUDE_EVERY_S, clients.idle_local),
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop. What has begun by then is finished, but clients that would stay for longer leave."""
        async with asyncio.TaskGroup() as group:
            for name, (every_s, act) in self._kinds.items():
                group.create_task(self._now_and_then(name, every_s, act, stop))
        if self._acting:
            await asyncio.wait(self._acting, timeout=LEAVE_S_MAX)
        for task in self._acting:
            task.cancel()
        await asyncio.gather(*self._acting, return_exceptions=True)

    async def mended(self) -> set[str]:
        """Load what may be unloaded; the models that are not back after a while."""
        for model in MODELS:
            await self._post(model, "load")
        end_s = time.monotonic() + RETURN_S_MAX
        while missing := set(MODELS) - await models_ready(self._connections):
            if time.monotonic() > end_s:
                break
            await asyncio.sleep(POLL_S)
        return missing

    async def _now_and_then(self, name: str, every_s: float, act: Act, stop: asyncio.Event) -> None:
        rng = random.Random(f"{self._seed} {name}")
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), rng.expovariate(1 / every_s))
                return
            self._tally.faults[name] += 1
            task = asyncio.create_task(act())
            self._acting.add(task)
            task.add_done_callback(lambda task: self._ended(name, task))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._acting.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # else this program is told to end
            end = End.UNANSWERED if isinstance(error, NoReply | OSError) else End.WRONG
            self._tally.add(PAGES, name, Outcome(end, repr(error)))

    async def _kill_executor(self) -> None:
        up = [one.pid for one in (await status(self._connections)).executors if one.pid is not None]
        if up:
            self._kill(self._rng.choice(up))

    async def _kill_door(self) -> None:
        pid = (await status(self._connections)).grpc.pid
        if pid is not None:
            self._grpc.killed_ns.append(time.monotonic_ns())
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        """Kill a process of the server's session, and none that has its number by now."""
        with suppress(ProcessLookupError):
            if os.getsid(pid) == self._pid:
                os.kill(pid, signal.SIGKILL)

    async def _unload(self) -> None:
        model = self._rng.choice(MODELS)
        async with self._managing:
            await self._post(model, "unload")
            await asyncio.sleep(self._rng.uniform(0, UNLOADED_S_MAX))
            await self._post(model, "load")

    async def _reload(self) -> None:
        """Change a model's settings, or nothing at all, and have the server look."""
        async with self._managing:
            if self._rng.random() < 0.5:
                settings = self._repository / self._rng.choice(MODELS) / "slotwise.toml"
                text = settings.read_text(encoding="utf-8")
                changed = text.removesuffix("# again\n") if text.endswith("# again\n") else f"{text}# again\n"
                draft = settings.with_suffix(".draft")
                draft.write_text(changed, encoding="utf-8")
                draft.replace(settings)
            os.kill(self._pid, signal.SIGHUP)

    async def _touch(self) -> None:
        """Make a model's file look new, and have the server look."""
        async with self._managing:
            (self._repository / self._rng.choice(MODELS) / "1" / "model.onnx").touch()
            os.kill(self._pid, signal.SIGHUP)

    async def _scrape(self) -> None:
        reply = await self._connections.get("/metrics")
        self._told("/metrics", reply.status, reply.body)

    async def _post(self, model: str, verb: str) -> None:
        reply = await self._connections.post(f"/v2/repository/models/{model}/{verb}")
        self._told(f"{verb} {model}", reply.status, reply.body)

    def _told(self, what: str, status_code: int, body: bytes) -> None:
        is_well = status_code == HTTPStatus.OK
        told = "" if is_well else f"{status_code}: {body.decode(errors='replace')}"
        self._tally.add(PAGES, what, Outcome(End.OK if is_well else End.WRONG, told))
