"""Ports for servers of a test's own."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One that nobody listens on now: another one each time, so that two runs of the tests do not meet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
