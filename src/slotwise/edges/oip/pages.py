"""Further pages that a server puts beside the protocol's own: values told as JSON, and texts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route


def json_page(path: str, make: Callable[[], object]) -> BaseRoute:
    """A page at `path` that says what `make` returns when it is asked for."""

    async def say(_request: Request) -> Response:
        return Response(msgspec.json.encode(make()), media_type="application/json")

    return Route(path, say, methods=["GET"])


def text_page(path: str, make: Callable[[str], Awaitable[tuple[bytes, str]]]) -> BaseRoute:
    """A page whose text and content type `make` finds, given the header Accept."""

    async def say(request: Request) -> Response:
        text, content_type = await make(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    return Route(path, say, methods=["GET"])
