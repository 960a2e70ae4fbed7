"""
Spans of traced requests, to a collector of the user's (OTLP over HTTP).

Only requests whose own ``traceparent`` says that they are recorded have spans, so that it is
their senders who decide how many there are. A collector that is away costs nobody anything:
what it does not take in time is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ray_tracking import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ANSWERS_WITHIN_S = 2.0

Kind = Literal["server", "consumer"]


class Spans:
    """
    Records spans, and sends them in the background.

    Args:
        provider: Of OpenTelemetry; not the process's, which is somebody else's.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("ray_tracking", __version__)
        self._context = TraceContextTextMapPropagator().extract
        self._kinds = {"server": SpanKind.SERVER, "consumer": SpanKind.CONSUMER}
        self._failed = Status(StatusCode.ERROR)

    @classmethod
    def to(cls, endpoint: str | None, part: str) -> Spans | None:
        """
        Those of one part of the service; None where there is no collector.

        Args:
            endpoint: Of the collector, without a path, such as ``http://127.0.0.1:4318``.
            part: Such as ``writer-0``.
        """
        if endpoint is None:
            return None
        # Only who wants spans has the package, and pays for the import.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        names = {"service.name": "ray-tracking", "service.instance.id": part}
        provider = TracerProvider(ALWAYS_ON, Resource.create(names), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=_ANSWERS_WITHIN_S)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def record(
        self,
        name: str,
        traceparent: str,
        began_ns: int,
        ended_ns: int,
        *,
        kind: Kind,
        attributes: Mapping[str, str | int],
        failed: bool = False,
    ) -> None:
        """
        Something that is over.

        Args:
            name: What it was; of few different ones.
            traceparent: Of what it was a part.
            began_ns: Unix nanoseconds.
            ended_ns: Likewise.
            kind: ``server`` for a request, ``consumer`` for an event out of the log.
            attributes: By OpenTelemetry's semantic conventions.
            failed: Through our fault.
        """
        span = self._tracer.start_span(
            name,
            self._context({"traceparent": traceparent}),
            self._kinds[kind],
            attributes,
            start_time=began_ns,
        )
        if failed:
            span.set_status(self._failed)
        span.end(ended_ns)

    async def close(self) -> None:
        """Send what is left, if the collector takes it soon."""
        await asyncio.to_thread(self._provider.shutdown)
