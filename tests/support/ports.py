"""Ports for servers of a test's own."""

from __future__ import annotations

import socket
from contextlib import suppress
from itertools import count
from random import SystemRandom

# Below those that systems give to outgoing connections: one of these would take the port before its server starts,
# or while that is down; and a connection to a port of its own range where nobody listens may reach itself.
# A server of a cluster takes the port 10,000 above its own, too: those are still below.
_FIRST, _COUNT = 11_000, 10_000
_turns = count(SystemRandom().randrange(_COUNT))


def free_port() -> int:
    """One of 127.0.0.1 that nobody listens on now: another one each time, so that two runs of the tests do not meet."""
    for _ in range(_COUNT):
        port = _FIRST + next(_turns) % _COUNT
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"no port from {_FIRST} to {_FIRST + _COUNT - 1} is free")
