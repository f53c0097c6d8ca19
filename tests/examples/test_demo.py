"""`make demo`: every promise is kept, a broken one is told, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stage.servers import EXAMPLES

from support.valkey import Valkey
from support.waiting import eventually

MARK = f"demo-under-test-{uuid.uuid4().hex}"


@contextmanager
def demo(tmp_path: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """The demo, with a mark in its environment that all its children inherit."""
    environ = os.environ | {"TMPDIR": str(tmp_path), "UNDER_TEST": MARK, "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "demo.py"), *arguments],
        env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
    assert not (left := with_mark(MARK)), left
    assert list(tmp_path.iterdir()) == []


def with_mark(mark: str) -> list[str]:
    """The command lines of all processes that have the mark in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environ.read_bytes():
                found.append((environ.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it ended, or is not ours
    return found


def row(output: str, label: str) -> list[str]:
    """The numbers of one row of the final table, Flask's and Starlette's."""
    [line] = re.findall(rf"^{label} {{2,}}(.+)$", output, re.MULTILINE)
    return re.split(r" {2,}", str(line).strip())


def test_nothing_fails_and_nothing_is_lost(tmp_path: Path) -> None:
    """Two replicas and an endpoint are killed; the table says so and shows the promises kept."""
    started = time.monotonic()
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert time.monotonic() - started < 30
    assert re.findall(r"kill -9 (\S+) ", output) == ["flask-2", "catalog-1", "starlette-2"]
    assert row(output, "requests") == ["240", "240"]
    assert row(output, "failures") == row(output, "sessions lost") == ["0", "0"]
    assert row(output, "replicas used per session") == ["3", "3"]
    assert re.search(r"├── GET pool catalog, attempt 1 to 127\.0\.0\.1:\d+: \w+(Error|Timeout)  [\d.]+ ms", output)
    assert re.search(r"── GET pool catalog, attempt 2 to 127\.0\.0\.1:\d+: 200  [\d.]+ ms", output)
    assert "BROKEN" not in output
    assert "Traceback" not in output


def test_the_store_that_was_asked_for(tmp_path: Path) -> None:
    """With --store the sessions are in that store."""
    valkey = Valkey()
    try:
        with demo(tmp_path, "--store", valkey.url) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        with valkey.client() as client:
            assert client.dbsize() >= 12
    finally:
        valkey.kill()


def test_a_broken_promise_is_told(tmp_path: Path) -> None:
    """With sessions in each replica's own memory they are lost: the demo says so, and its status is 1."""
    with demo(tmp_path, "--store", "memory://") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert row(output, "sessions lost") == ["6", "6"]
    assert "BROKEN: Flask: sessions lost: Ada, Ben, Cleo, Dov, Eva, Finn" in output


def test_a_wrong_store_is_refused_at_once(tmp_path: Path) -> None:
    """A URL that no store has starts nothing."""
    with demo(tmp_path, "--store", "reddis://localhost") as process:
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert output.startswith('settings: 1 problem\n  session.store: unknown store "reddis"')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", ["Starting three", "shoppers in each", "kill -9 catalog-1"])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    """Ctrl-C, or SIGTERM, while servers start or requests are under way: no process and no file is left."""
    with demo(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        assert eventually(lambda: list(tmp_path.glob("unsticky-demo-*/*.log")))
        assert eventually(lambda: len(with_mark(MARK)) > 2)
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output.endswith("Stopped; nothing is left running.\n")
    assert "Traceback" not in output
