"""The shipped profiles, copies of a model, and the fleet of Clockwork's paper."""

from __future__ import annotations

import pytest

from slotwise.config import ConfigError
from slotwise.facts.profile import problems
from slotwise.facts.residency import Residency
from slotwise.facts.units import MS
from slotwise.simulation.fleets import clockwork_fleet
from slotwise.simulation.models import copies
from slotwise.simulation.profiles import SOURCES, shipped_profile, shipped_profiles


def test_the_table_of_clockwork_s_paper_is_exact() -> None:
    profile = shipped_profile("resnet50")
    assert profile.rows == (1, 2, 4, 8, 16)
    assert [ns / MS for ns in profile.run_ns] == [2.61, 3.78, 5.61, 9.13, 15.67]
    assert (profile.load_ns / MS, profile.memory_bytes) == (8.33, 102_300_000)
    assert sum(row.source == "table-1" for row in shipped_profiles().values()) == 6


def test_every_shipped_profile_is_sound_and_says_where_it_is_from() -> None:
    assert len(shipped_profiles()) == 74
    for row in shipped_profiles().values():
        assert problems(row.profile) == [], row.name
        assert row.source in SOURCES


def test_an_unknown_profile_is_an_error_that_says_where_the_known_ones_are() -> None:
    with pytest.raises(ConfigError, match=r"no shipped profile 'resnet51'; `slotwise simulate --profiles`"):
        shipped_profile("resnet51")


def test_a_gpu_of_clockwork_s_holds_196_copies_of_resnet50() -> None:
    slice_ = clockwork_fleet(2).slices[1]
    books = Residency(slice_.memory_bytes, slice_.page_bytes)
    specs = copies("resnet50", shipped_profile("resnet50"), 300, slo_ns=100 * MS)
    held = 0
    while books.can_load(specs[held].profile.memory_bytes):
        books.begin_load(specs[held].id, specs[held].profile.memory_bytes, held)
        held += 1
    assert (slice_.executor, books.pages_needed(102_300_000), held) == ("gpu1", 7, 196)


def test_one_copy_keeps_its_name_and_several_are_numbered() -> None:
    profile = shipped_profile("resnet18")
    assert [spec.id for spec in copies("m", profile, slo_ns=MS)] == ["m/1"]
    assert [spec.id for spec in copies("m", profile, 2, slo_ns=MS, batch_max=8)] == ["m-0/1", "m-1/1"]
    assert [spec.batch_max for spec in copies("m", profile, 2, slo_ns=MS)] == [16, 16]
