"""Is it alive, can it take events, and how is it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ray_tracking.http.ports import Ports


class Health:
    """
    Liveness, readiness and the health of the whole.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def live(self, request: Request) -> Response:
        """``GET /livez``: this loop turns. Asks nobody else."""
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        """``GET /readyz``: events are taken. Postgres may be down."""
        reason = await self._ports.ready()
        if reason is None:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"{reason}\n", 503, {"Retry-After": "1"})

    async def health(self, request: Request) -> Response:
        """``GET /health/tracking``: 503 when unhealthy, with ``?strict=1`` also when degraded."""
        self._ports.access.require(request.scope, "read")
        status = await self._ports.health()
        return JSONResponse(status, _code(request, status["overall"]))

    async def component(self, request: Request) -> Response:
        """``GET /health/tracking/{component}``: one of them, by the same rule."""
        self._ports.access.require(request.scope, "read")
        status = await self._ports.health()
        name = request.path_params["component"]
        # Alone there where it does not answer: nobody knows how the others are.
        component = status["components"].get(name, status["components"].get("supervisor"))
        if component is None:
            known = ", ".join(status["components"])
            text = f"there is no component {name!r}; there are {known}"
            return JSONResponse({"success": False, "error": text}, 404)
        body = {"timestamp": status["timestamp"], "component": name, **component}
        return JSONResponse(body, _code(request, component["status"]))


def _code(request: Request, status: str) -> int:
    bad = {"unhealthy"}
    if request.query_params.get("strict") not in (None, "", "0"):
        bad.add("degraded")
    return 503 if status in bad else 200


async def proxy_health(request: Request) -> Response:
    """``GET /-/healthz``: what Serve's own proxy would say to a load balancer."""
    return PlainTextResponse("success")


async def proxy_routes(request: Request) -> Response:
    """``GET /-/routes``: what Serve's own proxy would say to KubeRay."""
    return JSONResponse({"/": "tracking"})
