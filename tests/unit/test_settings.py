"""Settings: what is said is kept, what is misspelt is refused with the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from slotwise.edges.repository.settings import Latest, Settings, Variant, Versions, read
from slotwise.engine.ports import ModelError

FULL = """
slo_ms = 50
batch_max = 8
batchable = true
priority = 2
weight = 1.5
versions = { latest = 2 }
accuracy = 0.9

[[variants]]
model = "small"
accuracy = 0.7

[[variants]]
file = "tiny.onnx"
accuracy = 0.5

[examples]
x = [1, 3, 320, 320]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "slotwise.toml"
    path.write_text(text)
    return path


def test_all_that_is_written_is_read(tmp_path: Path) -> None:
    assert read(write(tmp_path, FULL)) == Settings(
        slo_ms=50,
        batch_max=8,
        batchable=True,
        priority=2,
        weight=1.5,
        versions=Latest(2),
        accuracy=0.9,
        variants=(Variant(model="small", accuracy=0.7), Variant(file="tiny.onnx", accuracy=0.5)),
        examples={"x": (1, 3, 320, 320)},
    )


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read(write(tmp_path, "")) == Settings()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("slo = 50", "slo"),
        ("slo_ms = 'fast'", "slo_ms"),
        ("slo_ms = 0", "slo_ms"),
        ("slo_ms = nan", "slo_ms"),
        ("slo_ms = inf", "slo_ms"),
        ("weight = inf", "weight"),
        ("batch_max = 0", "batch_max"),
        ("batchable = 1", "batchable"),
        ("priority = 10", "priority"),
        ("weight = -1", "weight"),
        ("versions = 'some'", "versions"),
        ("versions = { newest = 1 }", "newest"),
        ("accuracy = 1.5", "accuracy"),
        ("[[variants]]\nmodel = 'a'", "accuracy"),
        ("[[variants]]\naccuracy = 1", "variants"),
        ("[[variants]]\nmodel = 'a'\nfile = 'b'\naccuracy = 1", "variants"),
        ("[examples]\nx = [-1, 3]", "examples"),
        ("slo_ms = ", "Invalid value"),
    ],
)
def test_a_fault_is_told_with_its_file_and_key(tmp_path: Path, text: str, fault: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ModelError) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert fault in str(raised.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slotwise.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"slotwise\.toml"):
        read(path)


def test_the_upper_settings_win_and_the_lower_fill_in() -> None:
    upper = Settings(slo_ms=10, versions="all")
    lower = Settings(slo_ms=20, batch_max=4, versions=(1,), examples={"x": (1,)})
    assert upper.over(lower) == Settings(slo_ms=10, batch_max=4, versions="all", examples={"x": (1,)})


@pytest.mark.parametrize(
    ("wish", "picked"),
    [
        (None, [7]),
        ("all", [2, 3, 7]),
        ((3, 9), [3]),
        ((9,), []),
        (Latest(1), [7]),
        (Latest(2), [3, 7]),
        (Latest(9), [2, 3, 7]),
    ],
)
def test_versions_are_picked_by_number_and_not_by_spelling(wish: Versions | None, picked: list[int]) -> None:
    assert Settings(versions=wish).pick([7, 2, 3], otherwise=Latest(1)) == picked
