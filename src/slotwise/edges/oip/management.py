"""Every route of the protocol but inference: health, metadata, configuration, statistics, repository. An ASGI app.

Bodies satisfy both families of clients: those that look at the status only, and those that read JSON from
health replies. Errors are JSON everywhere, 404 and 405 too. A version in the path is a string, compared as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from http import HTTPStatus
from typing import Annotated, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from slotwise.edges.oip import documents
from slotwise.edges.oip.access import Access
from slotwise.edges.oip.errors import WireError, bad, refusal, retry_after_headers, too_large
from slotwise.edges.oip.guard import Guard
from slotwise.edges.oip.limits import Limits
from slotwise.edges.oip.recording import Recording
from slotwise.edges.oip.regions import Regions, unknown_region
from slotwise.engine.ports import ModelCounts, ModelError, Models, ModelState, ModelStatus, Refused
from slotwise.facts.types import ModelSpec
from slotwise.facts.value import value

_T = TypeVar("_T")
_ROUTING = {404: "there is no route {path}", 405: "{method} does not go with {path}"}
_LIVE = {"live": True}
_TRUE = msgspec.Raw(b"true")
_READY = {"live": True, "ready": True}


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _RegionRequest(msgspec.Struct):
    key: str
    byte_size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
    offset: Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)] = 0


class _ControlRequest(msgspec.Struct):
    parameters: dict[str, msgspec.Raw] = {}


@value
class Identity:
    """What the server says of itself. `epoch_ns` is the Unix time at which the engine's clock stood at zero."""

    name: str
    version: str
    epoch_ns: int = 0


class Management:
    """Answers the management routes."""

    def __init__(
        self,
        *,
        models: Models,
        statistics: ModelCounts,
        identity: Identity,
        limits: Limits,
        regions: Regions,
        recording: Recording,
        access: Access,
        refused: Refused,
        ports: Collection[int],
        is_ready: Callable[[], bool],
        is_initializing: Callable[[], bool],
    ) -> None:
        """`ports` are those for management, where they differ from those for inference."""
        self._models = models
        self._statistics = statistics
        self._identity = identity
        self._limits = limits
        self._regions = regions
        self._recording = recording
        self._access = access
        self._refused = refused
        self._ports = ports
        self._is_ready = is_ready
        self._is_initializing = is_initializing

    def app(self, more: Sequence[BaseRoute] = ()) -> Starlette:
        """The ASGI app, with more routes beside the protocol's own."""
        app = Starlette(
            routes=[
                *self._server_routes(),
                *self._model_routes(),
                *self._region_routes(),
                *self._recording_routes(),
                *more,
            ],
            middleware=[Middleware(Guard, access=self._access, ports=self._ports, say=self._say_wire)],
            exception_handlers=dict.fromkeys((WireError, ModelError, HTTPException, Exception), self._say),
        )
        app.router.redirect_slashes = False
        return app

    def _server_routes(self) -> list[BaseRoute]:
        return [
            Route("/v2", self._server),
            Route("/v2/", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v2/models/stats", self._all_stats),
            Route("/v2/repository/index", self._index, methods=["POST"]),
            Route("/v2/repository/models/{name}/load", self._load, methods=["POST"]),
            Route("/v2/repository/models/{name}/unload", self._unload, methods=["POST"]),
        ]

    def _model_routes(self) -> list[BaseRoute]:
        endpoints = {"": self._metadata, "/ready": self._model_ready, "/config": self._config, "/stats": self._stats}
        return [
            Route(f"/v2/models/{{name}}{version}{ending}", endpoint)
            for version in ("/versions/{version}", "")
            for ending, endpoint in endpoints.items()
        ]

    def _region_routes(self) -> list[BaseRoute]:
        """Shared memory of clients: that of the system, and for CUDA the answer that there is none."""
        found: list[BaseRoute] = []
        for kind in ("system", "cuda"):
            root = f"/v2/{kind}sharedmemory"
            register = self._register if kind == "system" else self._register_cuda
            status = self._region_status if kind == "system" else self._cuda_status
            found += [
                Route(f"{root}/status", status),
                Route(f"{root}/region/{{region}}/status", status),
                Route(f"{root}/region/{{region}}/register", register, methods=["POST"]),
                Route(f"{root}/unregister", self._unregister, methods=["POST"]),
                Route(f"{root}/region/{{region}}/unregister", self._unregister, methods=["POST"]),
            ]
        return found

    def _recording_routes(self) -> list[BaseRoute]:
        """Told with GET, changed with POST."""
        endpoints = {
            "/v2/trace/setting": self._traces,
            "/v2/models/{name}/trace/setting": self._traces,
            "/v2/logging": self._logs,
        }
        return [Route(path, endpoint, methods=["GET", "POST"]) for path, endpoint in endpoints.items()]

    async def _server(self, request: Request) -> Response:
        more = (documents.SHARED_MEMORY_EXTENSION,) if self._limits.shared_memory else ()
        extensions = tuple(sorted((*documents.EXTENSIONS, *more, *self._recording.extensions())))
        return _json(documents.ServerMetadata(self._identity.name, self._identity.version, extensions))

    async def _live(self, request: Request) -> Response:
        return _json(_LIVE)

    async def _ready(self, request: Request) -> Response:
        if self._is_ready():
            return _json(_READY)
        return _json({"live": True, "ready": False}, HTTPStatus.SERVICE_UNAVAILABLE, self._limits.retry_after_ns)

    async def _metadata(self, request: Request) -> Response:
        spec = self._spec(request)
        ready = [status.version for status in self._models.index() if status.name == spec.name and status.spec]
        return _json(documents.model_metadata(spec, ready))

    async def _model_ready(self, request: Request) -> Response:
        return _json({"name": self._spec(request).name, "ready": True})

    async def _config(self, request: Request) -> Response:
        return _json(documents.model_config(self._spec(request)))

    async def _stats(self, request: Request) -> Response:
        return _json(self._statistics_of([self._spec(request)]))

    async def _all_stats(self, request: Request) -> Response:
        return _json(self._statistics_of([status.spec for status in self._models.index() if status.spec]))

    async def _index(self, request: Request) -> Response:
        asked = await self._read(request, _IndexRequest)
        lines = [
            documents.index_line(status)
            for status in self._models.index()
            if status.state is ModelState.READY or not asked.ready
        ]
        return _json(lines)

    async def _load(self, request: Request) -> Response:
        asked = await self._read(request, _ControlRequest)
        if asked.parameters:
            names = ", ".join(asked.parameters)
            raise bad(f"a model is loaded as it lies in the repository; {names} cannot be given with the request")
        await self._models.load(request.path_params["name"])
        return Response()

    async def _unload(self, request: Request) -> Response:
        asked = await self._read(request, _ControlRequest)
        name = request.path_params["name"]
        status = self._models.find(name)
        steps = status.spec.steps if status is not None and status.spec is not None else ()
        await self._models.unload(name)
        if asked.parameters.get("unload_dependents") == _TRUE:
            for member in dict.fromkeys(step.model.rpartition("/")[0] for step in steps):
                await self._models.unload(member)
        return Response()

    async def _register(self, request: Request) -> Response:
        asked = await self._read(request, _RegionRequest)
        self._regions.register(request.path_params["region"], asked.key, asked.offset, asked.byte_size)
        return Response()

    async def _register_cuda(self, request: Request) -> Response:
        raise WireError(HTTPStatus.NOT_IMPLEMENTED, "there is no memory of a GPU here; register system shared memory")

    async def _region_status(self, request: Request) -> Response:
        return _json(self._regions.status(request.path_params.get("region")))

    async def _cuda_status(self, request: Request) -> Response:
        if "region" in request.path_params:
            raise unknown_region(request.path_params["region"])
        return _json([])

    async def _unregister(self, request: Request) -> Response:
        if "/systemsharedmemory" in request.scope["path"]:
            self._regions.unregister(request.path_params.get("region"))
        return Response()

    async def _traces(self, request: Request) -> Response:
        model = self._traced(request)
        if request.method != "POST":
            return _json(self._recording.traces(model))
        changes = await self._read(request, dict[str, str | int | list[str] | None])
        return _json(self._recording.change_traces(changes, model))

    async def _logs(self, request: Request) -> Response:
        if request.method != "POST":
            return _json(self._recording.logs())
        return _json(self._recording.change_logs(await self._read(request, dict[str, bool | int | str | None])))

    def _traced(self, request: Request) -> str:
        """The model that a trace setting is for; empty for all. Raises WireError when there is no such model."""
        name: str = request.path_params.get("name", "")
        return self._spec(request).name if name else ""

    def _spec(self, request: Request) -> ModelSpec:
        name, version = request.path_params["name"], request.path_params.get("version", "")
        status = self._models.find(name, version)
        if status is None and self._is_initializing():
            raise initializing(self._limits.retry_after_ns)
        return spec_of(status, name, version, self._limits.retry_after_ns)

    def _statistics_of(self, specs: list[ModelSpec]) -> documents.StatisticsDocument:
        epoch_ns = self._identity.epoch_ns
        return documents.StatisticsDocument(
            [documents.model_statistics(spec, self._statistics.model(spec.id), epoch_ns) for spec in specs]
        )

    async def _say(self, request: Request, error: Exception) -> Response:
        return self._say_wire(request.scope, _as_wire(request, error))

    def _say_wire(self, scope: Scope, error: WireError) -> Response:
        self._refused(refusal(scope["client"], scope["path"], error))
        headers = _texts(error.headers())
        return Response(error.body(), status_code=error.status, media_type="application/json", headers=headers)

    async def _read(self, request: Request, kind: type[_T]) -> _T:
        """The body, which may be absent."""
        body = b""
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > self._limits.management_bytes_max:
                    raise too_large(f"the body has more than {self._limits.management_bytes_max} bytes, the limit")
        except ClientDisconnect as gone:
            raise bad("the client went away inside its request") from gone
        try:
            return msgspec.json.decode(body or b"{}", type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise bad(f"the body is not what this route takes: {error}") from error


def spec_of(status: ModelStatus | None, name: str, version: str, retry_after_ns: int) -> ModelSpec:
    """The spec of a version that can be asked. Raises WireError: 404 when there is none, 503 when it is not ready."""
    if status is None:
        which = f"version {version!r} of model {name!r}" if version else f"model {name!r}"
        raise WireError(HTTPStatus.NOT_FOUND, f"unknown model: there is no {which}", reason="unknown_model")
    if status.spec is None:
        which = f"model {status.name!r} version {status.version!r}" if status.version else f"model {status.name!r}"
        what = f"{which} is {status.state.value}"
        raise WireError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{what}: {status.reason}" if status.reason else what,
            reason="not_ready",
            retry_after_ns=retry_after_ns,
        )
    return status.spec


def initializing(retry_after_ns: int) -> WireError:
    """What is said of models while they are still being read."""
    return WireError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the server is starting and has not read all models yet",
        reason="initializing",
        retry_after_ns=retry_after_ns,
    )


def _json(document: object, status: HTTPStatus = HTTPStatus.OK, retry_after_ns: int = 0) -> Response:
    headers = _texts(retry_after_headers(retry_after_ns))
    return Response(msgspec.json.encode(document), status_code=status, media_type="application/json", headers=headers)


def _texts(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): text.decode() for name, text in headers}


def _as_wire(request: Request, error: Exception) -> WireError:
    if isinstance(error, WireError):
        return error
    if isinstance(error, ModelError):
        return bad(str(error))
    if isinstance(error, HTTPException):
        # Not `request.url`, which is made of the header Host as well.
        text = _ROUTING.get(error.status_code, error.detail).format(method=request.method, path=request.scope["path"])
        return WireError(HTTPStatus(error.status_code), text, allow=(error.headers or {}).get("Allow", ""))
    return WireError(HTTPStatus.INTERNAL_SERVER_ERROR, f"a fault of the server: {type(error).__name__}")
