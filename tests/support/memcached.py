"""A real Memcached server that can be killed, paused and started again on its port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

import pytest
from pymemcache.client.base import Client

from support.ports import free_port
from support.waiting import eventually

# What no server should answer to a question for the key "k": "private" must never be shown.
NONSENSE = [
    b"HTTP/1.1 400 private\r\n\r\n",
    b"STORED private\r\n",
    b"STORED\r\nSTORED\r\n",
    b"END\r\nEND\r\n",
    b"\r\n",
    b"x" * 512,
    b"VALUE private 0 1 1\r\na\r\nEND\r\n",
    b"VALUE k 0 x 1\r\na\r\nEND\r\n",
    b"VALUE k 0 -1 1\r\na\r\nEND\r\n",
    b"VALUE k 0 1 1 1\r\na\r\nEND\r\n",
    b"VALUE k 0\r\na\r\nEND\r\n",
    b"VALUE \r\n",
    b"VALUE k 0 1 1\r\nabc\r\nEND\r\n",
    b"VALUE k 0 1 1\r\nabcEND\r\n",
    b"VALUE k 0 1 1\r\na\r\nEND\r\nEND\r\n",
    b"VALUE k 0 1 1\r\na\r\nVALUE l 0 1 1\r\nb\r\nEND\r\n",
]


class Memcached:
    """A server process. `url` stays the same over restarts; its data does not survive them."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"memcached://127.0.0.1:{self.port}"

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A plain client of another maker, to look behind the store's back."""
        client = Client(("127.0.0.1", self.port), connect_timeout=5, timeout=5, default_noreply=False)
        try:
            yield client
        finally:
            client.close()

    def stat(self, name: str) -> int:
        with self.client() as client:
            return int(client.stats()[name.encode()])

    def connections(self) -> int:
        """How many clients have connected since it started, but for the one that asks."""
        return self.stat("total_connections") - self._asked()

    def _asked(self) -> int:
        self._questions += 1
        return self._questions

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        command = [_binary(), "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", *user, *self._options]
        self._questions = 0
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        eventually(self._answers)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._process.kill()
        self._process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped: it accepts connections, as the kernel does, and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until all of its threads stand still
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"memcached ended with {self._process.returncode}")
        try:
            with self.client() as client:
                client.version()
        except OSError:
            return False
        self._questions += 1
        return True


def _binary() -> str:
    found = shutil.which("memcached")
    if found is None:
        pytest.skip("memcached is not in the PATH: apt-get install memcached, or brew install memcached")
    return found


@contextmanager
def running(*options: str) -> Iterator[Memcached]:
    """A server of one's own, for faults; `options` are memcached's."""
    server = Memcached(*options)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def memcached() -> Generator[Memcached]:
    """A server that all tests of the session share: they use keys of their own, and do not harm it."""
    with running() as server:
        yield server


@pytest.fixture
def own_memcached() -> Generator[Memcached]:
    """A server for one test, to be killed or paused."""
    with running() as server:
        yield server
