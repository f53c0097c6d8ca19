"""Stores that each get one thing wrong, as real ones did, and the check that is there for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event, get_ident
from typing import Any

from support.limited_stores import (
    CutsLongValues,
    DeleteNeedsARecord,
    DeletesTheEmpty,
    EndsIn2038,
    IgnoresCase,
    IgnoresDrops,
    IgnoresExpires,
    KeepsFewFields,
    KeepsTextOnly,
    MixesFieldsWithItsOwn,
    RotationResurrects,
    TakesAnEmptyPrefixForNone,
    TakesAnyName,
    WritesFieldByField,
)
from support.sound_stores import Shelf, SoundAsyncStore, SoundStore
from unsticky.clock import Clock, SystemClock
from unsticky.session.store import Applied, Change, Record
from unsticky.stores.merge import check_names, merge


class LosesUpdates(SoundStore):
    """Writes back the whole record that it loaded, as Flask-Session, starsessions and Django do."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        super().__init__(shelf, clock)
        self.seen: dict[str, Record | None] = {}

    def load(self, key: str) -> Record | None:
        self.seen[key] = super().load(key)
        return self.seen[key]

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        known = self.records.get(key)
        return merge(known and (self.seen.get(key) or known), change, self.clock.time())


class Resurrects(SoundStore):
    """Makes the record anew if it is absent, as an upsert does."""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        now = self.clock.time()
        return merge(self.records.get(key) or Record({}, now, now, now + 60, None, change.generation), change, now)


class ReadersResurrect(Resurrects):
    """Only a change of times makes it anew: rack-session's CVE-2025-46336."""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        only_touch = change == Change(change.generation, touched=change.touched, expires=change.expires)
        return super().merged(key, change) if only_touch else SoundStore.merged(self, key, change)


class _Amends(SoundStore):
    """Changes the Change."""

    def amend(self, change: Change, record: Record | None) -> Change:
        raise NotImplementedError

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        return super().merged(key, self.amend(change, self.records.get(key)))


class IgnoresGeneration(_Amends):
    def amend(self, change: Change, record: Record | None) -> Change:
        return replace(change, generation=record.generation if record else 0)


class NeverRaisesGeneration(_Amends):
    def amend(self, change: Change, record: Record | None) -> Change:
        return replace(change, raise_generation=False)


class IgnoresExpect(_Amends):
    def amend(self, change: Change, record: Record | None) -> Change:
        return replace(change, expect={})


class TakesAbsentForEmpty(_Amends):
    """An expected absence holds for empty bytes too."""

    def amend(self, change: Change, record: Record | None) -> Change:
        fields = record.fields if record else {}
        expect = {name: fields.get(name) if value == b"" else value for name, value in change.expect.items()}
        return replace(change, expect=expect)


class DropsWhatItPuts(_Amends):
    def amend(self, change: Change, record: Record | None) -> Change:
        return replace(change, put={name: value for name, value in change.put.items() if name not in change.drop})


class NeverEmpties(_Amends):
    def amend(self, change: Change, record: Record | None) -> Change:
        return replace(change, delete_if_only=None)


class IgnoresTouched(_Amends):
    def amend(self, change: Change, record: Record | None) -> Change:
        return replace(change, touched=None)


class EmptiesBlindly(SoundStore):
    """Deletes because the request knew of no other field, without looking at what is there."""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        applied, record = super().merged(key, change)
        if record and change.delete_if_only is not None and not change.put:
            return Applied.EMPTIED, None
        return applied, record


class MovesTimesBack(SoundStore):
    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        applied, record = super().merged(key, change)
        if record and change.expires is not None:
            record = replace(record, expires=change.expires, touched=change.touched or record.touched)
        return applied, record


class ForgetsOwner(SoundStore):
    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        applied, record = super().merged(key, change)
        return applied, record and replace(record, owner=change.owner or None)


class WritesBeforeItRefuses(SoundStore):
    """A conflict is told, but the change was made."""

    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        applied, record = super().merged(key, change)
        if applied is Applied.CONFLICT:
            record = super().merged(key, replace(change, expect={}, delete_if_only=None))[1]
        return applied, record


class IsNotAtomic(SoundStore):
    """Reads, and writes a little later, without a lock: Spring's Redis is check-then-act too."""

    def update(self, key: str, change: Change) -> Applied:
        check_names(change.put, change.drop, change.expect, [change.owner or ""])
        applied, record = self.merged(key, change)
        Event().wait(0.0001)
        if applied is Applied.EMPTIED:
            self.delete(key)
            return applied
        return self.write(key, applied, record)


class CreateOverwrites(SoundStore):
    def create(self, key: str, record: Record) -> bool:
        self.delete(key)
        return super().create(key, record)


class CreateIsNotAtomic(SoundStore):
    def create(self, key: str, record: Record) -> bool:
        check_names(record.fields, [record.owner or ""])
        if self.load(key):
            return False
        Event().wait(0.0001)
        self.records[key] = replace(record, fields=dict(record.fields), owner=record.owner or None)
        return True


class CreateKeepsOldFields(SoundStore):
    """An expired record shines through its successor."""

    def create(self, key: str, record: Record) -> bool:
        old = self.records.get(key)
        return super().create(key, replace(record, fields={**old.fields, **record.fields}) if old else record)


class ExpiresLate(SoundStore):
    def load(self, key: str) -> Record | None:
        record = self.records.get(key)
        return record if record and record.expires >= self.clock.time() else None


class UpdatesTheExpired(SoundStore):
    def merged(self, key: str, change: Change) -> tuple[Applied, Record | None]:
        return merge(self.records.get(key), change, 0.0)


class GoesByItsOwnClock(SoundStore):
    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        super().__init__(shelf, SystemClock)


class DeletesWhatItFindsExpired(SoundStore):
    """A replica whose clock is ahead takes the sessions of all others."""

    def load(self, key: str) -> Record | None:
        record = super().load(key)
        if record is None:
            self.delete(key)
        return record


class LoadCreates(SoundStore):
    def load(self, key: str) -> Record | None:
        now = self.clock.time()
        self.records.setdefault(key, Record({}, now, now, now + 60))
        return super().load(key)


class ForgetsOnClose(SoundStore):
    def close(self) -> None:
        self.records.clear()


class StaysInItsThread(SoundStore):
    """As a connection of sqlite3 does."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        super().__init__(shelf, clock)
        self.home = get_ident()

    def update(self, key: str, change: Change) -> Applied:
        if get_ident() != self.home:
            raise RuntimeError("made in another thread")
        return super().update(key, change)


class PurgesTheLive(SoundStore):
    def purge(self, limit: int = 1000) -> int:
        self.clock, kept = type("Late", (), {"time": lambda _: kept.time() + 1})(), self.clock
        try:
            return super().purge(limit)
        finally:
            self.clock = kept


class PurgesWithoutLimit(SoundStore):
    def purge(self, limit: int = 1000) -> int:
        return super().purge(1000)


class ScansByOffset(SoundStore):
    """Deletions between two pages move the rest up, and some are passed over."""

    def scan(self, batch: int = 500) -> Iterator[list[tuple[str, Record]]]:
        start = 0
        while page := list(self.records.items())[start : start + batch]:
            yield [(key, record) for key, record in page if record.expires > self.clock.time()]
            start += batch


class ScanShowsTheExpired(SoundStore):
    def scan(self, batch: int = 500) -> Iterator[list[tuple[str, Record]]]:
        yield list(self.records.items())


class TasksLoseUpdates(SoundAsyncStore):
    """Reads, lets others run, and writes."""

    async def update(self, key: str, change: Change) -> Applied:
        check_names(change.put, change.drop, change.expect, [change.owner or ""])
        merged = self.inner.merged(key, change)
        await asyncio.sleep(0)
        return self.inner.write(key, *merged)


class MixesReplies(SoundAsyncStore):
    """Replies come in the order of the questions; who was cancelled leaves his to the next: redis-py #2624."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        super().__init__(shelf, clock)
        self.replies: list[Record | None] = []

    async def load(self, key: str) -> Record | None:
        self.replies.append(self.inner.load(key))
        await asyncio.sleep(0)
        return self.replies.pop(0)


class LoadNowIsLate(SoundAsyncStore):
    """Answers from a copy that knows no expiry."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        super().__init__(shelf, clock)
        self.load_now = shelf.records.get


BLUNT = (LoadCreates, GoesByItsOwnClock)  # these fail nearly every check, so they prove little about any

BROKEN: dict[Callable[[Shelf, Clock], Any], str] = {
    LosesUpdates: "concurrent_updates_of_different_fields_merge",
    Resurrects: "update_does_not_resurrect_a_session_logged_out_elsewhere",
    ReadersResurrect: "a_reader_does_not_resurrect_a_session",
    IgnoresGeneration: "of_two_strict_rotations_one_counts",
    NeverRaisesGeneration: "a_commit_after_a_strict_rotation_writes_nothing",
    IgnoresExpect: "a_transaction_that_was_overtaken_is_told",
    TakesAbsentForEmpty: "expect_that_fails_writes_nothing",
    DropsWhatItPuts: "a_name_in_put_and_drop_is_put",
    NeverEmpties: "delete_if_only_deletes_what_is_left_empty",
    IgnoresTouched: "times_never_move_back",
    EmptiesBlindly: "delete_if_only_spares_a_field_written_in_parallel",
    MovesTimesBack: "times_never_move_back",
    ForgetsOwner: "owner_is_set_kept_and_removed",
    WritesBeforeItRefuses: "expect_that_fails_writes_nothing",
    IsNotAtomic: "threads_lose_no_field",
    CreateOverwrites: "create_refuses_a_live_key",
    CreateIsNotAtomic: "of_many_that_create_one_does",
    CreateKeepsOldFields: "create_replaces_an_expired_record_whole",
    ExpiresLate: "a_record_is_absent_at_its_expiry",
    UpdatesTheExpired: "a_touch_at_the_edge_saves_the_session",
    GoesByItsOwnClock: "a_record_is_absent_at_its_expiry",
    DeletesWhatItFindsExpired: "each_replica_goes_by_its_own_clock",
    LoadCreates: "load_does_not_create_a_record",
    IgnoresCase: "records_do_not_mix",
    KeepsTextOnly: "binary_values",
    ForgetsOnClose: "the_store_opens_again_after_close",
    StaysInItsThread: "threads_may_share_a_store",
    TakesAnyName: "a_change_that_fails_writes_nothing",
    PurgesTheLive: "purge_deletes_what_has_expired",
    PurgesWithoutLimit: "purge_deletes_what_has_expired",
    ScansByOffset: "scan_sees_what_stays_while_others_change",
    ScanShowsTheExpired: "scan_shows_all_that_is_live",
    TasksLoseUpdates: "tasks_lose_no_field",
    MixesReplies: "a_cancelled_task_harms_no_other",
    LoadNowIsLate: "load_now_is_load",
    CutsLongValues: "a_large_value",
    DeleteNeedsARecord: "delete_is_idempotent",
    DeletesTheEmpty: "all_fields_may_be_dropped",
    EndsIn2038: "far_expiry",
    IgnoresDrops: "update_puts_and_drops",
    IgnoresExpires: "a_touch_lets_a_record_live_longer",
    KeepsFewFields: "many_fields",
    MixesFieldsWithItsOwn: "odd_field_names",
    RotationResurrects: "rotating_a_deleted_session_brings_nothing_back",
    TakesAnEmptyPrefixForNone: "an_empty_prefix_covers_every_name",
    WritesFieldByField: "readers_see_whole_changes",
}
