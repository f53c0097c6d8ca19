"""One run of one check: the replicas that it opens, the keys that it uses, and how it says what it found."""

from __future__ import annotations

import asyncio
import reprlib
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Barrier, Lock, Thread
from typing import Any, TypeVar
from uuid import uuid4

from ..session.store import Applied, AsyncStore, Change, Record, Store
from .clock import FakeClock

T = TypeVar("T")
Open = Callable[[FakeClock], Store | AsyncStore]

_PATIENCE = 120.0  # seconds until threads that do not end are a finding
_repr = reprlib.Repr()
_repr.maxother = _repr.maxstring = 400


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store documents that it can't hold."""

    largest_value: int
    most_fields: int


class Replica:
    """A Store or AsyncStore behind synchronous verbs, for one thread. Coroutines run on an event loop of its own."""

    def __init__(self, store: Store | AsyncStore) -> None:
        self.store: Any = store
        self.is_async = hasattr(store, "aclose")
        self._runner = asyncio.Runner()

    def load(self, key: str) -> Record | None:
        loaded: Record | None = self._answer(self.store.load(key))
        return loaded

    def create(self, key: str, record: Record) -> bool:
        created: bool = self._answer(self.store.create(key, record))
        return created

    def update(self, key: str, change: Change) -> Applied:
        applied: Applied = self._answer(self.store.update(key, change))
        return applied

    def delete(self, key: str) -> None:
        self._answer(self.store.delete(key))

    def close(self) -> None:
        self._answer(self.store.aclose() if self.is_async else self.store.close())

    def run(self, awaitable: Awaitable[T]) -> T:
        """Wait for it on this replica's loop."""
        return self._runner.run(_awaited(awaitable))

    def end(self) -> None:
        """Close the store, and the loop for good."""
        try:
            self.close()
        finally:
            self._runner.close()

    def _answer(self, answer: Any) -> Any:
        return self.run(answer) if self.is_async else answer


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


class Trial:
    """Opens replicas and closes them all in the end. `clock` stands still until the check moves it."""

    def __init__(self, opener: Open, limits: Limits) -> None:
        self.limits = limits
        self.clock = FakeClock()
        self._open = opener
        self._keys: list[str] = []
        self._replicas: list[Replica] = []
        self._lock = Lock()

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with ExitStack() as stack:
            for replica in self._replicas:
                stack.callback(replica.end)
            if kind is None and self._replicas:
                for key in self._keys:
                    self._replicas[0].delete(key)

    @property
    def now(self) -> float:
        return self.clock.time()

    def key(self, name: str = "") -> str:
        """A key that nobody else uses."""
        return self.known(f"v1:{uuid4().hex}{name}")

    def known(self, key: str) -> str:
        """`key`, which is deleted in the end."""
        self._keys.append(key)
        return key

    def replica(self, clock: FakeClock | None = None) -> Replica:
        """The store as one more process sees it. Use it in the thread that made it."""
        replica = Replica(self._open(clock or self.clock))
        with self._lock:
            self._replicas.append(replica)
        return replica

    def another_loop(self, replica: Replica) -> Replica:
        """The same object for another thread: an AsyncStore gets one more event loop."""
        other = Replica(replica.store)
        with self._lock:
            self._replicas.append(other)
        return other

    def record(self, **fields: bytes) -> Record:
        """A record that lives for an hour."""
        return Record(fields=fields, created=self.now, touched=self.now, expires=self.now + 3600)


def same(found: object, wanted: object, what: str) -> None:
    """Fail if they differ."""
    if found != wanted:
        raise AssertionError(f"{what}: expected {_repr.repr(wanted)}, found {_repr.repr(found)}")


def loaded(replica: Replica, key: str) -> Record:
    """The record, which must be there."""
    record = replica.load(key)
    if record is None:
        raise AssertionError("a record that should be live is absent")
    return record


def refused(work: Callable[[], object], what: str) -> None:
    """Fail unless `work` raises ValueError."""
    try:
        work()
    except ValueError:
        return
    raise AssertionError(f"{what}: expected ValueError, and nothing was raised")


def in_threads(count: int, work: Callable[[int], T]) -> list[T]:
    """`work(0)` .. `work(count - 1)`, each in a thread, all at once; their results. The first error is raised.

    Threads are switched much more often than usual, so that a step which is not atomic shows itself.
    """
    start, results, errors = Barrier(count), dict[int, T](), list[BaseException]()

    def one(n: int) -> None:
        try:
            start.wait(_PATIENCE)
            results[n] = work(n)
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=one, args=(n,), daemon=True) for n in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        _run_all(threads)
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
    return [results[n] for n in range(count)]


def _run_all(threads: list[Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE)
        if thread.is_alive():
            raise AssertionError(f"a thread did not end within {_PATIENCE:.0f} s")
