"""
Identifiers in paths. Any text can be one, with a slash in it as well, so paths are divided before
their escapes are read: ``/leads/a%2Fb/export`` is of the lead ``a/b``.
"""

from __future__ import annotations

from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor

from ray_tracking.http.asgi import Scope

#: A slash of an identifier, until it is read. No path that was decoded has this.
_SLASH = "\udc2f"


class _AnyId(Convertor[str]):
    """Any text at all, but none."""

    regex = "(?s:[^/]+)"

    def convert(self, value: str) -> str:
        return value.replace(_SLASH, "/")

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _AnyId())


def divided(scope: Scope) -> Scope:
    """The same request, the path of which tells slashes of identifiers from its own."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2F" not in raw and b"%2f" not in raw:
        return scope
    parts = [unquote(part).replace("/", _SLASH) for part in raw.decode("latin-1").split("/")]
    return {**scope, "path": "/".join(parts)}


def shown(path: str) -> str:
    """A path for people."""
    return path.replace(_SLASH, "%2F")
