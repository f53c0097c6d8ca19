"""End to end: uvicorn and gunicorn, one worker each, driven by a load client in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE
from time import perf_counter, sleep
from typing import Any

from session_costs.measure import Figures, tell

SERVER, CLIENTS = (0, 1)  # places among the processors that there are: one for the server, one for what drives it

HERE = Path(__file__).parents[1]
CONNECTIONS = 32
WRITE_OWN = "write, each in a session of its own"  # in the other modes they share one, whose writes ours merges
_TRIES = 10
NONE, COOKIE, SQLITE, REDIS = "no session", "signed cookie", "unsticky SQLite", "unsticky Redis"
STAR, FLASK_SESSION = "starsessions Redis, autoload", "Flask-Session Redis"
FLASK_SESSION_QUIET = "Flask-Session Redis, refresh off"

STACKS = {
    "uvicorn": {NONE: "none", COOKIE: "cookie", STAR: "peer", SQLITE: "sqlite", REDIS: "redis"},
    "gunicorn": {
        NONE: "none",
        COOKIE: "cookie",
        FLASK_SESSION: "peer",
        FLASK_SESSION_QUIET: "peer quiet",
        SQLITE: "sqlite",
        REDIS: "redis",
    },
}


@dataclass(frozen=True, slots=True)
class Served:
    """A running server, and the cookies of sessions in it."""

    kind: str
    name: str
    port: int
    cookies: list[str]  # of as many sessions as there are connections


def fast_loop() -> bool:
    """Are uvloop and httptools here? uvicorn then uses them by itself."""
    return find_spec("uvloop") is not None and find_spec("httptools") is not None


def keep_on(process: subprocess.Popen[Any], place: int) -> None:
    """It stays on one processor, if there are two: else a server's share is luck."""
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(processors) > 1:
        os.sched_setaffinity(process.pid, {processors[place]})


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run(folder: Path, port: int, figures: Figures, *, rounds: int, seconds: float, modes: tuple[str, ...]) -> None:
    """Good answers per second of every stack: the best of the rounds. Idle servers cost nothing meanwhile."""
    with ExitStack() as closing, tempfile.TemporaryFile() as output:
        servers = []
        for kind, stacks in STACKS.items():
            for name, stack in stacks.items():
                url = f"sqlite:///{folder}/{kind}.db" if stack == "sqlite" else f"redis://127.0.0.1:{port}"
                environ = {"STACK": stack, "STORE": url, "REDIS_PORT": str(port)}
                at = closing.enter_context(_server(kind, environ, output.fileno()))
                servers.append(Served(kind, name, at, [_begun(at) for _ in range(CONNECTIONS)]))
        for number in range(rounds):
            for served in servers:
                tell(f"e2e: round {number + 1} of {rounds}, {served.kind}, {served.name}")
                for mode in modes:
                    key = served.kind, served.name, mode
                    rate, failed = _driven(served, mode, seconds)
                    figures.per_second[key] = max(figures.per_second.get(key, 0.0), rate)
                    figures.failed[key] = figures.failed.get(key, 0) + failed


def _driven(served: Served, mode: str, seconds: float) -> tuple[float, int]:
    path, cookies = ("/write", served.cookies) if mode == WRITE_OWN else (f"/{mode}", served.cookies[:1])
    command = [sys.executable, "-m", "session_costs.load", str(served.port), path, " ".join(cookies)]
    command += [str(CONNECTIONS), str(seconds)]
    with subprocess.Popen(command, cwd=HERE, stdout=PIPE, stderr=PIPE, text=True) as client:
        keep_on(client, CLIENTS)
        found, errors = client.communicate(timeout=60)
    if client.returncode:
        tell(f"{served.kind}, {served.name}, {mode}: {errors.strip()[-500:]}")
        return 0.0, CONNECTIONS
    rate, failed = found.split()
    return float(rate), int(failed)


def _begun(port: int) -> str:
    """The cookie of a new session; none for the app without sessions. A store that is late is asked again."""
    for _ in range(_TRIES):
        status, cookie = _new(port)
        if status == 200:
            return cookie
    raise RuntimeError(f"no session could be begun: status {status}, {_TRIES} times")


def _new(port: int) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/new")
        response = connection.getresponse()
        response.read()
        return response.status, (response.getheader("Set-Cookie") or "session=none").split(";")[0]
    finally:
        connection.close()


def _command(kind: str, port: int) -> list[str]:
    python = [sys.executable, "-m", kind]
    if kind == "uvicorn":
        quiet = ["--no-access-log", "--log-level", "warning"]
        return [
            *python,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            *quiet,
            "--factory",
            "session_costs.served:make_asgi",
        ]
    threads = ["--worker-class", "gthread", "--threads", "4", "--workers", "1", "--no-control-socket"]
    return [*python, "--bind", f"127.0.0.1:{port}", *threads, "session_costs.served:make_flask()"]


@contextmanager
def _server(kind: str, environ: dict[str, str], output: int) -> Iterator[int]:
    port = free_port()
    path = {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])}
    process = subprocess.Popen(
        _command(kind, port), cwd=HERE, env=os.environ | environ | path, stdout=output, stderr=output
    )
    keep_on(process, SERVER)
    try:
        _await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = perf_counter() + 20
    while process.poll() is None and perf_counter() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        sleep(0.02)
    raise RuntimeError(f"the server did not start (exit status {process.poll()})")
