"""Other processes that use a store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("store_worker.py")


class Worker:
    """One running task of `store_worker.py`, which waits for `go`."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        """What the task returned. Fails if it did not end well."""
        assert self.process.stdout is not None
        text = self.process.stdout.read()
        assert self.process.wait(60) == 0
        return json.loads(text)

    def kill(self) -> list[str]:
        """SIGKILL; the lines it wrote before."""
        assert self.process.stdout is not None
        self.process.kill()
        lines = self.process.stdout.read().splitlines(keepends=True)
        self.process.wait(10)
        return [line.strip() for line in lines if line.endswith("\n")]


@contextmanager
def workers(*tasks: tuple[object, ...]) -> Iterator[list[Worker]]:
    """All started and waiting; killed at the end if they still run."""
    started: list[Worker] = []
    try:
        for task in tasks:
            started.append(Worker(*task))
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.communicate()


def run_together(*tasks: tuple[object, ...]) -> list[Any]:
    """The results of tasks that were let go at the same time."""
    with workers(*tasks) as started:
        for worker in started:
            worker.go()
        return [worker.result() for worker in started]
