"""What fuzzing begins with, what once found a fault, and some hundred changes of both: none finds a fault now.

The targets in process; those before a server are in tests/live/test_attacks.py. `python -m fuzz` runs millions.
"""

from __future__ import annotations

import random

import pytest

from fuzz.loop import time_limit
from fuzz.mutate import Mutator
from fuzz.target import kept
from fuzz.targets import IN_PROCESS, WORDS, make

pytestmark = pytest.mark.slow

CASES = 300
CASE_S_MAX = 20.0


@pytest.mark.parametrize("name", IN_PROCESS)
def test_what_is_sent_is_an_answer_or_a_declared_error(name: str) -> None:
    target = make(name)
    known = [*target.seeds(), *kept(name)]
    mutator = Mutator(known, WORDS[name])
    drawn = [mutator.draw(random.Random(f"{name}/{number}")) for number in range(CASES)]
    for data in [*known, *drawn]:
        with time_limit(CASE_S_MAX):
            target.run(data)
    target.check()
    target.close()


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_case_is_named_by_its_seed_and_its_number(name: str) -> None:
    mutator = Mutator([b'{"a": [1, 2]}', b"plain"], WORDS[name])
    assert mutator.draw(random.Random("x/1/5")) == mutator.draw(random.Random("x/1/5"))
