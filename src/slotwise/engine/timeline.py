"""Reads a journal as a timeline: who ran what when, how every request ended, which executors were lost. Pure.

Of the lines that `journal` writes it keeps what has an extent in time. A batch that never came back is closed
where its executor was lost, or where the journal ends. The last line may be torn, as a killed server leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from slotwise.engine.journal import JournalError, read_header
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived, BatchDone, BatchFailed, ExecutorLost, ExecutorUp, ModelAdded
from slotwise.facts.timeline import Asked, Bar, Loss, Timeline
from slotwise.facts.types import Request
from slotwise.facts.value import value


class _Spec(msgspec.Struct):
    id: str
    slo_ns: int


class _Added(msgspec.Struct):
    spec: _Spec


class _Run(msgspec.Struct):
    """A `RunBatch` as the journal writes it, its requests as ids."""

    executor: str
    batch_id: int
    model: str
    requests: tuple[int, ...]
    rows: int
    expected_ns: int


class _Arrived(msgspec.Struct):
    request: Request


_Line = tuple[int, list[tuple[str, msgspec.Raw]], list[tuple[str, msgspec.Raw]]]
_decode_line = msgspec.json.Decoder(_Line).decode
Decode = Callable[[msgspec.Raw], object]
_DECODERS: dict[str, Decode] = {
    ModelAdded.__name__: msgspec.json.Decoder(_Added).decode,
    Arrived.__name__: msgspec.json.Decoder(_Arrived).decode,
    BatchDone.__name__: msgspec.json.Decoder(BatchDone).decode,
    BatchFailed.__name__: msgspec.json.Decoder(BatchFailed).decode,
    ExecutorLost.__name__: msgspec.json.Decoder(ExecutorLost).decode,
    ExecutorUp.__name__: msgspec.json.Decoder(ExecutorUp).decode,
    "RunBatch": msgspec.json.Decoder(_Run).decode,
    Reply.__name__: msgspec.json.Decoder(Reply).decode,
}
"""What has an extent in time; everything else in a journal is passed over."""


@value
class _Sent:
    run: _Run
    sent_ns: int


def read_timeline(lines: Iterable[bytes]) -> Timeline:
    """The timeline of a journal with its header. Raises JournalError; a torn last line is left out."""
    reader = _Reader()
    for now_ns, moment in read_moments(lines, _DECODERS):
        reader.take(now_ns, moment)
    return reader.timeline()


def read_moments(lines: Iterable[bytes], decoders: Mapping[str, Decode]) -> Iterator[tuple[int, object]]:
    """Every event and action of a journal that has a decoder under its name, with its instant, in order.

    Each turn begins with None. Raises JournalError; a torn last line is left out.
    """
    numbered = enumerate(lines, start=1)
    _, header = next(numbered, (1, b""))
    read_header(header)
    for number, line in numbered:
        if not line.endswith(b"\n"):
            return  # torn: the server died while writing it, or is about to write the rest
        yield from _moments(number, line, decoders)


def _moments(number: int, line: bytes, decoders: Mapping[str, Decode]) -> Iterator[tuple[int, object]]:
    try:
        now_ns, events, actions = _decode_line(line)
        yield now_ns, None  # time goes on in a turn in which nothing happens, too
        for name, fields in (*events, *actions):
            decode = decoders.get(name)
            if decode is not None:
                yield now_ns, decode(fields)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(f"line {number}: {error}") from error


class _Reader:
    """Puts the two ends of each thing together."""

    def __init__(self) -> None:
        self._start_ns: int | None = None
        self._end_ns = 0
        self._executors: dict[str, None] = {}
        self._slo_ns: dict[str, int] = {}
        self._sent: dict[int, _Sent] = {}
        self._bars: list[Bar] = []
        self._free_ns: dict[str, int] = {}
        """When the last bar of each executor ended."""
        self._asked: dict[int, Asked] = {}
        self._losses: list[Loss] = []

    def take(self, now_ns: int, moment: object) -> None:
        """One event or action, in the journal's order; None is the mere passing of time."""
        self._start_ns = now_ns if self._start_ns is None else self._start_ns
        self._end_ns = now_ns
        match moment:
            case _Added(spec=spec):
                self._slo_ns[spec.id] = spec.slo_ns
            case _Arrived(request=request):
                self._ask(request)
            case _Run():
                self._sent[moment.batch_id] = _Sent(run=moment, sent_ns=now_ns)
            case BatchDone():
                self._close(moment.batch_id, moment.started_ns, moment.ended_ns, "")
            case BatchFailed():
                started_ns, ended_ns = moment.started_ns or now_ns, moment.ended_ns or now_ns
                self._close(moment.batch_id, started_ns, ended_ns, moment.failure.value)
            case ExecutorLost():
                self._lose(now_ns, moment)
            case ExecutorUp():
                self._come_back(now_ns, moment.executor)
            case Reply():
                self._reply(now_ns, moment)

    def timeline(self) -> Timeline:
        """All that was read."""
        for batch_id in list(self._sent):
            self._cut(batch_id, self._end_ns, "unfinished")
        return Timeline(
            start_ns=self._start_ns or 0,
            end_ns=self._end_ns,
            executors=tuple(sorted(self._executors)),
            slo_ns=self._slo_ns,
            bars=tuple(sorted(self._bars, key=lambda bar: (bar.started_ns, bar.batch_id))),
            asked=tuple(self._asked.values()),
            losses=tuple(self._losses),
        )

    def _ask(self, request: Request) -> None:
        self._asked[request.id] = Asked(
            id=request.id, model=request.model, arrival_ns=request.arrival_ns, deadline_ns=request.deadline_ns
        )

    def _reply(self, now_ns: int, reply: Reply) -> None:
        asked = self._asked.get(reply.request_id)
        if asked is None:
            return  # it came before the journal began
        timing = reply.timing
        self._asked[reply.request_id] = Asked(
            id=asked.id,
            model=asked.model,
            arrival_ns=asked.arrival_ns,
            deadline_ns=asked.deadline_ns,
            replied_ns=now_ns,
            outcome=reply.outcome,
            reason=reply.reason,
            executor=timing.executor if timing else "",
            ended_ns=timing.ended_ns if timing else None,
        )

    def _close(self, batch_id: int, started_ns: int, ended_ns: int, trouble: str) -> None:
        sent = self._sent.pop(batch_id, None)
        if sent is None:
            return  # its executor was lost before, and the bar has been drawn
        run = sent.run
        self._free_ns[run.executor] = max(ended_ns, self._free_ns.get(run.executor, 0))
        self._bars.append(
            Bar(
                batch_id=batch_id,
                executor=run.executor,
                model=run.model,
                request_ids=run.requests,
                rows=run.rows,
                sent_ns=sent.sent_ns,
                started_ns=started_ns,
                ended_ns=max(started_ns, ended_ns),
                expected_ns=run.expected_ns,
                trouble=trouble,
            )
        )

    def _cut(self, batch_id: int, at_ns: int, trouble: str) -> None:
        """End a batch that will not be reported: it began when it was sent, or when the one before it ended."""
        sent = self._sent[batch_id]
        started_ns = min(at_ns, max(sent.sent_ns, self._free_ns.get(sent.run.executor, 0)))
        self._close(batch_id, started_ns, at_ns, trouble)

    def _lose(self, now_ns: int, lost: ExecutorLost) -> None:
        for batch_id in [batch_id for batch_id, sent in self._sent.items() if sent.run.executor == lost.executor]:
            self._cut(batch_id, now_ns, "executor_lost")
        self._losses.append(Loss(executor=lost.executor, lost_ns=now_ns, message=lost.message))

    def _come_back(self, now_ns: int, executor: str) -> None:
        self._executors[executor] = None
        for index, loss in enumerate(self._losses):
            if loss.executor == executor and loss.back_ns is None:
                self._losses[index] = Loss(
                    executor=executor, lost_ns=loss.lost_ns, message=loss.message, back_ns=now_ns
                )
