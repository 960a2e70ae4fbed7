"""
The ASGI app: a table of the routes that every event goes through, and Starlette for
the rest.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ray_tracking.http.asgi import (
    Handler,
    Receive,
    Refusal,
    Scope,
    Send,
    guarded,
    send_json,
)
from ray_tracking.http.config import Config
from ray_tracking.http.dashboard import Dashboard
from ray_tracking.http.dead_letters import DeadLetters
from ray_tracking.http.figures import Figures
from ray_tracking.http.headers import closed, for_origins, plain
from ray_tracking.http.health import Health, proxy_health, proxy_routes
from ray_tracking.http.hot import Hot, asgi
from ray_tracking.http.ingest import Ingest
from ray_tracking.http.leads import Leads
from ray_tracking.http.limits import Limits
from ray_tracking.http.live.asyncapi import document as asyncapi_document
from ray_tracking.http.live.events import ServerSent
from ray_tracking.http.live.websocket import WebSocketLive
from ray_tracking.http.metrics import Metrics
from ray_tracking.http.openapi import document
from ray_tracking.http.paths import divided, shown
from ray_tracking.http.ports import Ports
from ray_tracking.http.query import Query
from ray_tracking.http.replays import Replays
from ray_tracking.http.stats import Stats
from ray_tracking.http.traces import Traces
from ray_tracking.http.tracking import Tracking

_SOCKET_IO = "/socket.io/"
_POST = frozenset({"POST"})
_GET = frozenset({"GET", "HEAD"})


class App:
    """
    Answers every request of a replica.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        # By whoever answers, not by all who load this: it brings 10 MiB, and 0.2 s of start.
        from ray_tracking.http.live.socketio import SocketIo

        self.tracking = Tracking(ports)
        ingest = Ingest(ports)
        traces = Traces(ports.spans)
        single, pixel, click = ingest.single, self.tracking.pixel, self.tracking.click
        traced = traces.hot(single)
        self._hot = {("POST", path): traced for path in ("/events", "/webhook/tracking")}
        self._hot_prefixed = (("/pixel/", pixel), ("/click/", click))
        self._exact: dict[str, tuple[Handler, frozenset[str]]] = {
            "/events": (asgi(single), _POST),
            "/webhook/tracking": (asgi(single), _POST),
            "/events/batch": (guarded(ingest.batch), _POST),
            "/tracking-links": (guarded(self.tracking.links), _POST),
            "/pixel": (asgi(pixel), _GET),
            "/click": (asgi(click), _GET),
        }
        self._prefixed = (("/pixel/", self._exact["/pixel"]), ("/click/", self._exact["/click"]))
        origins = ports.settings.cors_origins
        socket_io = SocketIo(ports.hub, ports.access, ports.affinity, origins, ports.clock)
        self._websockets: dict[str, Handler] = {
            "/ws": WebSocketLive(ports.hub, ports.access, origins, ports.clock),
            _SOCKET_IO: socket_io,
        }
        # A protocol of its own, by whatever method.
        self._socket_io = socket_io
        self._rest = _starlette(ports)
        self._answer = traces.asgi(for_origins(self._answered, origins))

    def hot(self, method: str, path: str) -> Hot | None:
        """Who takes such a request without a task of its own, if somebody does."""
        hot = self._hot.get((method, path))
        if hot is None and method == "GET":
            for prefix, candidate in self._hot_prefixed:
                if path.startswith(prefix):
                    return candidate
        return hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            serve = self._websockets.get(scope["path"], _no_websocket)
            await serve(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
        elif scope["path"] == _SOCKET_IO:
            await self._socket_io(scope, receive, plain(send))  # which knows the origins
        else:
            await self._answer(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        route = self._exact.get(path)
        if route is None:
            for prefix, candidate in self._prefixed:
                if path.startswith(prefix):
                    route = candidate
                    break
            else:
                await self._rest(divided(scope), receive, closed(send))
                return
        send = plain(send)
        handler, methods = route
        if scope["method"] not in methods:
            allowed = ", ".join(sorted(methods))
            text = f"{scope['method']} is not answered here; use {allowed}"
            body = {"success": False, "error": text}
            await send_json(send, 405, body, [(b"allow", allowed.encode())])
            return
        await handler(scope, receive, send)


async def _no_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket where there is none: 403 instead of a handshake."""
    await receive()
    await send({"type": "websocket.close"})


def _starlette(ports: Ports) -> Starlette:
    query, health, letters = Query(ports), Health(ports), DeadLetters(ports)
    metrics, figures, replays = Metrics(ports), Figures(ports), Replays(ports)
    leads, limits, config = Leads(ports), Limits(ports), Config(ports)
    metrics, stats = Metrics(ports), Stats(ports)
    live = ServerSent(ports.hub, ports.access, ports.clock)
    openapi = document(ports.settings.public_base_url)
    asyncapi = asyncapi_document(ports.settings.public_base_url)

    async def show_openapi(request: Request) -> Response:
        ports.access.require(request.scope, "read")
        return JSONResponse(openapi)

    async def show_asyncapi(request: Request) -> Response:
        ports.access.require(request.scope, "read")
        return JSONResponse(asyncapi)

    return Starlette(
        routes=[
            Route("/campaigns", figures.campaigns),
            Route("/campaigns/{campaign_id:id}/stats", figures.stats),
            Route("/campaigns/{campaign_id:id}/timeline", figures.timeline),
            Route("/campaigns/{campaign_id:id}/links", figures.links),
            Route("/campaigns/{campaign_id:id}/breakdown", figures.breakdown),
            Route("/campaigns/{campaign_id:id}/verify", figures.verify),
            Route("/campaigns/{campaign_id:id}/events", query.events),
            Route("/campaigns/{campaign_id:id}/leads/{lead_id:id}", query.lead),
            Route("/campaigns/{campaign_id:id}/live", live.stream),
            Route(
                "/campaigns/{campaign_id:id}/limits", limits.one, methods=["GET", "PUT", "DELETE"]
            ),
            Route("/dead-letters", letters.browse),
            Route("/dead-letters/redrive", letters.redrive_many, methods=["POST"]),
            Route("/dead-letters/{letter_id}", letters.one, methods=["GET", "DELETE"]),
            Route("/dead-letters/{letter_id}/redrive", letters.redrive, methods=["POST"]),
            Route("/replays", replays.many, methods=["GET", "POST"]),
            Route("/replays/{replay_id}", replays.one, methods=["GET", "DELETE"]),
            Route("/leads/{lead_id:id}/export", leads.export),
            Route("/leads/{lead_id:id}", leads.erase, methods=["DELETE"]),
            *Dashboard(ports).routes,
            Route("/metrics", metrics.show),
            Route("/metrics/tracking", stats.show),
            Route("/dashboard/tracking-metrics", stats.dashboard),
            Route("/config", config.show),
            Route("/livez", health.live),
            Route("/readyz", health.ready),
            Route("/health/tracking", health.health),
            Route("/health/tracking/{component}", health.component),
            Route("/openapi.json", show_openapi),
            Route("/asyncapi.json", show_asyncapi),
            Route("/-/healthz", proxy_health),
            Route("/-/routes", proxy_routes),
        ],
        exception_handlers={HTTPException: _http_error, Refusal: _refused},
    )


def _http_error(request: Request, error: Any) -> Response:
    text = (
        f"there is no {shown(request.scope['path'])}" if error.status_code == 404 else error.detail
    )
    body = {"success": False, "error": text}
    return JSONResponse(body, error.status_code, error.headers)


def _refused(request: Request, refusal: Any) -> Response:
    headers = {name.decode(): value.decode() for name, value in refusal.headers}
    return JSONResponse({"success": False, "error": refusal.text}, refusal.status, headers)
