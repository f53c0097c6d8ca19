"""Host names of stores: a resolver that takes its time, and addresses where nobody answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from threading import Event
from typing import Any

import pytest

from support.memcached import Memcached
from support.stores import face, record, within
from support.valkey import Valkey
from support.valkey import valkey as valkey
from unsticky.testing import FakeClock

CLOCK = FakeClock()
TIMEOUT = 0.4
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
SLOW = "slow.test"


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """The system's, but for one name: that is answered when the event is set."""
    released, real = Event(), socket.getaddrinfo

    def slow(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == SLOW and not kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
            released.wait(10)
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield released
    released.set()


@KINDS
@pytest.mark.parametrize("url", [f"redis://{SLOW}", f"memcached://{SLOW}", f"postgresql://u@{SLOW}/d"])
def test_a_resolver_that_hangs(resolver: Event, key: str, kind: str, url: str) -> None:
    """The deadline holds all the same."""
    with face(kind, url, CLOCK, TIMEOUT) as store:
        within(TIMEOUT + 0.5, lambda: store.load(key))
        resolver.set()  # else the event loop's threads would not end


@KINDS
def test_a_first_address_that_is_silent(
    valkey: Valkey, memcached: Memcached, monkeypatch: pytest.MonkeyPatch, key: str, kind: str
) -> None:
    """The next one is tried in time."""
    urls = [f"memcached://two.test:{memcached.port}", f"redis://two.test:{valkey.port}"]
    with silent() as address:
        real = socket.getaddrinfo

        def both(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "two.test":
                return real(host, port, *args, **kwargs)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", to) for to in (address, ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", both)
        for url in urls:
            with face(kind, url, CLOCK, 2.0) as store:
                started = time.monotonic()
                assert store.create(key, record(CLOCK.time()))
                assert time.monotonic() - started < 2.0


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address that answers no attempt to connect: nobody accepts, and all places to wait are taken."""
    with ExitStack() as kept, closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as server:
        address = server.getsockname()
        for _ in range(8):
            waiting = kept.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield address
