"""docs/conformance.md is what conformance/answers.json makes, and nothing in it is left unexplained."""

from __future__ import annotations

import msgspec
import pytest

from conformance.comparison import Row, differences
from conformance.exchange import Answer
from conformance.page import Report, page
from tests.repo.tree import ROOT


@pytest.fixture(scope="module")
def report() -> Report:
    return msgspec.json.decode((ROOT / "conformance" / "answers.json").read_bytes(), type=Report)


def test_the_page_is_made_of_the_answers(report: Report) -> None:
    assert (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8") == page(report)


def test_every_difference_is_explained_and_every_client_did_well(report: Report) -> None:
    assert report.faults() == []
    assert len(report.rows) > 200
    assert len(report.runs) > 30
    assert report.findings


@pytest.mark.parametrize(
    ("ours", "triton", "found"),
    [
        (Answer("200", {}, {"a": 1}), Answer("200", {}, {"a": 1.0}), []),
        (Answer("200", {}, {"a": 1, "ns": 5}), Answer("200", {}, {"a": 1}), []),
        (Answer("200", {}, [{"name": "b"}, {"name": "a"}]), Answer("200", {}, [{"name": "a"}, {"name": "b"}]), []),
        (Answer("200", {}, {"a": 1}), Answer("200", {}, {"a": 2}), ["body"]),
        (Answer("200", {}, None, "00"), Answer("200", {}, None, "01"), ["binary"]),
        (Answer("400", {}, {"error": "so"}), Answer("400", {}, {"error": "otherwise"}), []),
        (Answer("400", {}, {"error": "so"}), Answer("400", {}, {}), ["error in words"]),
        (Answer("400", {"Allow": "GET"}), Answer("404"), ["status", "Allow"]),
    ],
)
def test_what_a_client_would_notice_is_a_difference(ours: Answer, triton: Answer, found: list[str]) -> None:
    assert differences(ours, triton, hidden=("ns",)) == found


def test_a_difference_without_words_and_words_without_a_difference_are_faults() -> None:
    row = Row("HTTP", "s", "n", "GET /", Answer("200"), Answer("404"), ["status"], {"body": "it was so"})
    assert row.faults() == ["n: the status differs and nothing explains it", "n: the body does not differ any more"]
