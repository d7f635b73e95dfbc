"""Further pages that a server puts beside the protocol's own: a path, and a value that is told as JSON."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route


def json_page(path: str, make: Callable[[], object]) -> BaseRoute:
    """A page at `path` that says what `make` returns when it is asked for."""

    async def say(_request: Request) -> Response:
        return Response(msgspec.json.encode(make()), media_type="application/json")

    return Route(path, say, methods=["GET"])
