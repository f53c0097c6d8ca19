"""Stores of both kinds behind one synchronous face, so that a test is written once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import pytest

from unsticky.clock import Clock
from unsticky.errors import StoreError
from unsticky.session.store import Applied, AsyncStore, Change, Record, Store
from unsticky.stores import open_async_store, open_store
from unsticky.testing import FakeClock


class Face(Protocol):
    """A Store's verbs, and the store behind them."""

    store: Any

    def load(self, key: str) -> Record | None: ...
    def create(self, key: str, record: Record) -> bool: ...
    def update(self, key: str, change: Change) -> Applied: ...
    def delete(self, key: str) -> None: ...
    def close(self) -> None: ...


class SyncFace:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.load, self.create, self.update = store.load, store.create, store.update
        self.delete, self.close = store.delete, store.close


class AsyncFace:
    """Each call runs on one event loop, which lives as long as the face."""

    def __init__(self, store: AsyncStore, runner: asyncio.Runner) -> None:
        self.store = store
        self._runner = runner

    def load(self, key: str) -> Record | None:
        return self._runner.run(self.store.load(key))

    def create(self, key: str, record: Record) -> bool:
        return self._runner.run(self.store.create(key, record))

    def update(self, key: str, change: Change) -> Applied:
        return self._runner.run(self.store.update(key, change))

    def delete(self, key: str) -> None:
        self._runner.run(self.store.delete(key))

    def close(self) -> None:
        self._runner.run(self.store.aclose())


@contextmanager
def face(kind: str, url: str, clock: Clock, timeout: float) -> Iterator[Face]:
    """`kind` is "sync" or "async"."""
    if kind == "sync":
        store = open_store(url, clock=clock, timeout=timeout)
        try:
            yield SyncFace(store)
        finally:
            store.close()
    else:
        with asyncio.Runner() as runner:
            one = AsyncFace(open_async_store(url, clock=clock, timeout=timeout), runner)
            try:
                yield one
            finally:
                one.close()


SOME_TIME = FakeClock().time()

Opener = Callable[[], Face]


def record(now: float, **fields: bytes) -> Record:
    """A record that lives for an hour."""
    return Record(fields=fields, created=now, touched=now, expires=now + 3600)


def with_fields(one: Record, fields: dict[str, bytes]) -> Record:
    return replace(one, fields=fields)


def put(**fields: bytes) -> Change:
    """A change to a record that nobody has rotated strictly."""
    return Change(generation=0, put=fields)


# Each verb, as a fault may meet it.
VERBS: list[Callable[[Face, str], object]] = [
    lambda store, key: store.load(key),
    lambda store, key: store.create(key, record(SOME_TIME)),
    lambda store, key: store.update(key, put(a=b"1")),
    lambda store, key: store.delete(key),
]


def within(seconds: float, verb: Callable[[], object]) -> None:
    """`verb` raises StoreError before `seconds` have passed."""
    started = time.monotonic()
    with pytest.raises(StoreError):
        verb()
    assert time.monotonic() - started < seconds
