"""A small store that keeps the contract, in both sorts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from threading import RLock

from unsticky.clock import Clock
from unsticky.session.store import Applied, Change, Record
from unsticky.stores.merge import check_names, merge


class Shelf:
    """What the replicas of one store share."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.records: dict[str, Record] = {}


class SoundStore:
    """Keeps the contract."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        self.shelf, self.records, self.clock = shelf, shelf.records, clock

    def load(self, key: str) -> Record | None:
        record = self.records.get(key)
        return record if record and record.expires > self.clock.time() else None

    def create(self, key: str, record: Record) -> bool:
        check_names(record.fields, [record.owner or ""])
        with self.shelf.lock:
            if self.load(key):
                return False
            self.records[key] = replace(record, fields=dict(record.fields), owner=record.owner or None)
            return True

    def update(self, key: str, change: Change) -> Applied:
        check_names(change.put, change.drop, change.expect, [change.owner or ""])
        with self.shelf.lock:
            return self.write(key, *self.merged(key, change))

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        return merge(self.records.get(key), change, self.clock.time())

    def write(self, key: str, applied: Applied, record: Record | None) -> Applied:
        if record:
            self.records[key] = record
        elif applied is Applied.EMPTIED:
            del self.records[key]
        return applied

    def delete(self, key: str) -> None:
        with self.shelf.lock:
            self.records.pop(key, None)

    def purge(self, limit: int = 1000) -> int:
        with self.shelf.lock:
            expired = [key for key, record in self.records.items() if record.expires <= self.clock.time()][:limit]
            for key in expired:
                del self.records[key]
        return len(expired)

    def scan(self, batch: int = 500) -> Iterator[list[tuple[str, Record]]]:
        keys = list(self.records)
        for n in range(0, len(keys), batch):
            yield [(key, record) for key in keys[n : n + batch] if (record := self.load(key))]

    def close(self) -> None: ...


class SoundAsyncStore:
    """Keeps the contract too."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        self.inner = SoundStore(shelf, clock)
        self.load_now = self.inner.load

    async def load(self, key: str) -> Record | None:
        await asyncio.sleep(0)
        return self.inner.load(key)

    async def create(self, key: str, record: Record) -> bool:
        return self.inner.create(key, record)

    async def update(self, key: str, change: Change) -> Applied:
        await asyncio.sleep(0)
        return self.inner.update(key, change)

    async def delete(self, key: str) -> None:
        self.inner.delete(key)

    async def aclose(self) -> None: ...
