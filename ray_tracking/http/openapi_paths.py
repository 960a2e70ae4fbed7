"""Every route of the API, for ``/openapi.json``: what it takes, and what it answers."""

from __future__ import annotations

from ray_tracking.http.openapi_admin import admin_paths
from ray_tracking.http.openapi_dashboard import dashboard_paths
from ray_tracking.http.openapi_ingest import ingest_paths
from ray_tracking.http.openapi_parts import Object, parameter
from ray_tracking.http.openapi_reading import reading_paths
from ray_tracking.http.openapi_service import service_paths


def paths() -> Object:
    """Every route of :class:`ray_tracking.http.app.App`, and what it answers."""
    campaign = parameter("path", "campaign_id", {"type": "string"})
    return {
        **ingest_paths(),
        **reading_paths(campaign),
        **admin_paths(campaign),
        **dashboard_paths(),
        **service_paths(),
    }
