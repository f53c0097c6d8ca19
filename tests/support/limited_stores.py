"""Stores that can't hold what a store must hold, each in one way that a real server suggests."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

from support.sound_stores import SoundStore
from unsticky.session.store import Applied, Change, Record


class IgnoresExpires(SoundStore):
    """A touch does not last."""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        return super().merged(key, replace(change, expires=None))


class IgnoresDrops(SoundStore):
    """What is gone from a session stays in the store."""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        return super().merged(key, replace(change, drop=frozenset()))


class DeletesTheEmpty(SoundStore):
    """A hash of Redis without fields is no more."""

    def write(self, key: str, applied: Applied, record: Record | None) -> Applied:
        if record and not record.fields:
            record, applied = None, Applied.EMPTIED
        return super().write(key, applied, record)


class DeleteNeedsARecord(SoundStore):
    """As `del` does."""

    def delete(self, key: str) -> None:
        del self.records[key]


class MixesFieldsWithItsOwn(SoundStore):
    """The generation stands among the session's fields, under `g`."""

    def load(self, key: str) -> Record | None:
        record = super().load(key)
        fields = {name: value for name, value in record.fields.items() if name != "g"} if record else {}
        return record and replace(record, fields=fields)


class WritesFieldByField(SoundStore):
    """One statement for each."""

    def write(self, key: str, applied: Applied, record: Record | None) -> Applied:
        if record and key in self.records:
            for name, value in record.fields.items():
                kept = self.records[key]
                self.records[key] = replace(kept, fields={**kept.fields, name: value})
                Event().wait(0.0001)
        return super().write(key, applied, record)


class RotationResurrects(SoundStore):
    """Renaming a session that was deleted makes it anew: Spring #1137."""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        applied, record = super().merged(key, change)
        if applied is Applied.GONE and change.raise_generation and change.put and key not in self.records:
            now = self.clock.time()
            return Applied.APPLIED, Record(dict(change.put), now, now, now + 60)
        return applied, record


class TakesAnEmptyPrefixForNone(SoundStore):
    """`if change.delete_if_only:`"""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        return super().merged(key, replace(change, delete_if_only=change.delete_if_only or None))


class CutsLongValues(SoundStore):
    """A column for 64 kB."""

    def load(self, key: str) -> Record | None:
        record = super().load(key)
        fields = {name: value[:65535] for name, value in record.fields.items()} if record else {}
        return record and replace(record, fields=fields)


class KeepsFewFields(SoundStore):
    """A statement takes 999 parameters."""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        return super().merged(key, replace(change, put=dict(list(change.put.items())[:999])))


class EndsIn2038(SoundStore):
    """A time has 31 bits."""

    def load(self, key: str) -> Record | None:
        record = super().load(key)
        return record if record and record.expires < 2**31 else None


class IgnoresCase(SoundStore):
    def load(self, key: str) -> Record | None:
        return super().load(key.lower())

    def create(self, key: str, record: Record) -> bool:
        return super().create(key.lower(), record)


class KeepsTextOnly(SoundStore):
    def load(self, key: str) -> Record | None:
        record = super().load(key)
        text = (
            {name: value.decode(errors="replace").encode() for name, value in record.fields.items()} if record else {}
        )
        return record and replace(record, fields=text)


class TakesAnyName(SoundStore):
    """Writes what no other store could encode."""

    def update(self, key: str, change: Change) -> Applied:
        with self.shelf.lock:
            return self.write(key, *self.merged(key, change))
