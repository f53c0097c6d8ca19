"""The command `unsticky sessions` as a process: at a terminal, in a pipe, beside an app; with ten thousand sessions."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from cli.shops import Shop, here
from session.visits import Browser
from unsticky.clock import SystemClock
from unsticky.scalars import Duration, StoreURL
from unsticky.session.options import SessionOptions
from unsticky.session.owners import ledger_key
from unsticky.session.store import Applied, Change, Record
from unsticky.sessions import Sessions
from unsticky.stores import open_store
from unsticky.testing import FakeClock

__all__ = ["here"]

COUNT = 10_000
URL = "sqlite:///sessions.db"
DAY = 86400.0


class Terminal:
    """The command with a terminal as its stdin and stderr. `seen` is what it printed there."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = os.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unsticky", "sessions", *arguments],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)

    def read(self, wanted: str, timeout: float = 30.0) -> str:
        """Wait until `wanted`, a regular expression, is on the terminal."""
        deadline = time.monotonic() + timeout
        while not re.search(wanted, self.seen):
            assert time.monotonic() < deadline, f"not seen: {wanted!r} in {self.seen[-500:]!r}"
            assert self._read(), f"it ended without {wanted!r}: {self.seen[-500:]!r}"
        return self.seen

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, until it is heard: one that comes between the question and its `read` waits for a line."""
        while self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)

    def end(self) -> tuple[int, str]:
        """Its exit status and stdout, when it has ended."""
        while self._read():
            pass
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._ours)

    def _read(self) -> bool:
        """More of what is on the terminal; False when it ended."""
        with suppress(OSError):  # Linux: nobody has it open any more
            if not select.select([self._ours], [], [], 0.05)[0]:
                return self.process.poll() is None
            data = os.read(self._ours, 65536)
            self.seen += data.decode()
            return bool(data)
        return False


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    one = Terminal(*arguments)
    try:
        yield one
    finally:
        one.close()


def piped(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unsticky", "sessions", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def filled(path: Path, age: float) -> None:
    """Ten thousand sessions that began `age` seconds ago; every tenth has an owner."""
    options = SessionOptions(store=StoreURL(f"sqlite:///{path}"), store_timeout=Duration(5))
    sessions = Sessions(options, clock=FakeClock(time.time() - age))
    for number in range(COUNT):
        with Browser(sessions).visit() as session:
            session["cart"] = ["tea"]
            if number % 10 == 0:
                session.owner = str(number % 2000)
    sessions.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both files, made once."""
    folder = tmp_path_factory.mktemp("made")
    filled(folder / "live.db", 60)
    filled(folder / "expired.db", 43 * DAY)  # a list of an owner's sessions is kept for three idle timeouts
    return folder


@pytest.fixture
def live(made: Path) -> None:
    """sessions.db has ten thousand sessions."""
    Path("sessions.db").write_bytes((made / "live.db").read_bytes())


@pytest.fixture
def expired(made: Path) -> None:
    """sessions.db has ten thousand sessions that nobody can use any more."""
    Path("sessions.db").write_bytes((made / "expired.db").read_bytes())


def make_one_owners(entries: int) -> None:
    """All sessions are one owner's, whose list has so many others too: ending one takes longer, the more there are."""
    with closing(sqlite3.connect("sessions.db")) as file, file:
        file.execute("UPDATE unsticky_sessions SET owner = '0' WHERE key LIKE 'v1:%'")
    with closing(open_store(URL, clock=SystemClock(), timeout=5)) as store:
        now = repr(time.time()).encode()
        others = {f"v1:{number:043}": now for number in range(entries)}
        assert store.update(ledger_key("0"), Change(0, put=others)) is Applied.APPLIED


@pytest.mark.usefixtures("live")
def test_ten_thousand_sessions_are_listed_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    """In each form; it takes a tenth of the time that is given here, or less."""
    shop = Shop(URL, capsys)
    for arguments, lines in ((["list"], COUNT + 3), (["list", "--json"], COUNT), (["stats"], 15)):
        started = time.perf_counter()
        assert len(shop.done(*arguments).splitlines()) == lines
        assert time.perf_counter() - started < 5
    assert json.loads(shop.done("stats", "--json"))["owners"] == 200


@pytest.mark.usefixtures("expired")
def test_ten_thousand_expired_ones_are_purged_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    """With the lists of their owners."""
    shop = Shop(URL, capsys)
    started = time.perf_counter()
    assert shop.done("purge") == "10,200 expired records deleted.\n"
    assert time.perf_counter() - started < 10


@pytest.mark.usefixtures("expired")
def test_a_purge_lets_the_app_write() -> None:
    """No write of a request waits for so long that it fails."""
    sessions = Sessions(SessionOptions(store=StoreURL(URL)))  # with an app's own deadline
    store, now = sessions.access.store, time.time()
    store.create("v1:app", Record({"n": b"0"}, now, now, now + 999))
    purge = subprocess.Popen([sys.executable, "-m", "unsticky", "sessions", "purge"], stdout=subprocess.PIPE)
    writes = 0
    while purge.poll() is None:
        store.update("v1:app", Change(0, put={"n": b"%d" % writes}))
        writes += 1
    out, _ = purge.communicate()
    assert (purge.returncode, out) == (0, b"10,200 expired records deleted.\n")
    record = store.load("v1:app")
    assert record is not None
    assert record.fields == {"n": b"%d" % (writes - 1)}
    assert writes > 20
    sessions.close()


@pytest.mark.usefixtures("live")
def test_a_bar_and_a_question_at_a_terminal() -> None:
    """It asks with the number; "y" ends them; the bar is gone afterwards, and stdout has the result alone."""
    make_one_owners(1000)
    with terminal("revoke", "--all") as one:
        one.read(r"End all 10,000 sessions in sqlite:///sessions\.db\? \[y/N\] ")
        one.type("y\n")
        one.read(r"\[#+-+\]\s+\d+%  [\d,]+ of 10,000 sessions ended, [\d,]+/s, \d+s left")
        assert one.end() == (0, "10,000 sessions ended.\n")
        assert re.search(r"\r +\r$", one.seen), repr(one.seen[-200:])
    assert piped("list").stdout == "No sessions in sqlite:///sessions.db.\n"


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("answer", ["n\n", "\n", "yesterday\n", "\x04"])
def test_anything_but_yes_ends_nothing(answer: str) -> None:
    """No, nothing, and the end of the input."""
    with terminal("revoke", "--all") as one:
        one.read("y/N")
        one.type(answer)
        assert one.end() == (1, "")
        assert one.seen.endswith("unsticky: nothing was ended\r\n")
    assert f"{COUNT:,} sessions in" in piped("list", "--limit", "1").stdout


@pytest.mark.usefixtures("live")
def test_ctrl_c_tells_what_was_done() -> None:
    """Status 130, and a number that is true; no stack trace."""
    make_one_owners(20_000)
    with terminal("revoke", "--all", "--yes") as one:
        one.read(r"[\d,]+ sessions ended, [\d,]+/s")
        one.process.send_signal(signal.SIGINT)
        assert one.end() == (130, "")
        told = re.search(r"\r +\runsticky: interrupted; ([\d,]+) sessions ended so far\r\n$", one.seen)
        assert told is not None, repr(one.seen[-300:])
    left = json.loads(piped("stats", "--json").stdout)["sessions"]
    assert 0 < left < COUNT
    assert COUNT - left - int(told[1].replace(",", "")) in (0, 1)  # one may be ended and not counted yet


@pytest.mark.usefixtures("live")
def test_ctrl_c_at_the_question() -> None:
    """The same status, and nothing was ended."""
    with terminal("revoke", "--all") as one:
        one.read("y/N")
        one.interrupt()
        assert one.end() == (130, "")
        assert one.seen.endswith("unsticky: interrupted\r\n")
    assert f"{COUNT:,} sessions in" in piped("list", "--limit", "1").stdout


@pytest.mark.usefixtures("live")
def test_nothing_but_the_result_in_pipes() -> None:
    """No bar, no question; stderr is empty."""
    done = piped("revoke", "--all", "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "10,000 sessions ended.\n", "")


@pytest.mark.usefixtures("live")
def test_a_reader_that_stops_reading() -> None:
    """`| head -1` is no error."""
    for form in ("", "--json"):
        command = f"{sys.executable} -m unsticky sessions list {form} | head -1 | wc -l; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1", "")


@pytest.mark.usefixtures("live")
def test_the_other_commands_start_fast() -> None:
    """Neither stores nor telemetry are imported before a command that needs them runs."""
    code = "import sys; from unsticky.cli import main; main(['sessions']); print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    assert not {"unsticky.sessions", "sqlite3", "redis", "psycopg", "opentelemetry"} & set(loaded)
