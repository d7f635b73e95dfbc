"""Stands before the routes of management: on which port they are, and who may use them. ASGI, no more."""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from slotwise.edges.oip.access import Access
from slotwise.edges.oip.errors import WireError

HEALTH = "/v2/health/"
"""Open to everybody: those who watch over a server have no token."""
MANAGING = (
    "/v2/repository/",
    "/v2/systemsharedmemory",
    "/v2/cudasharedmemory",
    "/v2/trace/",
    "/v2/logging",
    "/v2/slotwise/",
    "/metrics",
)
"""What changes a server, or tells more than a client need know."""
_MODELS = "/v2/models/"
_TRACE = "/trace/setting"
"""Behind a model's name, it belongs to what changes a server too."""
_ALL_STATS = "/v2/models/stats"


class Guard:
    """Lets a request through, or answers it with what `say` makes of the error.

    The `ports` for management, where there are any, are the only ones with the routes of `MANAGING`.
    """

    def __init__(
        self, app: ASGIApp, access: Access, ports: Collection[int], say: Callable[[Scope, WireError], Response]
    ) -> None:
        self._app = app
        self._access = access
        self._ports = ports
        self._say = say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            if scope["type"] == "http":
                self._check(scope)
        except WireError as error:
            await self._say(scope, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        path: str = scope["path"]
        if path.startswith(HEALTH):
            return
        authorization = next((text for name, text in scope["headers"] if name == b"authorization"), None)
        if path.startswith(MANAGING) or (path.startswith(_MODELS) and path.endswith(_TRACE)):
            if self._ports and (scope.get("server") or ("", None))[1] not in self._ports:
                raise WireError(HTTPStatus.NOT_FOUND, f"{path} is on the port for management, not on this one")
            self._access.check_manage(authorization)
        elif path == _ALL_STATS:
            self._access.check_read_all(authorization)
        else:
            self._access.check_read(authorization, _model_of(path))


def _model_of(path: str) -> str | None:
    return path.removeprefix(_MODELS).partition("/")[0] if path.startswith(_MODELS) else None
