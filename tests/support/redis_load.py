"""Writers that use a store without pause, from threads and from an event loop, and remember what was acknowledged."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from support.stores import Face, face, record
from support.waiting import eventually
from unsticky.clock import SystemClock
from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change
from unsticky.stores import open_async_store, open_store

CLOCK = SystemClock()


@dataclass
class Log:
    """What one writer knows. `written`: fields of its own session; `deleted`: keys that it created and deleted."""

    key: str
    written: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    errors: list[tuple[float, str]] = field(default_factory=list)  # monotonic time, message
    slowest: float = 0.0


def change(name: str) -> Change:
    return Change(generation=0, put={name: b"x"})


class Load:
    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.logs: list[Log] = []
        self.failures: list[BaseException] = []
        self.stopped = threading.Event()

    def goes_on(self, more: int = 20) -> None:
        """Wait until every writer has so many more acknowledged."""
        before = [len(log.written) for log in self.logs]
        try:
            eventually(lambda: all(len(log.written) >= n + more for log, n in zip(self.logs, before, strict=True)), 20)
        except AssertionError as error:
            stuck = [log for log, n in zip(self.logs, before, strict=True) if len(log.written) < n + more]
            for log in stuck:
                error.add_note(f"{log.key}: {len(log.written)} written, last errors {log.errors[-3:]}")
            raise

    def _log(self, name: str) -> Log:
        self.logs.append(Log(name))
        return self.logs[-1]

    def threads(self, count: int) -> list[threading.Thread]:
        return [threading.Thread(target=self._guarded, args=(self._write, self._log(f"t{n}"))) for n in range(count)]

    def loop(self, tasks: int) -> threading.Thread:
        logs = [self._log(f"a{n}") for n in range(tasks)]
        return threading.Thread(target=self._guarded, args=(lambda logs: asyncio.run(self._write_all(logs)), logs))

    def _guarded(self, work: Any, argument: Any) -> None:
        try:
            work(argument)
        except BaseException as error:
            self.failures.append(error)

    def _write(self, log: Log) -> None:
        store = open_store(self.url, clock=CLOCK, timeout=self.timeout)
        n = 0
        while not self.stopped.is_set():
            n += 1
            with self._noted(log):
                store.create(log.key, record(CLOCK.time()))
                if store.update(log.key, change(f"{n}")) is Applied.APPLIED:
                    log.written.add(f"{n}")
                if n % 5 == 0:
                    store.create(f"{log.key}-{n}", record(CLOCK.time()))
                    store.delete(f"{log.key}-{n}")
                    log.deleted.add(f"{log.key}-{n}")
        store.close()

    async def _write_all(self, logs: list[Log]) -> None:
        store = open_async_store(self.url, clock=CLOCK, timeout=self.timeout)
        await asyncio.gather(*(self._write_async(store, log) for log in logs))
        await store.aclose()

    async def _write_async(self, store: Any, log: Log) -> None:
        n = 0
        while not self.stopped.is_set():
            n += 1
            with self._noted(log):
                await store.create(log.key, record(CLOCK.time()))
                if await store.update(log.key, change(f"{n}")) is Applied.APPLIED:
                    log.written.add(f"{n}")
                if n % 5 == 0:
                    await store.create(f"{log.key}-{n}", record(CLOCK.time()))
                    await store.delete(f"{log.key}-{n}")
                    log.deleted.add(f"{log.key}-{n}")

    @contextmanager
    def _noted(self, log: Log) -> Iterator[None]:
        """An outage is noted. The slowest of up to four verbs is, too."""
        started = time.monotonic()
        try:
            yield
        except StoreError as error:
            log.errors.append((time.monotonic(), str(error)))
        log.slowest = max(log.slowest, time.monotonic() - started)


@contextmanager
def load(url: str, timeout: float, threads: int = 2, tasks: int = 8) -> Iterator[Load]:
    """Under load, until the block ends. Fails if a writer met anything but StoreError."""
    one = Load(url, timeout)
    running = [*one.threads(threads), one.loop(tasks)]
    for thread in running:
        thread.start()
    try:
        yield one
    finally:
        one.stopped.set()
        for thread in running:
            thread.join(30)
    assert one.failures == []
    assert not any(thread.is_alive() for thread in running)


def lost(one: Load, url: str) -> list[str]:
    """Acknowledged writes that are not there, and acknowledged deletes whose records are."""
    store = open_store(url, clock=CLOCK, timeout=5.0)
    found: list[str] = []
    for log in one.logs:
        loaded = store.load(log.key)
        there = set(loaded.fields) if loaded is not None else set()
        found += [f"{log.key} lost {name}" for name in sorted(log.written - there)]
        found += [f"{key} rose again" for key in sorted(log.deleted) if store.load(key) is not None]
    store.close()
    return found


@contextmanager
def both(url: str, timeout: float) -> Iterator[dict[str, Face]]:
    """A store of each kind, by its name."""
    with face("sync", url, CLOCK, timeout) as one, face("async", url, CLOCK, timeout) as other:
        yield {"sync": one, "async": other}
