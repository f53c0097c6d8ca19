"""The four verbs, one after another."""

from __future__ import annotations

from dataclasses import replace

from ...session.store import Applied, Change, Record
from ..trial import Trial, loaded, same


def a_created_record_is_loaded_as_it_was(trial: Trial) -> None:
    """Every part of a record comes back exactly, times to the last bit, in this replica and in another."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    now = trial.now + 1 / 3
    fields = {"a": b"1", "b": bytes(range(256)), "empty": b""}
    kept = Record(fields, now, now + 0.1, now + 60.7, owner="ü:1", generation=7)
    same(one.create(key, kept), True, "create of a new key")
    same(one.load(key), kept, "what is loaded")
    same(two.load(key), kept, "what another replica loads")
    same({type(value) for value in loaded(two, key).fields.values()}, {bytes}, "the type of values")


def load_does_not_create_a_record(trial: Trial) -> None:
    """Loading what is absent creates nothing. Django: test_session_load_does_not_create_record."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    same(one.load(key), None, "load of an unknown key")
    same(two.load(key), None, "a second load of it")
    same(two.update(key, Change(0, put={"a": b"1"})), Applied.GONE, "update after loading it")
    same(one.create(key, trial.record(a=b"1")), True, "create after loading it")


def create_refuses_a_live_key(trial: Trial) -> None:
    """The first create wins, and the second one changes nothing."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    first = trial.record(a=b"first")
    same(one.create(key, first), True, "the first create")
    second = replace(trial.record(a=b"second", b=b"second"), owner="second", expires=trial.now + 9999)
    same(two.create(key, second), False, "the second create")
    same(one.load(key), first, "what is loaded")


def delete_is_idempotent(trial: Trial) -> None:
    """Deleting what is absent is fine, and a deleted key may be created again.

    Spring: deleteById_DeletedSession_ShouldDoNothing, deleteById_NonexistentSession_ShouldDoNothing.
    """
    one, key = trial.replica(), trial.key()
    one.delete(key)
    one.create(key, replace(trial.record(a=b"1"), owner="o", generation=2))
    one.delete(key)
    one.delete(key)
    same(one.load(key), None, "load after delete")
    same(one.create(key, trial.record()), True, "create after delete")
    same(one.load(key), trial.record(), "what is loaded")


def update_puts_and_drops(trial: Trial) -> None:
    """Fields are set, replaced and removed; the others, and the rest of the record, stay.

    Spring: saveUpdatedAddAndModifyAttribute, saveUpdatedModifyAndRemoveAttribute.
    """
    one, two, key = trial.replica(), trial.replica(), trial.key()
    kept = replace(trial.record(a=b"1", b=b"2", c=b"3"), owner="o", generation=4)
    one.create(key, kept)
    change = Change(4, put={"b": b"two", "d": b"4"}, drop=frozenset({"c", "never there"}))
    same(one.update(key, change), Applied.APPLIED, "update")
    same(two.load(key), replace(kept, fields={"a": b"1", "b": b"two", "d": b"4"}), "what is loaded")


def update_never_creates(trial: Trial) -> None:
    """A change to a record that never was is GONE, whatever it asks for."""
    one, key = trial.replica(), trial.key()
    for change in (
        Change(0, put={"a": b"1"}, expires=trial.now + 9999),
        Change(0, expect={"a": None}, put={"a": b"1"}),
        Change(0, raise_generation=True, owner="o"),
        Change(0, delete_if_only=""),
    ):
        same(one.update(key, change), Applied.GONE, "update of an unknown key")
        same(one.load(key), None, "load after it")


def records_do_not_mix(trial: Trial) -> None:
    """Keys that look alike are different sessions, and a store can hold any of them."""
    one, key = trial.replica(), trial.key()
    keys = [key, *(trial.known(like) for like in (f"{key} ", f"{key}:", key.upper(), f"{key}é", f"{key}\n"))]
    keys.append(trial.known(key + "x" * 400))
    for like in keys:
        same(one.create(like, trial.record(name=like.encode())), True, "create of a key like another")
    one.delete(keys[1])
    same(one.load(keys[1]), None, "load of the deleted one")
    for like in (*keys[:1], *keys[2:]):
        same(one.load(like), trial.record(name=like.encode()), "load of a key like the deleted one")


def the_store_opens_again_after_close(trial: Trial) -> None:
    """Closing twice is fine, keeps the records, and the next verb works."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1"))
    two.load(key)
    one.close()
    one.close()
    same(one.load(key), trial.record(a=b"1"), "load after close")
    same(one.update(key, Change(0, put={"a": b"2"})), Applied.APPLIED, "update after close")
    same(two.load(key), trial.record(a=b"2"), "what another replica loads")
