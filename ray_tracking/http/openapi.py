"""``/openapi.json``: OpenAPI 3.1 of what this service answers, from the models themselves."""

from __future__ import annotations

from typing import Any


def document(base_url: str) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "ray-tracking", "version": "0.1.0"}, "paths": {}}
