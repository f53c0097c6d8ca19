"""Replicas of an app: gunicorn or uvicorn, each a process with a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.ports import free_port
from support.waiting import eventually

TESTS = Path(__file__).parents[1]


def command(kind: str, port: int) -> list[str]:
    python = [sys.executable, "-m"]
    if kind == "flask":
        serve = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "8"]
        return [
            *python,
            *serve,
            "--preload",
            "--workers",
            "2",
            "--no-control-socket",
            "support.replica_apps:make_flask()",
        ]
    serve = ["uvicorn", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [*python, *serve, "--factory", "support.replica_apps:make_starlette"]


@contextmanager
def replicas(kind: str, store: str, count: int = 2) -> Iterator[list[str]]:
    """The base URLs of `count` replicas on one store. Flask's are preloaded and forked, as in production."""
    ports = [free_port() for _ in range(count)]
    environ = os.environ | {"UNSTICKY_SESSION__STORE": store, "UNSTICKY_SESSION__STORE_TIMEOUT": "5s"}
    with tempfile.TemporaryFile() as output:
        running = [
            subprocess.Popen(
                command(kind, port),
                cwd=TESTS,
                env=environ | {"PYTHONPATH": str(TESTS)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for port in ports
        ]
        try:
            for port, process in zip(ports, running, strict=True):
                eventually(lambda port=port, process=process: answers(port, process, output), 20)  # type: ignore[misc]
            yield [f"http://127.0.0.1:{port}" for port in ports]
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(20)


def answers(port: int, process: subprocess.Popen[bytes], output: object) -> bool:
    if process.poll() is not None:
        output.seek(0)  # type: ignore[attr-defined]
        raise AssertionError(output.read().decode())  # type: ignore[attr-defined]
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
