"""An upstream endpoint: a real HTTP server in a process of its own, to be told how to behave, paused and killed.

    with upstream() as one:
        one.behave("status", status=503, headers={"Retry-After": "1"})
        one.kill()

It answers anything with JSON: who it is, and the request as it came.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTROL = "/_control"


@dataclass
class Upstream:
    """The process, as the tests see it."""

    process: subprocess.Popen[bytes]
    port: int
    paused: bool = field(default=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def behave(self, mode: str, **options: Any) -> None:
        """How to answer from now on.

        "echo"; "status" (status=, headers=); "garbage"; "truncated"; "slow" (seconds= before each
        of chunks=10 chunks of 10 bytes); "chunked" (chunks=, headers=, seconds= before each); "gzip";
        "hang" (never answers); "drop" (closes without an answer); "redirect" (to=).
        `times=` limits it to that many requests; `delay=` seconds come before any answer.
        """
        self._control("POST", {"mode": mode, **options})

    def seen(self) -> dict[str, Any]:
        """Counters: `requests`, `<METHOD> <path>`, `connections` (open now), `accepted` (ever)."""
        return self._control("GET", None)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, and nothing is answered."""
        os.kill(self.process.pid, signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)
        self.paused = False

    def close(self) -> None:
        if self.process.poll() is None:
            if self.paused:
                self.resume()
            self.kill()
        if self.process.stdout:
            self.process.stdout.close()

    def _control(self, method: str, body: Any) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, CONTROL, json.dumps(body), {"Connection": "close"})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()


@contextmanager
def upstream(port: int | None = None) -> Generator[Upstream]:
    """One upstream on a free port, or on `port`."""
    from .ports import free_port  # the process that this file is has no packages

    port = port or free_port()
    process = subprocess.Popen([sys.executable, "-S", __file__, str(port)], stdout=subprocess.PIPE)
    assert process.stdout
    one = Upstream(process, int(process.stdout.readline()))
    try:
        yield one
    finally:
        one.close()


@contextmanager
def upstreams(count: int) -> Generator[list[Upstream]]:
    """`count` of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(upstream()) for _ in range(count)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.behaviour: dict[str, Any] = {"mode": "echo"}
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def count(self, name: str, by: int = 1) -> None:
        with self.lock:
            self.counts[name] += by

    def next_behaviour(self) -> dict[str, Any]:
        with self.lock:
            behaviour = self.behaviour
            if behaviour.get("times", 1) <= 0:
                return {"mode": "echo"}
            if "times" in behaviour:
                behaviour["times"] -= 1
            return behaviour

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    server: _Server

    def handle(self) -> None:
        self.server.count("accepted")
        self.server.count("connections")
        try:
            super().handle()
        finally:
            self.server.count("connections", -1)

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            return b"".join(self.chunks())
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def chunks(self) -> Generator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def answer(self) -> None:
        body = self.body()
        if self.path == CONTROL:
            return self.control(body)
        behaviour = self.server.next_behaviour()
        self.server.count("requests")
        self.server.count(f"{self.command} {self.path}")
        time.sleep(behaviour.get("delay", 0))
        getattr(self, f"answer_{behaviour['mode']}")(behaviour, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer  # noqa: N815

    def control(self, body: bytes) -> None:
        if self.command == "POST":
            with self.server.lock:
                self.server.behaviour = json.loads(body)
        with self.server.lock:
            counts = dict(self.server.counts)
        counts["connections"] -= 1  # this one
        self.send(200, json.dumps(counts).encode())

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def answer_echo(self, behaviour: dict[str, Any], body: bytes) -> None:
        seen = {
            "port": self.server.server_port,
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode("latin-1"),
        }
        self.send(200, json.dumps(seen).encode(), {"Content-Type": "application/json"})

    def answer_status(self, behaviour: dict[str, Any], body: bytes) -> None:
        self.send(behaviour["status"], behaviour.get("body", "no").encode(), behaviour.get("headers"))

    def answer_redirect(self, behaviour: dict[str, Any], body: bytes) -> None:
        if self.path == behaviour["to"]:
            self.answer_echo(behaviour, body)
        else:
            self.send(302, b"", {"Location": behaviour["to"]})

    def answer_garbage(self, behaviour: dict[str, Any], body: bytes) -> None:
        self.wfile.write(b"\x00\xff this is no HTTP \r\n\r\n")
        self.close_connection = True

    def answer_truncated(self, behaviour: dict[str, Any], body: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        self.close_connection = True

    def answer_slow(self, behaviour: dict[str, Any], body: bytes) -> None:
        chunks = behaviour.get("chunks", 10)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (chunks * 10))
        for _ in range(chunks):
            self.wfile.flush()
            time.sleep(behaviour["seconds"])
            self.wfile.write(b"x" * 10)
        self.wfile.flush()

    def answer_chunked(self, behaviour: dict[str, Any], body: bytes) -> None:
        self.send_response(200)
        for name, value in {"Transfer-Encoding": "chunked", **behaviour.get("headers", {})}.items():
            self.send_header(name, value)
        self.end_headers()
        for number in range(behaviour["chunks"]):
            time.sleep(behaviour.get("seconds", 0))
            self.wfile.write(b"a\r\n%010d\r\n" % number)
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def answer_gzip(self, behaviour: dict[str, Any], body: bytes) -> None:
        self.send(200, gzip.compress(b"unpacked"), {"Content-Encoding": "gzip"})

    def answer_hang(self, behaviour: dict[str, Any], body: bytes) -> None:
        self.connection.recv(1)  # until the client gives up
        self.close_connection = True

    def answer_drop(self, behaviour: dict[str, Any], body: bytes) -> None:
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    server = _Server(int(sys.argv[1]))
    print(server.server_port, flush=True)
    server.serve_forever()
