"""Rows into files, without anyone waiting for a disk: they are gathered, and a thread of its own writes them.

What cannot be kept is counted, by reason: rows that came while `rows_max` others waited are lost as `behind`, those
that the disk did not take as `unwritable`. After an error the next write begins a new file; nothing is ever raised.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from slotwise.edges.logs.files import LogFile, LogFolder, Row
from slotwise.edges.logs.recorder import LogRecorder
from slotwise.edges.logs.rows import ActionRow, RefusedRow, RequestRow
from slotwise.edges.logs.settings import Logs
from slotwise.engine.ports import LogSetting
from slotwise.facts.actions import Action
from slotwise.facts.events import Event
from slotwise.facts.statistics import LogUse
from slotwise.facts.types import Outcome

ROWS_AT_ONCE = 32
"""Made into text in one go: some 0.1 ms in which the thread keeps the interpreter to itself."""
FINE, FAILED = (Outcome.IN_TIME.value, Outcome.CANCELLED.value), Outcome.FAILED.value
ROWS_GATHERED = 1024
"""Without a thread, rows are written when there are so many."""


class Log:
    """One log: rows that wait, and files that take them. All but `put` belongs to whoever writes."""

    def __init__(self, name: str, kind: type[Row], settings: Logs) -> None:
        """Raises OSError when nothing can be written in the folder."""
        self._name = name
        self._folder = LogFolder(
            Path(settings.folder), name, kind, ending=settings.format, files_max=settings.files_max
        )
        self._bytes_max = settings.bytes_max
        self._rows_max = settings.rows_max
        self._waiting: deque[Row] = deque()
        self._file: LogFile | None = None
        self._written = self._behind = self._unwritable = 0

    def put(self, row: Row) -> None:
        """Take a row in, or lose it if there are too many already."""
        if len(self._waiting) < self._rows_max:
            self._waiting.append(row)
        else:
            self._behind += 1

    def write(self) -> None:
        """Write what waits by now. At an error the rest of it is lost."""
        left = len(self._waiting)
        while left > 0:
            rows = [self._waiting.popleft() for _ in range(min(left, ROWS_AT_ONCE))]
            try:
                self._append(rows)
            except OSError:
                self._fail(left)
                for _ in range(left - len(rows)):
                    self._waiting.popleft()
                return
            left -= len(rows)
            self._rotate(self._bytes_max)

    def close(self) -> None:
        """Write the rest, and end the file."""
        self.write()
        self._rotate(0)

    def statistics(self) -> LogUse:
        """A snapshot."""
        return LogUse(log=self._name, rows=self._written, rows_behind=self._behind, rows_unwritable=self._unwritable)

    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._waiting)

    def _append(self, rows: Sequence[Row]) -> None:
        if self._file is None:
            self._file = self._folder.begin()
        self._file.write(rows)
        self._written += len(rows)

    def _rotate(self, nbytes: int) -> None:
        """End a file that is as long as that."""
        if self._file is None or self._file.nbytes() < nbytes:
            return
        try:
            self._file.close()
            self._file = None
        except OSError:
            self._fail(0)

    def _fail(self, rows: int) -> None:
        """So many rows were not taken, and the file goes with what cannot be read of it."""
        self._unwritable += rows
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # the disk has failed already, which is what is counted here
                gone = file.give_up()
                self._written -= gone
                self._unwritable += gone


class LogFiles:
    """All logs over their files; a `ports.Recorder`. Whoever owns it calls `write` now and then, and `close`."""

    setting = LogSetting()
    """Which rows are kept; may be replaced at any time."""

    def __init__(self, settings: Logs) -> None:
        """Raises OSError when nothing can be written in the folder, which is made if need be."""
        self._requests = Log("requests", RequestRow, settings)
        self._actions = Log("actions", ActionRow, settings)
        self._refused = Log("refused", RefusedRow, settings)
        self._recorder = LogRecorder(self._put_request, self._put_action)
        self.put_refused = self._refused.put
        """Takes what a door has turned away."""

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in. No disk is waited for."""
        self._recorder.record(now_ns, events, actions)

    def write(self) -> None:
        """Write what waits."""
        for log in self._logs():
            log.write()

    def close(self) -> None:
        """Write the rest and end the files."""
        for log in self._logs():
            log.close()

    def waiting(self) -> int:
        """Rows of all of them that are not written yet."""
        return sum(log.waiting() for log in self._logs())

    def statistics(self) -> tuple[LogUse, ...]:
        """What was written and lost."""
        return tuple(log.statistics() for log in self._logs())

    def _logs(self) -> tuple[Log, ...]:
        return (self._requests, self._actions, self._refused)

    def _put_request(self, row: RequestRow) -> None:
        if row.result in FINE:
            is_kept = self.setting.info
        else:
            is_kept = self.setting.error if row.result == FAILED else self.setting.warning
        if is_kept:
            self._requests.put(row)

    def _put_action(self, row: ActionRow) -> None:
        if self.setting.actions:
            self._actions.put(row)


class DirectLogs:
    """Logs written by whoever records, for virtual time, in which a disk can be waited for."""

    def __init__(self, settings: Logs) -> None:
        """Raises as `LogFiles` does."""
        self._files = LogFiles(settings)

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in."""
        self._files.record(now_ns, events, actions)
        if self._files.waiting() >= ROWS_GATHERED:
            self._files.write()

    def close(self) -> tuple[LogUse, ...]:
        """Write the rest; says what was written and lost."""
        self._files.close()
        return self._files.statistics()


class ThreadedLogs:
    """Logs written by a thread, for a server, whose loop waits for no disk; a `ports.Logging`."""

    def __init__(self, settings: Logs) -> None:
        """Raises as `LogFiles` does."""
        self._files = LogFiles(settings)
        self._settings = settings
        self.folder, self.format = settings.folder, settings.format
        self.put_refused = self._files.put_refused
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="slotwise-logs", daemon=True)
        self._thread.start()

    def record(self, now_ns: int, events: Sequence[Event], actions: Sequence[Action]) -> None:
        """Take one turn in."""
        self._files.record(now_ns, events, actions)

    def statistics(self) -> tuple[LogUse, ...]:
        """What was written and lost so far."""
        return self._files.statistics()

    def setting(self) -> LogSetting:
        """Which rows are kept."""
        return self._files.setting

    def put(self, setting: LogSetting) -> None:
        """Keep these rows from now on."""
        self._files.setting = setting

    def close(self) -> None:
        """Write the rest, as far as the disk takes it within `close_s_max`. Blocks so long; harmless twice."""
        self._closing.set()
        self._thread.join(self._settings.close_s_max)

    def _work(self) -> None:
        while not self._closing.wait(self._settings.write_s):
            self._files.write()
        self._files.close()
