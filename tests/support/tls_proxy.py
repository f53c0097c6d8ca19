"""A TLS endpoint that remembers which name its clients asked for. Its key is for these tests alone."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

# For api.example.com and 127.0.0.1, until 2120.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdTCCARqgAwIBAgIBATAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA51bnN0aWNr
eSB0ZXN0czAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowGTEXMBUG
A1UEAwwOdW5zdGlja3kgdGVzdHMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ9
gymE7mrfUFULqETau+LLzBaiMUXSMQkD+5Goq3QggH/boD5G2sHMPjYtyfao/SUS
sApQA6ivLB8lREGhtGHco1EwTzAgBgNVHREEGTAXgg9hcGkuZXhhbXBsZS5jb22H
BH8AAAEwDAYDVR0TAQH/BAIwADAdBgNVHQ4EFgQU0fr8AyfgsU0qvvT+LQZ1NiBn
vr0wCgYIKoZIzj0EAwIDSQAwRgIhAKT/PW/jwHU2dgb9ymhbKHbKYgYQYCdYTUyc
TViB4DQnAiEAqxzbmJBJ9O39cLY4LPaasfsFbtKlaaMd6n7C1/tz+nQ=
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgmHZV6fOjfywv+k6E
tQlAy+/mRays8G+/4H6OgA+h53ihRANCAAQ9gymE7mrfUFULqETau+LLzBaiMUXS
MQkD+5Goq3QggH/boD5G2sHMPjYtyfao/SUSsApQA6ivLB8lREGhtGHc
-----END PRIVATE KEY-----
"""


@dataclass
class TLSEndpoint:
    """`names` are those of the handshakes, `hosts` the Host headers."""

    url: str
    names: list[str | None] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


def trusting() -> ssl.SSLContext:
    """A client's context that trusts the endpoint alone."""
    return ssl.create_default_context(cadata=CERTIFICATE)


@contextmanager
def tls_endpoint() -> Generator[TLSEndpoint]:
    """On a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.hosts.append(self.headers["host"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = _context(lambda name: found.names.append(name)).wrap_socket(server.socket, server_side=True)
    found = TLSEndpoint(f"https://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _context(seen: object) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        path = Path(folder, "both.pem")
        path.write_text(KEY + CERTIFICATE)
        context.load_cert_chain(path)
    assert callable(seen)
    context.sni_callback = lambda socket, name, _: seen(name)
    return context
