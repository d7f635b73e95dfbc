"""On which line a key stands, in TOML and in JSON."""

from __future__ import annotations

import pytest

from slotwise.simulation.places import json_places, line_of, toml_places

TOML = '''# A comment
seconds = 5

[fleet]
executors = 2 # [not a table]

[[models]]
name = "a"
rows = [
    1,
    2,
]
text = """
[[models]]
"""

  [[models]]
  name = "b # ["
  more.deep = 3
  runs = [{ at = 1 }, { at = 2 }]

[[nodes]]
[[nodes.devices]]
kind = "x"
[[nodes.devices]]
kind = "y"
[nodes.place]
room = 1
[[nodes]]
[[nodes.devices]]
kind = "z"
'''
JSON = """[
  {"model": "a/1", "rows": [1, 2],
   "run_ms": [
     1.5,
     "x, ]"
   ]},
  {"model": "b\\"{", "deep": {"er": {}, "empty": []},
   "last": null}
]
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("$.seconds", 2),
        ("$.fleet", 4),
        ("$.fleet.executors", 5),
        ("$.models", 7),
        ("$.models[0]", 7),
        ("$.models[0].rows[1]", 9),
        ("$.models[0].text", 13),
        ("$.models[1]", 17),
        ("$.models[1].name", 18),
        ("$.models[1].more.deep", 19),
        ("$.models[1].runs[1].at", 20),
        ("$.nodes[0].devices[1].kind", 26),
        ("$.nodes[0].place.room", 28),
        ("$.nodes[1].devices[0].kind", 31),
        ("$.models[1].missing", 17),
        ("$.models[1].more[...]", 19),
        ("$.missing[3].name", 1),
        ("$", 1),
    ],
)
def test_a_key_of_toml_is_found_on_its_line_and_one_that_is_missing_where_its_table_begins(
    path: str, line: int
) -> None:
    assert line_of(toml_places(TOML), path) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("$", 1),
        ("$[0]", 2),
        ("$[0].rows[1]", 2),
        ("$[0].run_ms", 3),
        ("$[0].run_ms[0]", 4),
        ("$[0].run_ms[1]", 5),
        ("$[1].model", 7),
        ("$[1].deep.er", 7),
        ("$[1].last", 8),
        ("$[1].missing", 7),
        ("$[7]", 1),
    ],
)
def test_an_item_of_json_is_found_on_its_line(path: str, line: int) -> None:
    assert line_of(json_places(JSON), path) == line


def test_ends_of_lines_are_those_of_toml_and_no_others() -> None:
    text = 'a = "one\u2028line"\r\n\r\n[t]\r\nb = 1\r\n'
    assert (line_of(toml_places(text), "$.a"), line_of(toml_places(text), "$.t.b")) == (1, 4)


def test_a_value_without_an_end_in_sight_is_given_up_and_what_stands_above_it_is_found() -> None:
    text = "a = 1\nlong = [\n" + "1,\n" * 2000 + "]\nb = 2\n"
    assert line_of(toml_places(text), "$.a") == 1
    assert line_of(toml_places(text), "$.b") == 1
