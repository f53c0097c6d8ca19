"""What is special about the SQLite store: its file, its locks, and what happens when either is in trouble."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support.processes import Worker, run_together, workers
from support.stores import face, put, record
from support.waiting import eventually
from unsticky.clock import SystemClock
from unsticky.errors import StoreError
from unsticky.session.store import Applied, AsyncStore, Change, Store
from unsticky.stores import open_async_store, open_store
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
KEY = "v1:key"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@contextmanager
def opened(path: Path, timeout: float = 5.0) -> Iterator[Store]:
    store = open_store(f"sqlite:///{path}", clock=CLOCK, timeout=timeout)
    try:
        yield store
    finally:
        store.close()


def opened_async(path: Path, timeout: float = 5.0) -> AsyncStore:
    return open_async_store(f"sqlite:///{path}", clock=CLOCK, timeout=timeout)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another writer holds the file."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        if other.in_transaction:
            other.execute("ROLLBACK")


def test_the_files_are_private(path: Path) -> None:
    """The database and its companions are readable by their owner alone, whatever the umask."""
    before = os.umask(0)
    try:
        with opened(path) as store:
            store.create(KEY, record(NOW, a=b"1"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600}


def test_opening_touches_no_file(path: Path) -> None:
    """A store that is not used makes nothing."""
    with opened(path):
        assert not path.exists()


def test_a_relative_path_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of directory does not move the store."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///a%20b.db", clock=CLOCK, timeout=1.0)
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.create(KEY, record(NOW))
    store.close()
    assert (tmp_path / "a b.db").exists()


def test_an_existing_database_is_shared(path: Path) -> None:
    """Sessions stand beside the tables of an application, which stay as they are."""
    with closing(sqlite3.connect(path)) as app:
        app.execute("CREATE TABLE sessions (x)")
        app.execute("INSERT INTO sessions VALUES (1)")
        app.commit()
        with opened(path) as store:
            store.create(KEY, record(NOW, a=b"1"))
        assert app.execute("SELECT * FROM sessions").fetchall() == [(1,)]


def test_a_file_of_before_goes_on(path: Path) -> None:
    """Its table was made WITHOUT ROWID, which is slower to read beyond a kilobyte a row, and otherwise the same."""
    with opened(path) as store:
        store.create("v1:a newer file's", record(NOW))
    with closing(sqlite3.connect(path)) as before:
        [[schema]] = before.execute("SELECT sql FROM sqlite_master WHERE name = 'unsticky_sessions'")
        before.execute("DROP TABLE unsticky_sessions")
        before.execute(f"{schema} WITHOUT ROWID")
    with opened(path) as store:
        assert store.create(KEY, record(NOW))
        assert not store.create(KEY, record(NOW))
        assert store.update(KEY, put(a=b"1")) is Applied.APPLIED
        [[(key, changed)]] = store.scan()
        assert key == KEY
        assert changed == store.load(KEY)
        assert changed.fields["a"] == b"1"


def test_a_locked_file_is_an_error_within_the_timeout(path: Path) -> None:
    """Writers give up in time, readers do not notice, and nothing was written."""
    with opened(path, timeout=0.2) as store:
        store.create(KEY, record(NOW, a=b"1"))
        with locked(path):
            for verb in (
                lambda: store.update(KEY, put(a=b"2")),
                lambda: store.create("v1:other", record(NOW)),
                lambda: store.delete(KEY),
            ):
                started = time.monotonic()
                with pytest.raises(StoreError, match="locked"):
                    verb()
                assert 0.1 < time.monotonic() - started < 1.0
            assert store.load(KEY) == record(NOW, a=b"1")
        assert store.update(KEY, put(a=b"3")) is Applied.APPLIED
        assert store.load("v1:other") is None


def test_a_locked_file_does_not_stop_the_loop(path: Path) -> None:
    """While a write waits for another process the loop goes on and reads are served; the write fails in time."""

    async def main() -> None:
        store = opened_async(path, timeout=0.3)
        await store.create(KEY, record(NOW, a=b"1"))
        with locked(path):
            started = time.monotonic()
            write = asyncio.create_task(store.update(KEY, put(a=b"2")))
            ticks = []
            while not write.done():
                ticks.append(time.monotonic())
                assert await store.load(KEY) == record(NOW, a=b"1")
                await asyncio.sleep(0.001)
            with pytest.raises(StoreError):
                await write
            assert 0.2 < time.monotonic() - started < 1.0
            assert len(ticks) > 20
        assert await store.update(KEY, put(a=b"3")) is Applied.APPLIED
        assert await store.load(KEY) == record(NOW, a=b"3")
        await store.aclose()

    asyncio.run(main())


def test_writes_that_waited_are_each_answered(path: Path) -> None:
    """Writes queued behind a lock get their own result each, failures included; cancelled ones harm nobody."""

    async def main() -> None:
        store = opened_async(path, timeout=10.0)
        await store.create(KEY, record(NOW, a=b"1"))
        with locked(path):
            cancelled = [asyncio.create_task(store.update(KEY, put(**{f"c{n}": b"x"}))) for n in range(20)]
            writes = [asyncio.create_task(store.update(KEY, put(**{f"w{n}": b"x"}))) for n in range(50)]
            broken = asyncio.create_task(store.update(KEY, Change(generation=0, touched="late")))  # type: ignore[arg-type]
            gone = asyncio.create_task(store.update("v1:absent", put(a=b"2")))
            conflict = asyncio.create_task(store.update(KEY, Change(generation=0, expect={"a": b"?"})))
            made = [asyncio.create_task(store.create("v1:new", record(NOW, n=b"%d" % n))) for n in range(3)]
            await asyncio.sleep(0)
            for task in cancelled:
                task.cancel()
        done = await asyncio.gather(*writes)
        assert done == [Applied.APPLIED] * 50
        assert await gone is Applied.GONE
        assert await conflict is Applied.CONFLICT
        assert sorted(await asyncio.gather(*made)) == [False, False, True]
        with pytest.raises(TypeError):
            await broken
        assert all(
            isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*cancelled, return_exceptions=True)
        )
        loaded = await store.load(KEY)
        assert loaded is not None
        assert {name for name in loaded.fields if name[0] == "w"} == {f"w{n}" for n in range(50)}
        assert loaded.touched == NOW
        await store.aclose()

    asyncio.run(main())


def test_writes_that_waited_share_a_transaction(path: Path) -> None:
    """Fifty writes behind a lock cost the log a few pages, not fifty commits of one page or more each."""
    log = path.with_name("sessions.db-wal")

    async def main() -> None:
        store = opened_async(path, timeout=10.0)
        await store.create(KEY, record(NOW))
        with locked(path):
            writes = [asyncio.create_task(store.update(KEY, put(**{f"w{n}": b"x"}))) for n in range(50)]
            await asyncio.sleep(0)
            before = os.stat(log).st_size
        assert await asyncio.gather(*writes) == [Applied.APPLIED] * 50
        assert os.stat(log).st_size - before < 20 * 4096
        await store.aclose()

    asyncio.run(main())


def test_the_writers_thread_ends(path: Path) -> None:
    """The thread that writes for the loop is there only while something waits."""

    async def main() -> None:
        store = opened_async(path)
        await store.create(KEY, record(NOW))
        with locked(path):
            write = asyncio.create_task(store.update(KEY, put(a=b"1")))
            await asyncio.sleep(0)
            names = {thread.name for thread in threading.enumerate()}
        assert "unsticky-sqlite-writer" in names
        assert await write is Applied.APPLIED
        for thread in threading.enumerate():
            if thread.name == "unsticky-sqlite-writer":
                thread.join(5)
                assert not thread.is_alive()
        assert await store.update(KEY, put(a=b"2")) is Applied.APPLIED
        await store.aclose()

    asyncio.run(main())


def test_one_async_store_serves_loops_in_threads(path: Path) -> None:
    """Four threads with an event loop each use the same object."""
    store = opened_async(path, timeout=20.0)
    asyncio.run(store.create(KEY, record(NOW)))
    failures: list[BaseException] = []

    async def main(name: int) -> None:
        done = await asyncio.gather(*(store.update(KEY, put(**{f"{name} {n}": b"x"})) for n in range(50)))
        assert done == [Applied.APPLIED] * 50

    def run(name: int) -> None:
        try:
            asyncio.run(main(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    loaded = asyncio.run(store.load(KEY))
    asyncio.run(store.aclose())
    assert failures == []
    assert loaded is not None
    assert len(loaded.fields) == 200


def test_a_killed_writer_leaves_whole_changes(path: Path) -> None:
    """kill -9 in the middle of writing: the file is sound, what was confirmed is there, no change is there by half."""
    real = open_store(f"sqlite:///{path}", clock=SystemClock(), timeout=5.0)
    real.create(KEY, record(SystemClock.time()))
    with workers(("endless", f"sqlite:///{path}", KEY)) as (writer,):
        assert isinstance(writer, Worker)
        writer.go()
        while int(line := writer.line()) < 200:
            pass
        confirmed = int([line, *writer.kill()][-1])
    loaded = real.load(KEY)
    assert loaded is not None
    assert loaded.fields["a"] == loaded.fields["b"]
    assert int(loaded.fields["a"]) in (confirmed, confirmed + 1)
    assert real.update(KEY, put(c=b"x")) is Applied.APPLIED
    real.close()
    with closing(sqlite3.connect(path)) as check:
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_is_an_error(path: Path) -> None:
    """A write that does not fit is a StoreError and leaves no trace; with room again the same store goes on."""
    real = open_store(f"sqlite:///{path}", clock=SystemClock(), timeout=5.0)
    real.create(KEY, record(SystemClock.time()))
    real.close()
    (result,) = run_together(("full_disk", f"sqlite:///{path}", KEY))
    confirmed, kept, message = result
    assert confirmed == kept > 0
    assert message.startswith("SQLite store: ")


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000], ids=["text", "header"])
def test_a_file_that_is_no_database(path: Path, kind: str, content: bytes) -> None:
    """Every verb says so with a StoreError that names no path; put right, the same store works."""
    path.write_bytes(content)
    with face(kind, f"sqlite:///{path}", CLOCK, timeout=5.0) as store:
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                store.load(KEY)
            assert str(path.parent) not in str(caught.value)
            with pytest.raises(StoreError):
                store.create(KEY, record(NOW))
        path.unlink()
        assert store.create(KEY, record(NOW))


def test_a_corrupted_file(path: Path) -> None:
    """Pages overwritten with junk are a StoreError, not a crash and not an absent session."""
    with opened(path) as store:
        for n in range(200):
            store.create(f"{KEY}{n}", record(NOW, a=bytes(500)))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 8192))
    with opened(path) as store, pytest.raises(StoreError):
        assert None not in [store.load(f"{KEY}{n}") for n in range(200)]


@pytest.mark.parametrize("blob", [b"", b"\xc1", b"\x81\xa1a\x01", b"\x93"], ids=repr)
def test_a_damaged_record(path: Path, blob: bytes) -> None:
    """A row that we can't have written is a StoreError for load and update, left out by scan, and can be deleted."""
    with opened(path) as store:
        store.create(KEY, record(NOW))
        assert list(store.scan()) == [[(KEY, record(NOW))]]
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE unsticky_sessions SET fields = ?", (blob,))
            other.commit()
        with pytest.raises(StoreError, match="damaged"):
            store.load(KEY)
        with pytest.raises(StoreError, match="damaged"):
            store.update(KEY, put(a=b"1"))
        assert list(store.scan()) == [[]]
        store.delete(KEY)
        assert store.load(KEY) is None


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """The message says which directory does not exist."""
    with opened(tmp_path / "missing" / "sessions.db") as store:
        with pytest.raises(StoreError, match=r"directory '.*missing' does not exist"):
            store.load(KEY)
        (tmp_path / "missing").mkdir()
        assert store.load(KEY) is None


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """A path that is a directory is a StoreError."""
    with opened(tmp_path) as store, pytest.raises(StoreError):
        store.load(KEY)


def test_an_interrupted_operation_frees_the_lock(path: Path) -> None:
    """Whatever breaks out of a change, the transaction is rolled back and the connection goes on."""

    class StopError(BaseException):
        pass

    class Fields(dict[str, bytes]):
        def items(self):  # type: ignore[no-untyped-def]
            raise StopError

    with opened(path) as store:
        store.create(KEY, record(NOW, a=b"1"))
        with pytest.raises(StopError):
            store.update(KEY, Change(generation=0, expect=Fields(a=b"1")))
        with opened(path, timeout=0.05) as other:
            assert other.update(KEY, put(a=b"2")) is Applied.APPLIED
        assert store.load(KEY) == record(NOW, a=b"2")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_deleted_is_left_within_a_second(path: Path, replaced: bool) -> None:
    """As by a deploy script: writes into a file that nobody else can open would be lost."""
    with opened(path) as store:
        store.create(KEY, record(NOW, a=b"old"))
        for file in path.parent.iterdir():
            file.unlink()
        if replaced:
            with opened(path) as other:
                other.create(KEY, record(NOW, a=b"new"))
        wanted = record(NOW, a=b"new") if replaced else None
        eventually(lambda: store.load(KEY) == wanted)
        store.create(f"{KEY}2", record(NOW, b=b"1"))
        with opened(path) as other:
            assert other.load(f"{KEY}2") == record(NOW, b=b"1")


def test_a_fork_waits_for_connections_that_threads_use_open_or_close(path: Path) -> None:
    """One that crosses a fork takes SQLite's locks along: others then wait for ever, or write over each other."""
    url = f"sqlite:///{path}"
    with closing(open_store(url, clock=SystemClock(), timeout=5.0)) as store:
        assert store.create(KEY, record(SystemClock.time()))
        [[statuses, written]] = run_together(("fork_busy", url, KEY, 40))
        found = store.load(KEY)
    assert statuses == [0] * 40
    assert found is not None
    assert sum(name.startswith("child ") for name in found.fields) == 40
    assert sum(name.startswith("thread ") for name in found.fields) == written > 0
