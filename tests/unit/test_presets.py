"""Policies by name, and what is said when a name or a setting is wrong."""

from __future__ import annotations

import pytest

from slotwise.policy.placement import PlacementSettings
from slotwise.policy.presets import PresetError, build_controller, overridden
from slotwise.policy.schedulers import SCHEDULERS
from slotwise.policy.schedulers.clipper import ClipperSettings
from slotwise.policy.schedulers.clockwork import ClockworkSettings, mended, published
from slotwise.policy.schedulers.fifo import FifoSettings


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_policy_is_built_by_its_name(name: str) -> None:
    assert build_controller(name).handle([], 0) == []


def test_an_unknown_policy_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(PresetError, match=r"no policy 'clokwork'; there are .*clockwork, clockwork-published"):
        build_controller("clokwork")


def test_an_unknown_setting_is_an_error_that_names_it_its_policy_and_those_there_are() -> None:
    with pytest.raises(PresetError, match=r"policy bounded has no setting 'queue'; there are queue_max, serving"):
        build_controller("bounded", settings={"queue": 3})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bounded", {"queue_max": "8"}),
        ("bounded", {"queue_max": 8.5}),
        ("clockwork", {"batch_max": True}),
        ("clockwork", {"batch_sizes": 4}),
        ("clockwork", {"batch_sizes": [1, "2"]}),
        ("clockwork", {"is_failure_final": 1}),
        ("fifo", {"serving": 3}),
        ("fifo", {"serving": {"placement": {"spread": "no"}}}),
    ],
)
def test_a_value_of_another_type_is_an_error(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(PresetError, match=f"of policy {name} is .* it must be of type"):
        build_controller(name, settings=settings)


def test_what_settings_reject_themselves_is_told_with_the_policy() -> None:
    with pytest.raises(PresetError, match=r"policy clockwork: schedule_ahead_ns is 5; it must be above future_ns"):
        build_controller("clockwork", settings={"schedule_ahead_ns": 5})


def test_plain_values_change_settings_at_any_depth() -> None:
    changes = {"queue_max": 0, "serving": {"placement": {"spread": False}}}
    changed = overridden(FifoSettings(queue_max=4), changes, "bounded")
    assert changed.queue_max == 0
    assert changed.serving.ahead_ns == FifoSettings().serving.ahead_ns
    assert changed.serving.placement == PlacementSettings(spread=False, evict_waiting=True)


def test_whole_numbers_serve_as_fractions_and_lists_as_tuples() -> None:
    assert overridden(ClipperSettings(), {"step_rows": 2}, "clipper").step_rows == 2.0
    assert overridden(ClockworkSettings(), {"batch_sizes": [1, 3]}, "clockwork").batch_sizes == (1, 3)


def test_the_published_clockwork_differs_in_its_defects_alone() -> None:
    defects = [name for name in ClockworkSettings.__slots__ if getattr(published(), name) != getattr(mended(), name)]
    assert defects == ["is_slo_raised", "is_replication_endless", "is_demand_endless", "is_failure_final"]
