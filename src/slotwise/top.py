"""A running server at a glance, in a terminal: what it answers, what it turns away and why, and what its executors do.

Everything is read from the server's own pages, so it can be anywhere. Rates and quantiles are those between the newest
scrape and one some seconds before; the first view, which has only one, tells them since the server's start.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from slotwise.edges.metrics.reading import (
    ExecutorReading,
    MetricsError,
    ModelReading,
    Reading,
    Spread,
    read_scrape,
    total,
)
from slotwise.facts.types import Outcome
from slotwise.facts.units import US
from slotwise.facts.value import value

METRICS_PATH = "/metrics"
STATUS_PATH = "/v2/slotwise/status"
ANSWER_S_MAX = 5.0
WINDOW = 10
"""So many scrapes back go the rates."""
MODELS_MAX = 20
"""Rows; the busiest come first."""
NAMES_MAX = 4
"""Of models, in an executor's row."""
MB = 1_000_000


class NoServer(Exception):
    """Nothing there that could be shown; the text says what was found instead and what to do."""


class BadUrl(ValueError):
    """A URL that cannot be meant; the text says how one is written."""


class _Loop(msgspec.Struct):
    lag_ns_p50: int
    lag_ns_p99: int
    lag_ns_max: int


class _Status(msgspec.Struct):
    loop: _Loop


@value
class Glance:
    """A server at an instant. `is_total` where its counts are since the server's start."""

    reading: Reading
    loop: _Loop
    is_total: bool


class Watch:
    """Asks one server again and again, and keeps what it said last."""

    def __init__(self, url: str, token: str = "") -> None:
        """Raises BadUrl."""
        self.url = url if "//" in url else f"http://{url}"
        self._parts = _split(self.url)
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._readings: deque[Reading] = deque(maxlen=WINDOW + 1)

    def look(self) -> Glance:
        """Ask once. Raises NoServer. A server that has started anew is told apart from the one before."""
        reading = self._scrape()
        loop = self._status().loop
        if self._readings and reading.seconds < self._readings[-1].seconds:
            self._readings.clear()
        self._readings.append(reading)
        is_total = len(self._readings) == 1
        told = reading if is_total else reading.since(self._readings[0])
        return Glance(reading=told, loop=loop, is_total=is_total)

    def _scrape(self) -> Reading:
        try:
            return read_scrape(self._get(METRICS_PATH).decode("utf-8", "replace"))
        except MetricsError as error:
            raise self._no_server(str(error)) from error

    def _status(self) -> _Status:
        try:
            return msgspec.json.decode(self._get(STATUS_PATH), type=_Status)
        except msgspec.MsgspecError as error:
            raise self._no_server(f"{STATUS_PATH} says something else: {error}") from error

    def _get(self, path: str) -> bytes:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            secure = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=ANSWER_S_MAX, context=secure
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S_MAX)
        try:
            connection.request("GET", self._parts.path.rstrip("/") + path, headers=self._headers)
            reply = connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self._no_server(str(words)) from error
        finally:
            connection.close()
        if reply.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise self._no_server("it wants a token that may manage it; name one with --token")
        if reply.status != HTTPStatus.OK:
            raise self._no_server(f"{path} answers {reply.status}")
        return body

    def _no_server(self, words: str) -> NoServer:
        return NoServer(f"no Slotwise server at {self.url}: {words}")


def _split(url: str) -> SplitResult:
    advice = f"{url} is no URL of a server; write it as http://127.0.0.1:8000"
    try:
        parts = urlsplit(url)
        _ = parts.port  # read, for it is checked only then
    except ValueError as error:
        raise BadUrl(advice) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadUrl(advice)
    return parts


def show_once(watch: Watch, console: Console) -> None:
    """Print one view, of all since the server's start. Raises NoServer."""
    console.print(view(watch.look()))


def show(watch: Watch, console: Console, every_s: float) -> None:
    """Show the server until interrupted; one that goes is waited for. Raises NoServer if there is none at first."""
    pause = threading.Event()
    seen: RenderableType = view(watch.look())
    with Live(seen, console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while not pause.wait(every_s):
                seen = _again(watch, seen, live.update)
                live.refresh()
        except KeyboardInterrupt:
            return


def _again(watch: Watch, seen: RenderableType, update: Callable[[RenderableType], None]) -> RenderableType:
    """Look again; while there is no server, what was seen last stays under a line that says so."""
    try:
        seen = view(watch.look())
        update(seen)
    except NoServer as error:
        update(Group(Text(f"{error}; waiting for it", style="bold red"), seen))
    return seen


def view(glance: Glance) -> RenderableType:
    """Everything, as tables."""
    reading = glance.reading
    tables: list[RenderableType] = [_head(glance), _models(reading), _executors(reading)]
    misses = _misses(reading)
    if misses is not None:
        tables.insert(1, misses)
    return Group(*tables)


def _head(glance: Glance) -> Text:
    reading, loop = glance.reading, glance.loop
    ended = total(model.ended for model in reading.models.values())
    told, in_time = _sums(ended)
    span = "since its start" if glance.is_total else f"over the last {reading.seconds:.0f} s"
    lines = [
        f"Slotwise {reading.version}, policy {reading.policy}, {span}",
        f"goodput {_rate(in_time, reading)}/s of {_rate(told, reading)}/s told ({_share(in_time, told)} in time)",
        f"{reading.in_flight} requests under way, {reading.connections} connections, {_mb(reading.memory_bytes)} MB",
        f"loop behind by {_us(loop.lag_ns_p50)} us (p50), {_us(loop.lag_ns_p99)} (p99), {_us(loop.lag_ns_max)} (max)",
    ]
    if reading.rows_lost:
        lines.append(f"{reading.rows_lost:.0f} rows of the logs are lost: is the disk full?")
    return Text("\n".join(lines))


def _misses(reading: Reading) -> Table | None:
    ended = total(model.ended for model in reading.models.values())
    rows = sorted(
        ((count, outcome, reason) for (outcome, reason), count in ended.items() if count and outcome not in _FINE),
        reverse=True,
    )
    if not rows:
        return None
    table = _table("not answered in time", "outcome", "reason", "requests", "per s")
    for count, outcome, reason in rows:
        table.add_row(outcome, reason, f"{count:.0f}", _rate(count, reading))
    return table


def _models(reading: Reading) -> Table:
    table = _table(
        "models", "model", "told/s", "in time/s", "in time", "last minute", "p50 ms", "p99 ms", "refused", "other"
    )
    models = sorted(reading.models.items(), key=lambda item: (-_sums(item[1].ended)[0], item[0]))
    for name, one in models[:MODELS_MAX]:
        table.add_row(name, *_model_cells(one, reading))
    if len(models) > MODELS_MAX:
        table.add_row(f"and {len(models) - MODELS_MAX} more", *("",) * (len(table.columns) - 1))
    return table


def _model_cells(one: ModelReading, reading: Reading) -> tuple[str, ...]:
    told, in_time = _sums(one.ended)
    refused = sum(count for (outcome, _), count in one.ended.items() if outcome == Outcome.REFUSED.value)
    return (
        _rate(told, reading),
        _rate(in_time, reading),
        _share(in_time, told),
        "-" if one.attainment is None else f"{one.attainment:.1%}",
        _ms(one.latency, 0.5),
        _ms(one.latency, 0.99),
        f"{refused:.0f}",
        f"{told - in_time - refused:.0f}",
    )


def _executors(reading: Reading) -> Table:
    table = _table("executors", "executor", "state", "busy", "in flight", "restarts", "MB", "models")
    for name, one in sorted(reading.executors.items()):
        table.add_row(name, *_executor_cells(one, reading))
    return table


def _executor_cells(one: ExecutorReading, reading: Reading) -> tuple[str, ...]:
    names = sorted(one.models)
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return (
        "up" if one.is_up else "down",
        _share(one.busy_s, reading.seconds),
        str(one.in_flight),
        str(one.restarts),
        _mb(one.memory_bytes),
        (", ".join(names[:NAMES_MAX]) or "-") + more,
    )


_FINE = (Outcome.IN_TIME.value, Outcome.CANCELLED.value)


def _sums(ended: dict[tuple[str, str], float]) -> tuple[float, float]:
    """How many were told an end, which those whose client went away were not; and how many of them in time."""
    told = sum(count for (outcome, _), count in ended.items() if outcome != Outcome.CANCELLED.value)
    return told, sum(count for (outcome, _), count in ended.items() if outcome == Outcome.IN_TIME.value)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        is_text = index == 0 or column in ("reason", "state", "models")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=index == 0)
    return table


def _rate(count: float, reading: Reading) -> str:
    return f"{count / reading.seconds:.1f}" if reading.seconds > 0 else "-"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole > 0 else "-"


def _ms(spread: Spread, share: float) -> str:
    seconds = spread.quantile(share)
    return "-" if seconds is None else f"{seconds * 1e3:.2f}"


def _us(number_ns: int) -> str:
    return f"{number_ns / US:.0f}"


def _mb(nbytes: float | None) -> str:
    return "-" if nbytes is None else f"{nbytes / MB:.0f}"
