"""Sessions in this process, for tests.

`memory://` is empty and private to each open; `memory://NAME` is shared by all that open the same name in this
process, threads and event loops alike, and forgotten when the last of them is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Lock
from weakref import WeakValueDictionary

from ..clock import Clock
from ..session.store import Applied, Change, Record
from .merge import check_names, merge
from .urls import memory_name


class _Shelf:
    """The records of one name, and the lock that makes a verb one step."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.records: dict[str, Record] = {}


_named: WeakValueDictionary[str, _Shelf] = WeakValueDictionary()
_named_lock = Lock()


def _shelf(name: str) -> _Shelf:
    if not name:
        return _Shelf()
    with _named_lock:
        return _named.setdefault(name, _Shelf())


def open_store(url: str, clock: Clock, timeout: float) -> MemoryStore:
    return MemoryStore(_shelf(memory_name(url)), clock)


def open_async_store(url: str, clock: Clock, timeout: float) -> AsyncMemoryStore:
    return AsyncMemoryStore(MemoryStore(_shelf(memory_name(url)), clock))


class MemoryStore:
    """A Store, Purgeable, Scannable. Closing keeps the records, as it does with a server."""

    local = True

    def __init__(self, shelf: _Shelf, clock: Clock) -> None:
        self._shelf = shelf
        self._clock = clock

    def load(self, key: str) -> Record | None:
        record = self._shelf.records.get(key)
        return record if record is not None and record.expires > self._clock.time() else None

    def create(self, key: str, record: Record) -> bool:
        check_names(record.fields, [record.owner or ""])
        kept = replace(record, fields=dict(record.fields), owner=record.owner or None)
        with self._shelf.lock:
            if self.load(key) is not None:
                return False
            self._shelf.records[key] = kept
        return True

    def update(self, key: str, change: Change) -> Applied:
        check_names(change.put, change.drop, change.expect, [change.owner or ""])
        with self._shelf.lock:
            applied, record = merge(self._shelf.records.get(key), change, self._clock.time())
            if record is not None:
                self._shelf.records[key] = record
            elif applied is Applied.EMPTIED:
                del self._shelf.records[key]
        return applied

    def delete(self, key: str) -> None:
        with self._shelf.lock:
            self._shelf.records.pop(key, None)

    def purge(self, limit: int = 1000) -> int:
        now = self._clock.time()
        with self._shelf.lock:
            expired = [key for key, record in self._shelf.records.items() if record.expires <= now][:limit]
            for key in expired:
                del self._shelf.records[key]
        return len(expired)

    def scan(self, batch: int = 500) -> Iterator[list[tuple[str, Record]]]:
        with self._shelf.lock:
            keys = list(self._shelf.records)
        for start in range(0, len(keys), batch):
            loaded = [(key, self.load(key)) for key in keys[start : start + batch]]
            yield [(key, record) for key, record in loaded if record is not None]

    def close(self) -> None: ...


class AsyncMemoryStore:
    """An AsyncStore over the same."""

    local = True

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.load_now = store.load
        self.purge = store.purge

    async def load(self, key: str) -> Record | None:
        return self._store.load(key)

    async def create(self, key: str, record: Record) -> bool:
        return self._store.create(key, record)

    async def update(self, key: str, change: Change) -> Applied:
        return self._store.update(key, change)

    async def delete(self, key: str) -> None:
        self._store.delete(key)

    async def aclose(self) -> None: ...
