"""
The live web page: static files beside this one, and the exchange of a key for a cookie.

The files are read once and sent as they are. Nothing in them comes from elsewhere and
nothing is written inline, so that the policy sent along can forbid both.
"""

from __future__ import annotations

import gzip
from hashlib import blake2b
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ray_tracking.errors import RequestError
from ray_tracking.http.asgi import ClientGone, Refusal, read_body
from ray_tracking.http.ports import Ports

_MAX_FORM_BYTES = 8 * 1024
_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
#: Kept by the browser, and asked about each time: a new version is there at once.
_CACHED = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
_NEVER_KEPT = {"Cache-Control": "no-store"}
_LOGIN = "/dashboard/login"


class _File(NamedTuple):
    body: bytes
    gzipped: bytes
    media_type: str
    etag: str


class Dashboard:
    """
    Serves the page.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self._access = ports.access
        self._files = dict(_read(files(__name__) / "static"))

    @property
    def routes(self) -> list[BaseRoute]:
        """Where it is."""
        return [
            Route("/dashboard", self.page),
            Route("/dashboard/login", self.login, methods=["GET", "POST"]),
            Route("/dashboard/logout", self.logout, methods=["POST"]),
            Route("/dashboard/static/{path:path}", self.static),
        ]

    async def page(self, request: Request) -> Response:
        """``GET /dashboard``: the page, or the way to the login."""
        try:
            self._access.require(request.scope, "read")
        except Refusal:
            # The browser carries the fragment, which says what was to be seen, along.
            return RedirectResponse(_LOGIN, 303, _SECURITY | _NEVER_KEPT)
        body = "<body>" if self._access.is_open else '<body data-session="yes">'
        return self._html("index.html", "<body>", body)

    async def login(self, request: Request) -> Response:
        """``GET /dashboard/login``: a form for a key. ``POST``: the key for a cookie."""
        if self._access.is_open:
            return RedirectResponse("/dashboard", 303, _SECURITY | _NEVER_KEPT)
        if request.method != "POST":
            return self._html("login.html")
        try:
            cookie = self._access.open_session(await _read_key(request))
        except Refusal as refusal:
            return self._refused(refusal.text, refusal.status)
        except RequestError as error:
            return self._refused(str(error), error.status)
        except ClientGone:
            return Response()  # that nobody reads
        headers = _SECURITY | _NEVER_KEPT | {"Set-Cookie": cookie}
        return RedirectResponse("/dashboard", 303, headers)

    async def logout(self, request: Request) -> Response:
        """``POST /dashboard/logout``."""
        headers = _SECURITY | _NEVER_KEPT | {"Set-Cookie": self._access.sessions.end()}
        return RedirectResponse("/dashboard" if self._access.is_open else _LOGIN, 303, headers)

    async def static(self, request: Request) -> Response:
        """``GET /dashboard/static/{path}``: open to all, as there is nothing secret in it."""
        file = self._files.get(request.path_params["path"])
        if file is None:
            raise HTTPException(404)
        headers = _SECURITY | _CACHED | {"ETag": file.etag}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(None, 304, headers)
        body = file.body
        if "gzip" in request.headers.get("accept-encoding", "") and len(file.gzipped) < len(body):
            body, headers = file.gzipped, headers | {"Content-Encoding": "gzip"}
        return Response(body, 200, headers, file.media_type)

    def _refused(self, reason: str, status: int) -> Response:
        told = f'<p class="refused" role="alert">This did not work: {escape(reason)}.</p>'
        return self._html("login.html", "<!-- refused -->", told, status)

    def _html(self, name: str, mark: str = "", told: str = "", status: int = 200) -> Response:
        """A page, with something told in the place of a mark."""
        html = self._files[name].body.decode().replace(mark, told, 1)
        return HTMLResponse(html, status, _SECURITY | _NEVER_KEPT)


async def _read_key(request: Request) -> str:
    """
    The key in the form.

    Raises:
        RequestError: If the body is larger than any form of ours.
    """
    body = await read_body(request.scope, request.receive, _MAX_FORM_BYTES)
    return parse_qs(body.decode(errors="replace")).get("key", [""])[0].strip()


def _read(directory: Traversable, prefix: str = "") -> list[tuple[str, _File]]:
    """Every file below a directory, under its path from there."""
    found: list[tuple[str, _File]] = []
    for item in directory.iterdir():
        if item.is_dir():
            found += _read(item, f"{prefix}{item.name}/")
            continue
        body = item.read_bytes()
        etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        media_type = _MEDIA_TYPES.get(item.name.rpartition(".")[2], "text/plain")
        packed = gzip.compress(body, 9, mtime=0)
        found.append((f"{prefix}{item.name}", _File(body, packed, media_type, etag)))
    return found


#: Named here, because the machine's own table may know them otherwise.
_MEDIA_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
