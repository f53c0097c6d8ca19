"""What goes wrong during a history check: replicas and servers are killed, paused and started again."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from support.history_clients import Target
from support.history_replica import SECRET_KEY
from support.ports import free_port
from support.replicas import TESTS
from support.waiting import eventually


class Server(Protocol):
    """A store's server, of which kills and pauses lose nothing that it acknowledged."""

    @property
    def url(self) -> str: ...

    def paused(self) -> AbstractContextManager[None]: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Replica:
    """A process that serves the app on a port of its own."""

    def __init__(self, kind: str, number: int, store: str, output: IO[bytes]) -> None:
        self.kind = kind
        self.target = Target(f"{kind} {number}", free_port())
        self._output = output
        self._environ = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "UNSTICKY_SESSION__STORE": store,
            "UNSTICKY_SESSION__STORE_TIMEOUT": "500ms",
            "UNSTICKY_SESSION__ROTATION_GRACE": "1s",
            "UNSTICKY_SESSION__TOUCH_INTERVAL": "200ms",
            "UNSTICKY_SESSION__IDLE_TIMEOUT": "1h",
            "UNSTICKY_SESSION__SECRET_KEYS": f'["{SECRET_KEY}"]',  # Starlette's; Flask's replicas know it too
            "UNSTICKY_SESSION__COOKIE__NAME": "session",
            "UNSTICKY_SESSION__COOKIE__SECURE": "false",
        }
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "support.history_replica", self.kind, str(self.target.port)]
        self.process = subprocess.Popen(
            command, cwd=TESTS, env=self._environ, stdout=self._output, stderr=subprocess.STDOUT
        )

    def await_port(self) -> None:
        eventually(self._answers, 30)

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the replica {self.target.name} did not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.target.port)) == 0

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.kill()
        self.process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped: the kernel accepts connections, and nobody answers; then it goes on where it was."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


class Faults(threading.Thread):
    """Harms one thing at a time, and mends it. `log` says what was done and when."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        server: Server | None,
        seed: str,
        stop: threading.Event,
        *,
        kills_server: bool = True,
    ) -> None:
        super().__init__(name="faults", daemon=True)
        self.replicas = replicas
        self.server = server
        self.random = random.Random(seed)
        self.stopped = stop
        self.kills_server = kills_server
        self.log: list[tuple[float, str]] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        faults: list[Callable[[], None]] = [self._kill_replica, self._pause_replica, self._pause_replica]
        if self.server is not None:
            faults += [self._pause_server, *([self._kill_server] if self.kills_server else [])]
        try:
            while not self.stopped.wait(self.random.uniform(0.2, 1.2)):
                self.random.choice(faults)()
        except BaseException as error:  # the run shows it
            self.failure = error
            raise

    def _note(self, text: str) -> None:
        self.log.append((time.monotonic(), text))

    def _kill_replica(self) -> None:
        replica = self.random.choice(self.replicas)
        self._note(f"kill {replica.target.name}")
        replica.kill()
        replica.start()
        replica.await_port()

    def _pause_replica(self) -> None:
        replica = self.random.choice(self.replicas)
        self._note(f"pause {replica.target.name}")
        with replica.paused():
            self.stopped.wait(self.random.uniform(0.05, 1.5))

    def _kill_server(self) -> None:
        assert self.server is not None
        self._note("kill the store")
        self.server.kill()
        self.stopped.wait(self.random.uniform(0, 0.5))
        self.server.start()

    def _pause_server(self) -> None:
        assert self.server is not None
        self._note("pause the store")
        with self.server.paused():
            self.stopped.wait(self.random.uniform(0.05, 1.0))


@contextmanager
def running_replicas(kinds: Sequence[str], store: str, folder: Path) -> Iterator[list[Replica]]:
    """One replica of each kind, all on one store; killed at the end."""
    with (folder / "replicas.log").open("ab") as output:
        replicas: list[Replica] = []
        try:
            for number, kind in enumerate(kinds):
                replicas.append(Replica(kind, number, store, output))
            for replica in replicas:
                replica.await_port()
            yield replicas
        finally:
            for replica in replicas:
                replica.kill()
