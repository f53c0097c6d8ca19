"""Real server processes on the loopback: started, killed, and never left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import httpx

from .collector import EXPORT_SECONDS

EXAMPLES = Path(__file__).parents[1]
ADDRESS = re.compile(rb"(?:Listening at:|running on|serves) (http://127\.0\.0\.1:\d+)")
START_SECONDS = 20.0
STOP_SECONDS = 3.0


class StartError(Exception):
    """A server did not start; its last words are in the message."""


@dataclass(slots=True)
class Server:
    """One process (and its children), in a process group of its own: Ctrl-C reaches it through us alone."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    killed: bool = False
    _url: str = ""

    @property
    def url(self) -> str:
        """The origin that the server printed: it chose a free port itself, so that no port is taken twice."""
        deadline = time.monotonic() + START_SECONDS
        while not self._url:
            if found := ADDRESS.search(self.log.read_bytes()):
                self._url = found[1].decode()
            elif self.process.poll() is not None or time.monotonic() > deadline:
                raise StartError(f"{self.name} did not start:\n{self.last_words()}")
            else:
                time.sleep(0.02)
        return self._url

    def wait(self, path: str) -> None:
        """Until the server answers `path` with 200."""
        if not until(lambda: _answers(self.url + path) or self.process.poll() is not None, START_SECONDS):
            raise StartError(f"{self.name} does not answer:\n{self.last_words()}")
        if self.process.poll() is not None:
            raise StartError(f"{self.name} ended:\n{self.last_words()}")

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """SIGKILL: no farewell, no flush, connections break."""
        self.killed = True
        self.signal(signal.SIGKILL)
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass  # gone already


@dataclass(slots=True)
class Servers:
    """All that was started. Leaving the block ends every one of them."""

    folder: Path  # for logs
    environ: Mapping[str, str]
    _all: list[Server] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def start(self, name: str, command: list[str], folder: Path = EXAMPLES, **environ: str) -> Server:
        """Start `python -m ...`; `Server.url` waits for it."""
        log = self.folder / f"{name}.log"
        with uninterrupted(), log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._all.append(Server(name, process, log))
        return self._all[-1]

    def _stop(self) -> None:
        for server in self._all:
            server.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for server in self._all:
            try:
                server.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            # Children of a server that is gone may live on in its group.
            server.signal(signal.SIGKILL)
            server.process.wait()


@contextmanager
def uninterrupted() -> Generator[None]:
    """Ctrl-C waits until the block is done: a process that was just started is known, one that ends is waited for."""
    seen: list[int] = []

    def later(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before = {number: signal.signal(number, later) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
    if seen:
        raise KeyboardInterrupt


def start_catalogs(servers: Servers, count: int) -> list[Server]:
    """Endpoints of the upstream, each a process of its own."""
    return [_named(servers, f"catalog-{n}", ["catalog", "0"], EXAMPLES) for n in range(1, count + 1)]


def start_flask(servers: Servers, count: int, **environ: str) -> list[Server]:
    """Replicas of the Flask shop under gunicorn."""
    config = servers.folder / "gunicorn.conf.py"
    # Three masters would share one control socket in the home directory. Older versions ignore the name.
    config.write_text("control_socket_disable = True\nworker_class = 'gthread'\nthreads = 8\nkeepalive = 30\n")
    command = ["gunicorn", "--bind", "127.0.0.1:0", "--config", str(config), "app:app"]
    return [_named(servers, f"flask-{n}", command, EXAMPLES / "flask_app", **environ) for n in range(1, count + 1)]


def start_starlette(servers: Servers, count: int, **environ: str) -> list[Server]:
    """Replicas of the Starlette shop under uvicorn."""
    command = ["uvicorn", "--host", "127.0.0.1", "--port", "0", "--no-access-log", "app:app"]
    folder = EXAMPLES / "starlette_app"
    return [_named(servers, f"starlette-{n}", command, folder, **environ) for n in range(1, count + 1)]


def _named(servers: Servers, name: str, command: list[str], folder: Path, **environ: str) -> Server:
    return servers.start(name, command, folder, REPLICA=name, OTEL_SERVICE_NAME=name, **environ)


def shop_settings(store: str, catalogs: Iterable[Server]) -> dict[str, str]:
    """What the shops' unsticky.toml does not know: unsticky takes it from the environment."""
    return {
        "UNSTICKY_SESSION__STORE": store,
        "UNSTICKY_POOLS__CATALOG__ENDPOINTS": ",".join(server.url for server in catalogs),
    }


def clean_environment(collector: str) -> dict[str, str]:
    """Ours without what would change the demo, and with traces sent to `collector`, soon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UNSTICKY_", "OTEL_"))}
    return kept | {
        "NO_PROXY": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_BSP_SCHEDULE_DELAY": f"{EXPORT_SECONDS * 1000:.0f}",
        "PYTHONUNBUFFERED": "1",
    }


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], object], seconds: float, pause: float = 0.05) -> bool:
    """Wait for a condition; False if it did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
