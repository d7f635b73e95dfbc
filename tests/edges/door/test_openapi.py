"""docs/openapi.yaml describes the routes that are served: every one of them, and no other."""

from __future__ import annotations

import pytest
import yaml
from starlette.routing import Route

from slotwise.app import METRICS_PATH, STATUS_PATH
from tests.edges.echo import serving
from tests.edges.wire import Wire, post
from tests.repo.tree import ROOT

INFER = "/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"
FOR_BROWSERS = {"HEAD"}
"""Comes with every GET and is not described."""


def described() -> dict[str, set[str]]:
    paths = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8"))["paths"]
    return {
        path: {method.upper() for method in operations if method != "parameters"} for path, operations in paths.items()
    }


@pytest.mark.live
def test_the_description_has_the_routes_that_are_served_and_no_others() -> None:
    served: dict[str, set[str]] = {METRICS_PATH: {"GET"}, STATUS_PATH: {"GET"}, **{path: {"POST"} for path in INFER}}
    with serving() as system:
        for route in system.door._app.routes:
            assert isinstance(route, Route)
            assert route.path not in served, "one route for a path, so that the wrong method is told all right ones"
            served[route.path] = set(route.methods or ()) - FOR_BROWSERS
        with Wire(system.address) as wire:
            for path in INFER:
                assert wire.ask(post(path.format(name="nobody", version="1"), b"{}")).status == 404
    assert described() == served
