"""A replica that does `milliseconds` of work per request, one request at a time, and reports how busy that keeps it.

    python unequal_replica.py 4

Prints its port. The report is that of the WSGI middleware; the work is waiting, so that there is room for all.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from unsticky.wsgi import UnstickyMiddleware

_WINDOW = 2.0  # seconds


class Busy:
    """Which part of the time this replica was working."""

    def __init__(self) -> None:
        self._done: deque[tuple[float, float]] = deque()
        self._begin = time.monotonic()

    def worked(self, seconds: float) -> None:
        self._done.append((time.monotonic(), seconds))

    def part(self) -> float:
        now = time.monotonic()
        while self._done and self._done[0][0] < now - _WINDOW:
            self._done.popleft()
        return sum(seconds for _, seconds in self._done) / max(0.1, min(_WINDOW, now - self._begin))


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *_: Any) -> None: ...


def main(milliseconds: float) -> None:
    busy = Busy()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        time.sleep(milliseconds / 1000)
        busy.worked(milliseconds / 1000)  # whatever a crowded machine made of it, which makes all replicas slow alike
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    wrapped = UnstickyMiddleware(app, {"session": {"store": "memory://"}, "load_report": {"emit": "on_request"}})
    wrapped.load.say("application_utilization", busy.part)
    with make_server("127.0.0.1", 0, wrapped, handler_class=Quiet) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(float(sys.argv[1]))
