"""The upstream of both shops: a small HTTP server that knows products and their prices.

    python examples/catalog.py 8001 8002 8003      one process that serves three endpoints
    python examples/catalog.py 0                   a free port, which it prints

Standard library only; with OTEL_EXPORTER_OTLP_ENDPOINT set it continues the traces of its callers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ITEMS = {
    "tea": {"name": "Green tea", "price": 4.50},
    "cup": {"name": "Cup without a handle", "price": 12.00},
    "pot": {"name": "Cast iron pot", "price": 38.00},
    "mat": {"name": "Bamboo mat", "price": 9.90},
}


class Catalog(BaseHTTPRequestHandler):
    """GET /items, /items/SKU and /healthz, as JSON over keep-alive connections."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes

    def do_GET(self) -> None:
        with server_span(self):
            status, body = self._answer()
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Catalog", f"port {self.connection.getsockname()[1]}")
            self.end_headers()
            self.wfile.write(data)

    def _answer(self) -> tuple[HTTPStatus, object]:
        if self.path == "/healthz":
            return HTTPStatus.OK, {"status": "ok"}
        if self.path == "/items":
            return HTTPStatus.OK, [{"sku": sku, **item} for sku, item in ITEMS.items()]
        item = ITEMS.get(self.path.removeprefix("/items/"))
        return (HTTPStatus.OK, item) if item else (HTTPStatus.NOT_FOUND, {"error": "no such item"})

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            pass  # a shop was killed: these shops are, often

    def log_message(self, *_: object) -> None: ...


@contextmanager
def server_span(request: BaseHTTPRequestHandler) -> Iterator[None]:
    """A SERVER span below the caller's attempt, where traces are wanted."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or request.path == "/healthz":
        yield
        return
    from opentelemetry import propagate, trace

    caller = propagate.extract({name.lower(): value for name, value in request.headers.items()})
    attributes = {"http.request.method": "GET", "url.path": request.path, "url.scheme": "http"}
    tracer = trace.get_tracer("catalog")
    with tracer.start_as_current_span("GET", caller, kind=trace.SpanKind.SERVER, attributes=attributes):
        yield


def send_traces() -> None:
    """Spans go to OTEL_EXPORTER_OTLP_ENDPOINT, if it is set."""
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="The upstream of the example shops.")
    parser.add_argument("ports", metavar="PORT", type=int, nargs="+", help="on 127.0.0.1; 0 takes a free one")
    ports: list[int] = parser.parse_args(argv).ports
    send_traces()
    with ExitStack() as open_servers:
        servers = [open_servers.enter_context(ThreadingHTTPServer(("127.0.0.1", port), Catalog)) for port in ports]
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            print(f"catalog serves http://127.0.0.1:{server.server_port}", flush=True)
        _wait_for_ctrl_c()
    return 0


def _wait_for_ctrl_c() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("catalog stops", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
