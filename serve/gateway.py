"""The routes: REST, websockets, OpenAPI and the page, in front of the other deployments.

In: `Services`, the rest of the service as plain callables. Out: an ASGI app. Called by deployments.py, and by tests
with the real parts in one process. Every refusal is JSON `{"reason": …}` with a 4xx status, or a close code of 4000 +
status.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from serve.errors import BadUpload, NotReady, ServiceError, TooLarge, first_line
from serve.hands import HandsSession
from serve.metrics import Metrics
from serve.policy import PolicySession
from serve.schemas import PROTOCOL, Problem, StartRequest, Target
from serve.settings import Settings
from serve.sockets import Lobby
from serve.track_socket import Tracking, TrackSession

log = logging.getLogger("ray.serve")

VIEWER = Path(__file__).resolve().parent / "viewer"
# Panels: joints at 10 Hz are smooth to the eye.
STREAM_PERIOD_S = 0.1
GAUGES_EVERY = 5
GOODBYE_S = 2.0
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 409, 413, 422, 429, 503)
}
# The page needs nothing from elsewhere, and nobody may frame the buttons of an arm.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self' ws: wss:; style-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

Ask = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Services:
    """The rest of the service, as the gateway sees it: `ask(method, *arguments)`."""

    settings: Settings
    tracking: Tracking
    targets: Ask
    policy: Ask
    hands: Ask
    control: Ask
    models: Ask
    metrics: Metrics
    ending: Callable[[], bool] = lambda: False  # whether the service is being taken down; may block for a moment
    lobby: Lobby = field(init=False)
    started_s: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        """One lobby per gateway."""
        self.lobby = Lobby(self.settings.limits)


def build_api(services: Services) -> FastAPI:
    """The whole API."""
    api = FastAPI(
        title="Reafference",
        version=str(PROTOCOL),
        lifespan=lambda _: _watched(services),
        description="Tracker, policy and control as one live service. Websockets: /v1/track, /v1/policy, "
        "/v1/hands, /v1/control/stream (messages in docs/serve.md).",
        responses=PROBLEMS,
    )
    _problems(api, services)
    _health(api, services)
    _targets(api, services)
    _control(api, services)
    _sockets(api, services)
    _page(api)
    return api


@asynccontextmanager
async def _watched(services: Services) -> AsyncIterator[None]:
    watching = asyncio.create_task(_watch(services))
    yield
    watching.cancel()


async def _watch(services: Services) -> None:
    """Keep the gauges fresh; when the service is taken down say so to everybody, so that nothing is cut off."""
    for second in itertools.count():
        try:
            if await asyncio.to_thread(services.ending):
                await services.lobby.send_home(GOODBYE_S)
                return
            services.metrics.connections(len(services.lobby))
            if second % GAUGES_EVERY == 0:
                services.metrics.models(await services.models("health"))
        except Exception as error:  # noqa: BLE001 - a look that fails is looked again
            log.warning("the gateway could not look after the service: %s", first_line(error))
        await asyncio.sleep(1.0)


def _problems(api: FastAPI, services: Services) -> None:
    def answer(status: int, reason: str) -> JSONResponse:
        services.metrics.refused(status)
        return JSONResponse({"reason": reason}, status)

    @api.exception_handler(ServiceError)
    async def refused(_: Request, error: ServiceError) -> Response:
        error = getattr(error, "cause", error)  # Ray wraps what an actor raised
        return answer(error.status, str(error))

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

    @api.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        services.metrics.refused(error.status_code)
        return JSONResponse({"reason": str(error.detail)}, error.status_code, headers=error.headers)


def _health(api: FastAPI, services: Services) -> None:
    @api.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, bool]:
        """200 while every model answers, else 503."""
        if services.lobby.closing:
            raise NotReady("the service ends")
        health = await services.models("health")
        away = [name for name, told in health.items() if not told["up"]]
        if away:
            raise NotReady(f"not up (yet): {', '.join(away)}")
        return {"ok": True}

    @api.get("/v1/status", tags=["health"])
    async def status() -> dict[str, Any]:
        """Models with memory and age, connections, the policy's offer, limits."""
        health = await services.models("health")
        services.metrics.models(health)
        return {
            "protocol": PROTOCOL,
            "up_s": round(time.time() - services.started_s, 1),
            "models": health,
            "connections": len(services.lobby),
            "policy": await services.policy("describe"),
            "limits": services.settings.limits.model_dump(),
        }


def _targets(api: FastAPI, services: Services) -> None:
    limits = services.settings.limits
    body = {"schema": {"type": "string", "format": "binary"}}
    upload = {"requestBody": {"required": True, "content": {"application/octet-stream": body}}}

    @api.post("/v1/targets", status_code=202, tags=["targets"], openapi_extra=upload)
    async def add(request: Request, name: Annotated[str, Query(min_length=1, max_length=80)]) -> Target:
        """A zip of rgb_N.png and mask_N.png, or an STL, PLY or OBJ mesh, as the request's body.

        The answer comes before the bank is built: watch `progress` and `state` of GET /v1/targets/{id}.
        """
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > limits.max_upload_bytes:
                raise TooLarge(f"an upload has at most {limits.max_upload_bytes} bytes")
        if not data:
            raise BadUpload("the request has no body; send the zip or the mesh itself")
        return Target(**await services.targets("submit", name, bytes(data)))

    @api.get("/v1/targets", tags=["targets"])
    async def listing() -> list[Target]:
        """Every target, oldest first."""
        return [Target(**record) for record in await services.targets("listing")]

    @api.get("/v1/targets/{target}", tags=["targets"])
    async def one(target: str) -> Target:
        """One target, with its progress."""
        return Target(**await services.targets("get", target))

    @api.delete("/v1/targets/{target}", status_code=204, tags=["targets"])
    async def delete(target: str) -> None:
        """Forget it; sessions that follow it keep their copy."""
        await services.targets("delete", target)


def _control(api: FastAPI, services: Services) -> None:
    @api.get("/v1/control", tags=["control"])
    async def state() -> dict[str, Any]:
        """Phase, loop state and reason, joints, lateness."""
        return await services.control("state")

    @api.post("/v1/control/start", tags=["control"])
    async def start(wanted: StartRequest) -> dict[str, Any]:
        """Begin a run. 409 while one is on, and while the emergency stop is latched unless it is released."""
        return await services.control("start", wanted.model_dump())

    @api.post("/v1/control/stop", tags=["control"])
    async def stop() -> dict[str, Any]:
        """End the run; the answer comes when the arm is at rest."""
        return await services.control("stop")

    @api.post("/v1/control/estop", tags=["control"])
    async def estop() -> dict[str, Any]:
        """Latch the emergency stop. Not a replacement for the switch of the power supply."""
        return await services.control("estop", "pressed over the network")


def _sockets(api: FastAPI, services: Services) -> None:
    settings = services.settings

    @api.websocket("/v1/track")
    async def track(socket: WebSocket) -> None:
        async with services.lobby.peer(socket) as peer:
            services.metrics.connections(len(services.lobby))
            await TrackSession(peer, services.tracking, settings.tracking, settings.limits, services.metrics).run()
        services.metrics.connections(len(services.lobby))

    @api.websocket("/v1/policy")
    async def policy(socket: WebSocket) -> None:
        async with services.lobby.peer(socket) as peer:
            await PolicySession(peer, services.policy, settings.limits).run()

    @api.websocket("/v1/hands")
    async def hands(socket: WebSocket) -> None:
        async with services.lobby.peer(socket) as peer:
            if "hands" not in settings.models:
                raise NotReady("nobody follows hands here; `serve run configs/serve_hands.yaml` does")
            await HandsSession(peer, services.hands, settings.limits).run()

    @api.websocket("/v1/control/stream")
    async def stream(socket: WebSocket) -> None:
        """State and newest picture, 10 Hz; the client says {type: seen} after each, so nothing piles up."""
        async with services.lobby.peer(socket) as peer:
            shown_ns = 0
            while True:
                state, picture = await services.control("glance", shown_ns)
                shown_ns = picture[0] if picture else shown_ns
                services.metrics.control(state.get("late_ms", {}))
                await peer.write({"type": "control", "state": state, "jpeg": picture[1] if picture else None})
                await peer.read(settings.limits.idle_timeout_s)
                await asyncio.sleep(STREAM_PERIOD_S)


def _page(api: FastAPI) -> None:
    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(VIEWER / "index.html", headers=PAGE_HEADERS)

    api.mount("/viewer", StaticFiles(directory=VIEWER), name="viewer")
