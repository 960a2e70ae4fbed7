"""The settings over the API: what they are, where each comes from, and what was changed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_tracking.http.guard import needs
from ray_tracking.http.ports import Ports


class Config:
    """
    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @needs("admin")
    async def show(self, request: Request) -> Response:
        """``GET /config``: no secret is in it."""
        shown = await self.ports.config()
        if shown is None:
            body = {"success": False, "error": "the supervisor does not answer", "retryAfter": 2}
            return JSONResponse(body, 503, {"Retry-After": "2"})
        return JSONResponse(shown)
