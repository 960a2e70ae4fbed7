"""``GET /metrics/tracking``: the whole cluster in figures, whichever replica answers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_tracking.http.ports import Ports
from ray_tracking.pipeline.stats import dashboard_stats


class Stats:
    """
    The stats calls.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def show(self, request: Request) -> Response:
        """``GET /metrics/tracking``."""
        self._ports.access.require(request.scope, "read")
        stats = await self._ports.stats()
        return _away() if stats is None else JSONResponse(stats)

    async def dashboard(self, request: Request) -> Response:
        """``GET /dashboard/tracking-metrics``: the same, and three names more."""
        self._ports.access.require(request.scope, "read")
        stats = await self._ports.stats()
        return _away() if stats is None else JSONResponse(dashboard_stats(stats))


def _away() -> Response:
    body = {"success": False, "error": "the supervisor does not answer"}
    return JSONResponse(body, 503, {"Retry-After": "1"})
