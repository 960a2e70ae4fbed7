"""A collector of spans: OTLP over HTTP, as OpenTelemetry's own collector takes it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_hex
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class SeenSpan(NamedTuple):
    """What the collector was told."""

    part: str
    name: str
    trace_id: str
    parent_id: str
    kind: int
    failed: bool
    took_ns: int
    attributes: dict[str, str]


class Collector:
    """Keeps every span that it is sent, until it is closed."""

    def __init__(self) -> None:
        self.spans: list[SeenSpan] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                spans.extend(_read(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Be away."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Caller:
    """Somebody with a trace of their own."""

    def __init__(self, sampled: bool = True) -> None:
        self.trace_id, self.span_id = token_hex(16), token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-0{int(sampled)}"}

    def of(self, collector: Collector) -> dict[str, SeenSpan]:
        """The spans of this trace, by name."""
        return {span.name: span for span in collector.spans if span.trace_id == self.trace_id}


def _read(body: bytes) -> list[SeenSpan]:
    return [
        SeenSpan(
            next(
                a.value.string_value
                for a in of_part.resource.attributes
                if a.key == "service.instance.id"
            ),
            span.name,
            span.trace_id.hex(),
            span.parent_span_id.hex(),
            span.kind,
            span.status.code == span.status.STATUS_CODE_ERROR,
            span.end_time_unix_nano - span.start_time_unix_nano,
            {a.key: a.value.string_value or str(a.value.int_value) for a in span.attributes},
        )
        for of_part in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in of_part.scope_spans
        for span in scope.spans
    ]
