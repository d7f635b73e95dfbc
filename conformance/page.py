"""docs/conformance.md, made of what was answered. Pure: the same answers make the same page."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from conformance.comparison import Row
from conformance.exchange import Answer

CELL_LEN_MAX = 80
OFTEN = 3
"""Words that stand so often in the tables get a number,"""
SHORT_LEN = 20
"""but for those that are no longer than this."""
ABOUT = """\
How Slotwise keeps to the Open Inference Protocol: beside Triton's own server, under standard clients that nobody has
changed, and under a program that makes requests out of [openapi.yaml](openapi.yaml). This page is written by
`python -m conformance --write docs/conformance.md`, which asks real servers and ends with 1 where a difference is not
explained or a client fails. `conformance/answers.json` holds every answer in full. Parameters whose names begin with
`slotwise_` (`slotwise_timing`, `slotwise_inputs`) are ours beside the protocol, and nothing is other than it where a
client does not use them.
"""
CHECKED = """\
Sound requests and broken ones (the checker's phases coverage and fuzzing), with the names of models, versions and
regions that there are and one of each that there is not. One of its usual checks is off: that a sound request is
accepted (`positive_data_acceptance`), since no description can say which tensors a model takes. 501 and 503 count as
answers, for they are told on purpose and say what to do; any other status from 500 on is a finding. For regions of
shared memory it is not asked that a broken request is refused: whatever stands in the path is a name.
"""
COMPARED = """\
Compared are the status, the content type and coding, `Allow`, and the whole body of an answer. Of a refusal the words
are each server's own: it counts that there are some. Left out is what differs by nature: instants, durations, paths,
the reason that a model does not load. Models are identities and a sum: ONNX here, Python in Triton, whose package on
PyPI has no backend for ONNX. Often the same thing differs for the same reason; in the tables its number stands for it:
"""


class Run(msgspec.Struct, frozen=True):
    """What a client did, and what came of it."""

    client: str
    what: str
    outcome: str
    is_well: bool


class Report(msgspec.Struct, frozen=True):
    """All of it, as `conformance/answers.json` keeps it."""

    versions: dict[str, str]
    rows: Sequence[Row] = ()
    runs: Sequence[Run] = ()
    findings: Sequence[Run] = ()
    """Of the checker that makes requests out of docs/openapi.yaml."""

    def faults(self) -> list[str]:
        """What must not be."""
        failed = [f"{run.client}: {run.what}: {run.outcome}" for run in (*self.runs, *self.findings) if not run.is_well]
        return [fault for row in self.rows for fault in row.faults()] + failed


def page(report: Report) -> str:
    """The page in Markdown."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield "# Conformance"
    yield ""
    yield ABOUT
    yield f"Versions: {', '.join(f'{name} {version}' for name, version in report.versions.items())}."
    yield ""
    yield "## Standard clients, unchanged"
    yield ""
    yield from _runs(report.runs, "client")
    yield "## Requests made from the OpenAPI description"
    yield ""
    yield CHECKED
    yield from _runs(report.findings, "checker")
    yield "## Beside Triton, request by request"
    yield ""
    yield _counted(report.rows)
    yield COMPARED
    legend = _legend(report.rows)
    yield from (f"{number}. {words}" for words, number in legend.items())
    yield ""
    for (protocol, section), rows in itertools.groupby(report.rows, lambda row: (row.protocol, row.section)):
        yield f"### {protocol}: {section}"
        yield ""
        yield "| request | | Slotwise | Triton | what differs, and why |"
        yield "| --- | --- | --- | --- | --- |"
        for row in rows:
            why = "; ".join(_why(way, row.why.get(way, "not explained"), legend) for way in row.differs)
            cells = (row.name, f"`{row.request}`", _answered(row.ours), _answered(row.triton), why)
            yield f"| {' | '.join(_cell(cell) for cell in cells)} |"
        yield ""


def _counted(rows: Sequence[Row]) -> str:
    """How much is alike, and what differs how often."""
    ways = Counter(way for row in rows for way in row.differs)
    alike = sum(not row.differs for row in rows)
    told = ", ".join(f"{way} {count}" for way, count in ways.most_common())
    return (
        f"{len(rows)} requests, the same bytes to both; {alike} are answered alike. What differs, how often: {told}.\n"
    )


def _legend(rows: Sequence[Row]) -> dict[str, int]:
    """A number for the words that stand often."""
    uses = Counter(row.why[way] for row in rows for way in row.differs if way in row.why)
    often = [words for words, count in uses.most_common() if count >= OFTEN and len(words) > SHORT_LEN]
    return {words: number for number, words in enumerate(often, start=1)}


def _why(way: str, words: str, legend: Mapping[str, int]) -> str:
    return f"{way} ({legend[words]})" if words in legend else f"{way}: {words}"


def _runs(runs: Sequence[Run], who: str) -> Iterator[str]:
    yield f"| {who} | what it does | outcome |"
    yield "| --- | --- | --- |"
    for run in runs:
        outcome = run.outcome if run.is_well else f"**failed**: {run.outcome}"
        yield f"| {_cell(run.client)} | {_cell(run.what)} | {_cell(outcome)} |"
    yield ""


def _answered(answer: Answer) -> str:
    """The status, and of a refusal its first words."""
    if answer.is_done():
        return answer.status
    told = answer.body.get("error", "") if isinstance(answer.body, dict) else answer.body
    words = str(told or "").partition("\n")[0]
    return f"{answer.status} {words}"[:CELL_LEN_MAX]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
