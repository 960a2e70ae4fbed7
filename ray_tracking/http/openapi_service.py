"""The service itself, for ``/openapi.json``: its figures, its health, its documents."""

from __future__ import annotations

from ray_tracking.http.openapi_parts import Object, answer, operation, parameter, refusals
from ray_tracking.pipeline.receive import JSON


def service_paths() -> Object:
    """Every route that tells how the service is."""
    return {
        "/metrics/tracking": {
            "get": operation(
                "processingStats",
                "service",
                "The whole cluster's figures",
                "read",
                {"200": answer("The figures.", "ProcessingStats"), **refusals(405, 503)},
            )
        },
        "/dashboard/tracking-metrics": {
            "get": operation(
                "dashboardStats",
                "service",
                "The same under the names that older dashboards ask for",
                "read",
                {"200": answer("The figures.", "DashboardStats"), **refusals(405, 503)},
            )
        },
        "/asyncapi.json": {
            "get": operation(
                "asyncapi",
                "live",
                "AsyncAPI 3 of what is said over /ws",
                "read",
                {
                    "200": {
                        "description": "The document.",
                        "content": {JSON: {"schema": {"type": "object"}}},
                    },
                    **refusals(405),
                },
            )
        },
        "/metrics": {
            "get": operation(
                "metrics",
                "service",
                "The whole cluster's figures, for Prometheus",
                "read",
                {
                    "200": {
                        "description": "Prometheus text.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    },
                    **refusals(405, 503),
                },
            )
        },
        "/livez": {"get": _text("livez", "Is it alive")},
        "/readyz": {"get": _text("readyz", "Does it take events", why_not="Why not.")},
        "/config": {"get": _config()},
        "/health/tracking": {"get": _health("health", "How every part is", "HealthStatus")},
        "/health/tracking/{component}": {"get": _component()},
        "/openapi.json": {"get": _json("openapi", "This description", "read")},
        "/-/healthz": {"get": _text("proxyHealth", "As Ray Serve's own proxy answers it")},
        "/-/routes": {"get": _json("proxyRoutes", "As Ray Serve's own proxy answers it")},
    }


def _config() -> Object:
    return operation(
        "config",
        "service",
        "The settings in force, and what was changed of them",
        "admin",
        {"200": answer("Secrets are masked.", "Config"), **refusals(405, 503)},
    )


def _health(operation_id: str, summary: str, schema: str, *parameters: Object) -> Object:
    return operation(
        operation_id,
        "service",
        summary,
        "read",
        {
            "200": answer("Healthy or degraded.", schema),
            "503": answer("Unhealthy; with strict=1 also degraded.", schema),
            **refusals(*([404] if parameters else []), 405),
        },
        parameters=[
            *parameters,
            parameter("query", "strict", {"enum": ["0", "1"]}, "1: degraded is a 503 too."),
        ],
    )


def _component() -> Object:
    name = parameter("path", "component", {"type": "string"}, "As /health/tracking names it.")
    return _health("healthComponent", "How one part is", "ComponentStatus", name)


def _text(operation_id: str, summary: str, why_not: str = "") -> Object:
    content = {"text/plain": {"schema": {"type": "string"}}}
    responses: Object = {"200": {"description": "Yes.", "content": content}, **refusals(405)}
    if why_not:
        responses["503"] = {
            "description": why_not,
            "headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}},
            "content": content,
        }
    return operation(operation_id, "service", summary, None, responses)


def _json(operation_id: str, summary: str, scope: str | None = None) -> Object:
    content = {JSON: {"schema": {"type": "object"}}}
    responses = {"200": {"description": summary + ".", "content": content}, **refusals(405)}
    return operation(operation_id, "service", summary, scope, responses)
