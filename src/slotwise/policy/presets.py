"""Controllers by name: a scheduler from the table, its settings with what the user has changed, and its estimates.

Changes are plain values by the names of settings' fields; settings within settings are mappings. Nothing is
guessed: an unknown name, a value of another type, or one that the settings themselves reject is an error
that says what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

from slotwise.policy.controller import Controller, Limits
from slotwise.policy.estimates import Estimates
from slotwise.policy.schedulers import SCHEDULERS, Preset
from slotwise.policy.view import View

NOTHING: Mapping[str, object] = MappingProxyType({})


class Settings(Protocol):
    """What `@value` makes, as the type checker sees it."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


S = TypeVar("S", bound=Settings)


class PresetError(ValueError):
    """A policy or setting that there is not; the text says what there is."""


def find_preset(name: str) -> Preset[Any]:
    """The preset of that name. Raises PresetError."""
    if name not in SCHEDULERS:
        raise PresetError(f"there is no policy {name!r}; there are {', '.join(SCHEDULERS)}")
    return SCHEDULERS[name]


def build_controller(
    name: str,
    *,
    settings: Mapping[str, object] = NOTHING,
    estimates: Mapping[str, object] = NOTHING,
    limits: Limits | None = None,
) -> Controller:
    """A controller under the policy of that name. What is given changes the preset's. Raises PresetError."""
    preset = find_preset(name)
    view = View(Estimates(overridden(preset.estimates, estimates, name)))
    scheduler = preset.build(view, overridden(preset.settings, settings, name))
    return Controller(view, scheduler, limits)


def overridden(settings: S, changes: Mapping[str, object], policy: str) -> S:
    """Settings with some fields changed. Raises PresetError, which names the field and the policy."""
    known = [field.name for field in fields(settings)]
    changed: dict[str, object] = {}
    for name, given in changes.items():
        if name not in known:
            raise PresetError(f"policy {policy} has no setting {name!r}; there are {', '.join(known)}")
        old = getattr(settings, name)
        if is_dataclass(old) and not isinstance(old, type) and isinstance(given, Mapping):
            changed[name] = overridden(old, given, policy)
        else:
            changed[name] = _converted(name, given, old, policy)
    try:
        return replace(settings, **changed)
    except ValueError as error:
        raise PresetError(f"policy {policy}: {error}") from error


def _converted(name: str, given: object, old: object, policy: str) -> object:
    """A plain value as one of the old value's type; whole numbers serve as fractions and lists as tuples."""
    if isinstance(old, tuple) and isinstance(given, list | tuple):
        return tuple(_converted(name, item, old[0], policy) for item in given)
    if type(given) is type(old):
        return given
    if type(given) is int and type(old) is float:
        return float(given)
    raise PresetError(f"setting {name!r} of policy {policy} is {given!r}; it must be of type {type(old).__name__}")
