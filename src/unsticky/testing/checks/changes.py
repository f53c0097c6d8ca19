"""What a Change does, part by part."""

from __future__ import annotations

from dataclasses import replace

from ...session.store import Applied, Change, Record
from ..trial import Trial, loaded, same

APPLIED, CONFLICT, EMPTIED, GONE = Applied.APPLIED, Applied.CONFLICT, Applied.EMPTIED, Applied.GONE
_A = frozenset({"a"})


def a_name_in_put_and_drop_is_put(trial: Trial) -> None:
    """Drops come first. Spring: saveUpdatedRemoveAndAddAttribute."""
    one, key = trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1"))
    same(one.update(key, Change(0, put={"a": b"2"}, drop=_A)), APPLIED, "update")
    same(one.load(key), trial.record(a=b"2"), "what is loaded")


def all_fields_may_be_dropped(trial: Trial) -> None:
    """A record without fields is still a record."""
    one, key = trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1"))
    same(one.update(key, Change(0, drop=_A)), APPLIED, "update that drops the last field")
    same(one.load(key), trial.record(), "what is loaded")


def update_needs_the_generation(trial: Trial) -> None:
    """After a strict rotation, requests that loaded before it write nothing; neither do guesses ahead."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1"))
    same(two.update(key, Change(0, put={"user": b"u"}, raise_generation=True)), APPLIED, "strict rotation")
    before = loaded(one, key)
    same(before.generation, 1, "the generation after it")
    for generation in (0, 2, -1):
        late = Change(generation, put={"a": b"late"}, owner="x", expires=trial.now + 9999, delete_if_only="")
        same(one.update(key, late), GONE, f"update for generation {generation}")
        same(one.load(key), before, "the record after it")
    same(one.update(key, Change(1, put={"a": b"2"})), APPLIED, "update for generation 1")


def expect_that_fails_writes_nothing(trial: Trial) -> None:
    """One field that differs stops the whole change."""
    one, key = trial.replica(), trial.key()
    kept = trial.record(a=b"1", b=b"2")
    one.create(key, kept)
    absent: dict[str, bytes | None] = {"a": None}
    for expect in ({"a": b"0"}, absent, {"missing": b""}, {"a": b""}, {"a": b"1\0"}, {"a": b"1", "b": b"1"}):
        change = Change(
            0,
            expect=expect,
            put={"a": b"x", "new": b"x"},
            drop=frozenset({"b"}),
            touched=trial.now + 5,
            expires=trial.now + 9999,
            owner="o",
            raise_generation=True,
            delete_if_only="",
        )
        same(one.update(key, change), CONFLICT, f"update that expects {expect}")
        same(one.load(key), kept, "the record after it")


def expect_that_holds(trial: Trial) -> None:
    """Present bytes, empty bytes and absence can be expected; GONE is told before CONFLICT."""
    one, key = trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1", empty=b""))
    expect = {"a": b"1", "empty": b"", "missing": None}
    same(one.update(key, Change(0, expect=expect, put={"missing": b"2"})), APPLIED, "update, expecting what is")
    same(one.update(key, Change(0, expect=expect, put={"missing": b"3"})), CONFLICT, "update, expecting what was")
    same(one.update(key, Change(9, expect=expect)), GONE, "update for another generation, expecting what was")
    same(one.load(key), trial.record(a=b"1", empty=b"", missing=b"2"), "what is loaded")


def delete_if_only_deletes_what_is_left_empty(trial: Trial) -> None:
    """Without another field than the reserved ones the record goes, and the key is free again."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    one.create(key, replace(trial.record(a=b"1", **{"~proof": b"p"}), owner="o"))
    same(one.update(key, Change(0, drop=_A, delete_if_only="~")), EMPTIED, "update that drops the last field")
    same(two.load(key), None, "load after it")
    same(two.update(key, Change(0, put={"a": b"2"})), GONE, "update after it")
    same(two.create(key, trial.record()), True, "create after it")
    same(one.load(key), trial.record(), "what is loaded")


def delete_if_only_sees_its_own_put(trial: Trial) -> None:
    """What the same change puts counts: another name keeps the record, a reserved one does not."""
    one, key = trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1"))
    same(one.update(key, Change(0, drop=_A, put={"b": b"2"}, delete_if_only="~")), APPLIED, "drop a, put b")
    b = frozenset({"b"})
    same(one.update(key, Change(0, drop=b, put={"b": b"3"}, delete_if_only="~")), APPLIED, "drop b, put b")
    same(one.load(key), trial.record(b=b"3"), "what is loaded")
    gone = Change(0, drop=b, put={"~p": b"x"}, delete_if_only="~", raise_generation=True)
    same(one.update(key, gone), EMPTIED, "drop b, put a reserved one")
    same(one.load(key), None, "load after it")


def delete_if_only_leaves_what_has_other_fields(trial: Trial) -> None:
    """A record with another field stays, though the change drops some; the change is applied to it."""
    one, key = trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1", b=b"2", **{"~proof": b"p"}))
    same(one.update(key, Change(0, drop=_A, delete_if_only="~")), APPLIED, "update that leaves b")
    same(one.load(key), trial.record(b=b"2", **{"~proof": b"p"}), "what is loaded")


def an_empty_prefix_covers_every_name(trial: Trial) -> None:
    """`delete_if_only=""` is literal: all names start with it."""
    one, key = trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1"))
    same(one.update(key, Change(0, delete_if_only="")), EMPTIED, "update with an empty prefix")
    same(one.load(key), None, "load after it")


def times_never_move_back(trial: Trial) -> None:
    """A slow request can neither shorten a session nor make it look older; None leaves both alone."""
    one, two, key, now = trial.replica(), trial.replica(), trial.key(), trial.now
    one.create(key, trial.record())
    one.update(key, Change(0, touched=now + 50, expires=now + 5000))
    two.update(key, Change(0, touched=now + 10, expires=now + 60))
    two.update(key, Change(0, put={"a": b"1"}))
    same(one.load(key), Record({"a": b"1"}, now, now + 50, now + 5000), "what is loaded")


def owner_is_set_kept_and_removed(trial: Trial) -> None:
    """None leaves the owner, "" removes it; a record made with "" has none."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    one.create(key, replace(trial.record(), owner=""))
    seen = []
    for owner in (None, "-", "=", "user 1", None, "", None, "日本"):
        same(two.update(key, Change(0, owner=owner)), APPLIED, f"update with owner {owner!r}")
        seen.append(loaded(one, key).owner)
    same(seen, [None, "-", "=", "user 1", "user 1", None, None, "日本"], "the owners after each update")
