"""`hop_apps` as servers of their own, each calling the next: gunicorn and uvicorn, set by the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.ports import free_port
from support.replicas import answers
from support.waiting import eventually

TESTS = Path(__file__).parents[1]


@contextmanager
def chain(last: str, *kinds: str, **settings: str) -> Iterator[str]:
    """The URL of the first of `kinds` ("flask", "starlette"), which calls the second, ...; that one calls `last`."""
    environ = {f"UNSTICKY_{name}": value for name, value in settings.items()}
    with ExitStack() as stack:
        url = last
        for kind in reversed(kinds):
            url = stack.enter_context(_serving(kind, environ | {"UNSTICKY_POOLS__NEXT__ENDPOINTS": url}))
        yield url


@contextmanager
def _serving(kind: str, environ: dict[str, str]) -> Iterator[str]:
    port = free_port()
    environ = os.environ | {"UNSTICKY_SESSION__STORE": "memory://", "PYTHONPATH": str(TESTS)} | environ
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            _command(kind, port), cwd=TESTS, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            eventually(lambda: answers(port, process, output), 20)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def _command(kind: str, port: int) -> list[str]:
    python = [sys.executable, "-m"]
    if kind == "flask":
        serve = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "8"]
        return [*python, *serve, "--no-control-socket", "support.hop_apps:make_flask()"]
    serve = ["uvicorn", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [*python, *serve, "--factory", "support.hop_apps:make_starlette"]
