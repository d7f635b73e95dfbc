"""The extensions for tracing and logging: what the server records of requests, told and changed while it runs.

Every key that is taken governs what it says from then on; one that cannot be honoured is refused by its name, and
then nothing of the request is done. Where spans go and where logs lie is the operator's to say, not a client's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from slotwise.edges.oip.errors import bad
from slotwise.engine.ports import UNBOUNDED, Logging, LogSetting, OwnTraceSetting, Tracing
from slotwise.facts.value import value

TRACE_EXTENSION, LOGGING_EXTENSION = "trace", "logging"
"""There where spans are sent, and where logs are kept."""
MODE = "opentelemetry"
OFF, TIMESTAMPS = "OFF", "TIMESTAMPS"
WITHOUT_END = "-1"
DIGITS_MAX = 18
"""Of a rate or a count."""
_WHOLE = re.compile(rf"0|[1-9][0-9]{{0,{DIGITS_MAX - 1}}}")
TraceChanges = Mapping[str, str | int | list[str] | None]
LogChanges = Mapping[str, bool | int | str | None]
_NO_TRACES = "no requests are traced at this server; its operator names a collector as `endpoint` under [traces]"
_NO_LOGS = "no logs are kept at this server; its operator names a `folder` under [logs]"
_FIXED_TRACES = {
    "trace_file": "spans go to a collector, `endpoint` under [traces], and to no file",
    "log_frequency": "spans go to a collector as they come, and to no file",
    "trace_config": "the collector is `endpoint` under [traces]",
}
_FLAGS = {"log_info": "info", "log_warning": "warning", "log_error": "error"}


class TraceDocument(msgspec.Struct, frozen=True):
    """`GET /v2/trace/setting`, for the server or for a model."""

    trace_level: list[str]
    trace_rate: str
    trace_count: str
    trace_mode: str = MODE


class LogDocument(msgspec.Struct, frozen=True):
    """`GET /v2/logging`."""

    log_file: str = ""
    log_info: bool = False
    log_warning: bool = False
    log_error: bool = False
    log_verbose_level: int = 0
    log_format: str = ""


@value
class Recording:
    """What there is to be set; None for what the server does not do at all."""

    tracing: Tracing | None = None
    logging: Logging | None = None

    def extensions(self) -> tuple[str, ...]:
        """Which of the two there are."""
        there = {TRACE_EXTENSION: self.tracing, LOGGING_EXTENSION: self.logging}
        return tuple(name for name, part in there.items() if part is not None)

    def traces(self, model: str = "") -> TraceDocument:
        """Which requests are traced, for a model or for all that set nothing for themselves."""
        if self.tracing is None:
            return TraceDocument([OFF], "1", "0")
        setting = self.tracing.setting(model)
        count = WITHOUT_END if setting.left == UNBOUNDED else str(setting.left)
        return TraceDocument([TIMESTAMPS if setting.is_on else OFF], str(setting.one_in), count)

    def change_traces(self, changes: TraceChanges, model: str = "") -> TraceDocument:
        """What holds after the changes; a null leaves a key to what stands above it. Raises WireError."""
        own = OwnTraceSetting() if self.tracing is None else self.tracing.own(model)
        is_on, one_in, left = own.is_on, own.one_in, own.left
        for key, told in changes.items():
            match key:
                case "trace_level":
                    is_on = _level(told)
                case "trace_rate":
                    one_in = None if told is None else _whole(key, told, 1)
                case "trace_count":
                    left = None if told is None else _count(key, told)
                case _:
                    _check_fixed(key, told)
        if self.tracing is not None:
            self.tracing.put(OwnTraceSetting(is_on=is_on, one_in=one_in, left=left), model)
        elif is_on or one_in is not None or left is not None:
            raise bad(f"{', '.join(changes)}: {_NO_TRACES}")
        return self.traces(model)

    def logs(self) -> LogDocument:
        """Which rows the logs keep."""
        if self.logging is None:
            return LogDocument()
        setting = self.logging.setting()
        return LogDocument(
            log_file=self.logging.folder,
            log_info=setting.info,
            log_warning=setting.warning,
            log_error=setting.error,
            log_verbose_level=int(setting.actions),
            log_format=self.logging.format,
        )

    def change_logs(self, changes: LogChanges) -> LogDocument:
        """What holds after the changes. Raises WireError."""
        now = msgspec.structs.asdict(self.logs())
        for key, told in changes.items():
            if key not in now:
                raise bad(f"there is no log setting {key!r}; there are {', '.join(now)}")
            if self.logging is None and told != now[key]:
                raise bad(f"{key}: {_NO_LOGS}")
            _check_log(key, told, now[key])
            now[key] = told
        if self.logging is not None:
            rows = {field: bool(now[key]) for key, field in _FLAGS.items()}
            self.logging.put(LogSetting(**rows, actions=bool(now["log_verbose_level"])))
        return self.logs()


def _level(told: object) -> bool | None:
    """Whether to trace at all; None where that is not said."""
    levels = [told] if isinstance(told, str) else told
    if levels is None:
        return None
    for level in levels if isinstance(levels, list) else [levels]:
        if level not in (OFF, TIMESTAMPS):
            raise bad(f"trace_level: {level!r} cannot be traced; there are {OFF} and {TIMESTAMPS}")
    return levels not in ([], [OFF])


def _count(key: str, told: object) -> int:
    return UNBOUNDED if str(told) == WITHOUT_END else _whole(key, told, 0)


def _whole(key: str, told: object, least: int) -> int:
    """A whole number, which the protocol writes as a text."""
    text = str(told)
    if not (_WHOLE.fullmatch(text) and int(text) >= least):
        raise bad(f"{key}: {text!r} is no whole number from {least} to {DIGITS_MAX} digits")
    return int(text)


def _check_fixed(key: str, told: object) -> None:
    """Raise WireError for what cannot be changed, and for what there is not."""
    if key == "trace_mode":
        if told not in (None, MODE):
            raise bad(f"trace_mode: it is {MODE!r} and cannot be changed")
    elif key in _FIXED_TRACES:
        raise bad(f"{key}: {_FIXED_TRACES[key]}")
    else:
        raise bad(f"there is no trace setting {key!r}; there are {', '.join(TraceDocument.__struct_fields__)}")


def _check_log(key: str, told: object, now: object) -> None:
    if key == "log_verbose_level":
        if told not in (0, 1) or isinstance(told, bool):
            raise bad(f"{key}: {told!r} says nothing here; 1 keeps a row for each action, 0 keeps none")
    elif key in _FLAGS:
        if not isinstance(told, bool):
            raise bad(f"{key}: {told!r} is neither true nor false")
    elif told != now:
        name = "folder" if key == "log_file" else "format"
        raise bad(f"{key}: it cannot be changed while the server runs; it is `{name}` under [logs]")
