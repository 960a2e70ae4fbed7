"""The page and its login, for ``/openapi.json``."""

from __future__ import annotations

from typing import Any

_Object = dict[str, Any]
_HTML: _Object = {"text/html": {"schema": {"type": "string"}}}
_TO_LOGIN = {"description": "To the login, which asks for a key with the scope read."}
_TO_PAGE = {"description": "To the page, with a cookie that opens reading."}
_OTHER_METHOD = {"405": {"$ref": "#/components/responses/405"}}


def dashboard_paths() -> _Object:
    """Every route of :class:`ray_tracking.http.dashboard.Dashboard`."""
    page = {"description": "The page.", "content": _HTML}
    form = {"description": "The form for a key.", "content": _HTML}
    again = {"description": "The form again, and why.", "content": _HTML}
    ended = {"description": "To the login; the cookie is gone."}
    file = {"description": "The file.", "content": {"*/*": {"schema": {"type": "string"}}}}
    same = {"description": "It is the one that the browser has."}
    key = {
        "type": "object",
        "properties": {"key": {"type": "string"}},
        "required": ["key"],
    }
    path = {"in": "path", "name": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/dashboard": {
            "get": _operation("dashboard", "The live page", {"200": page, "303": _TO_LOGIN})
        },
        "/dashboard/login": {
            "get": _operation("showLogin", "Ask for a key", {"200": form, "303": _TO_PAGE}),
            "post": _operation(
                "login",
                "Exchange a key for a cookie",
                {"303": _TO_PAGE, "4XX": again},
                requestBody={"content": {"application/x-www-form-urlencoded": {"schema": key}}},
            ),
        },
        "/dashboard/logout": {
            "post": _operation("logout", "Take the cookie away", {"303": ended}),
        },
        "/dashboard/static/{path}": {
            "get": _operation(
                "dashboardFile",
                "A file of the page",
                {
                    "200": file,
                    "304": same,
                    "404": {"$ref": "#/components/responses/404"},
                },
                parameters=[path],
            )
        },
    }


def _operation(operation_id: str, summary: str, responses: _Object, **more: Any) -> _Object:
    return {
        "operationId": operation_id,
        "tags": ["dashboard"],
        "summary": summary,
        "security": [],
        **more,
        "responses": dict(sorted((responses | _OTHER_METHOD).items())),
    }
