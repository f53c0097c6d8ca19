"""Two requests at once, step by step and without threads: every interleaving that Spring's and Django's suites know.

A request loads the session, works, and commits. Where Spring renames a session, we raise the generation (a strict
rotation) or put a field (a rotation with grace): the key never changes.
"""

from __future__ import annotations

from dataclasses import replace

from ...session.store import Applied, Change, Record
from ..trial import Replica, Trial, loaded, same

APPLIED, CONFLICT, EMPTIED, GONE = Applied.APPLIED, Applied.CONFLICT, Applied.EMPTIED, Applied.GONE
_A = frozenset({"a"})


def _two_requests(trial: Trial, **fields: bytes) -> tuple[Replica, Replica, str]:
    """Two replicas that have loaded the same session."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    same(one.create(key, trial.record(**fields)), True, "create")
    same(one.load(key), two.load(key), "what both replicas load")
    return one, two, key


def concurrent_updates_of_different_fields_merge(trial: Trial) -> None:
    """Two requests that loaded the same session and write different fields both survive, and the later touch counts.

    Spring: save_ConcurrentUpdates_ShouldSaveSession, saveNewSessionAttributeConcurrently.
    """
    one, two, key = _two_requests(trial, a=b"1", old=b"o")
    now = trial.now
    same(one.update(key, Change(0, put={"mine": b"m"}, touched=now + 1)), APPLIED, "the first commit")
    late = Change(0, put={"theirs": b"t"}, drop=frozenset({"old"}), touched=now + 2)
    same(two.update(key, late), APPLIED, "the second commit")
    merged = Record({"a": b"1", "mine": b"m", "theirs": b"t"}, now, now + 2, now + 3600)
    same(one.load(key), merged, "what is loaded")


def concurrent_updates_of_one_field_keep_the_last(trial: Trial) -> None:
    """The same field written by two requests has the later value; the other fields of both stay.

    Spring: saveNewSessionAttributeConcurrently.
    """
    one, two, key = _two_requests(trial)
    same(one.update(key, Change(0, put={"a": b"1", "b": b"1"})), APPLIED, "the first commit")
    same(two.update(key, Change(0, put={"a": b"2", "c": b"2"})), APPLIED, "the second commit")
    same(one.load(key), trial.record(a=b"2", b=b"1", c=b"2"), "what is loaded")


def a_drop_and_a_put_of_one_field_keep_the_last(trial: Trial) -> None:
    """One request removes a field and another sets it: the later one counts, whichever it is.

    Spring: saveUpdatedModifyAndRemoveAttribute, saveUpdatedRemoveAndAddAttribute, in two copies.
    """
    one, two, key = _two_requests(trial, a=b"1", b=b"1")
    same(one.update(key, Change(0, drop=_A)), APPLIED, "drop a")
    same(two.update(key, Change(0, put={"a": b"2"})), APPLIED, "put a")
    same(one.load(key), trial.record(a=b"2", b=b"1"), "the record after a put that came last")
    same(two.update(key, Change(0, put={"b": b"2"})), APPLIED, "put b")
    same(one.update(key, Change(0, drop=frozenset({"b"}))), APPLIED, "drop b")
    same(two.update(key, Change(0, drop=frozenset({"b"}))), APPLIED, "drop b, which is gone")
    same(two.load(key), trial.record(a=b"2"), "the record after a drop that came last")


def update_does_not_resurrect_a_session_logged_out_elsewhere(trial: Trial) -> None:
    """A slow request that commits after a logout brings nothing back.

    Django: test_session_save_does_not_resurrect_session_logged_out_in_other_context.
    Spring: save_DeletedSession_ShouldThrowException, saveDeletedAddAttribute.
    """
    one, two, key = _two_requests(trial, user=b"u")
    two.delete(key)
    late = Change(0, put={"user": b"u"}, touched=trial.now + 1, expires=trial.now + 9999)
    same(one.update(key, late), GONE, "commit after the logout")
    same((one.load(key), two.load(key)), (None, None), "what both replicas load")


def a_reader_does_not_resurrect_a_session(trial: Trial) -> None:
    """A slow request that has only read the session, and touches it after a logout, brings nothing back.

    rack-session's CVE-2025-46336 was this. Spring: saveDeleted.
    """
    one, two, key = _two_requests(trial, user=b"u")
    two.delete(key)
    same(one.update(key, Change(0, touched=trial.now + 1, expires=trial.now + 9999)), GONE, "touch after the logout")
    same((one.load(key), two.load(key)), (None, None), "what both replicas load")


def a_delete_between_read_and_save_stops_every_change(trial: Trial) -> None:
    """Whatever a change asks for, it is GONE if the record was deleted after it was read, and leaves no part behind.

    Spring: the KeyMiss tests (a delete is injected between reading and saving), #2021 (a part of a hash came back).
    """
    for change in (
        Change(0, put={"b": b"2"}),
        Change(0, drop=_A),
        Change(0, raise_generation=True),
        Change(0, expires=trial.now + 9999),
        Change(0, touched=trial.now + 1),
        Change(0, owner="o"),
        Change(0, owner=""),
        Change(0, expect={"b": None}, put={"b": b"2"}),
        Change(0, drop=_A, delete_if_only=""),
    ):
        one, two, key = _two_requests(trial, a=b"1")
        two.delete(key)
        same(one.update(key, change), GONE, f"{change} after a delete")
        same(two.load(key), None, "load after it")
        same(two.create(key, trial.record(z=b"new")), True, "create after it")
        same(one.load(key), trial.record(z=b"new"), "what is loaded then")


def a_change_that_expects_the_old_does_not_touch_a_new_record(trial: Trial) -> None:
    """The record was deleted and made anew between read and save: a change that expects old bytes is a CONFLICT."""
    one, two, key = _two_requests(trial, n=b"1")
    two.delete(key)
    new = trial.record(n=b"2")
    same(two.create(key, new), True, "create after delete")
    same(one.update(key, Change(0, expect={"n": b"1"}, put={"n": b"x"})), CONFLICT, "update that expects the old")
    same(one.load(key), new, "what is loaded")


def of_two_strict_rotations_one_counts(trial: Trial) -> None:
    """Two requests rotate strictly what they loaded: the first is applied, the second is GONE and writes nothing.

    Spring: save_ChangeSessionIdConcurrent_ShouldThrowException, changeSessionIdSaveConcurrently.
    """
    one, two, key = _two_requests(trial, a=b"1")
    same(one.update(key, Change(0, put={"~p1": b"1"}, raise_generation=True)), APPLIED, "the first rotation")
    second = Change(0, put={"~p2": b"2"}, touched=trial.now + 2, raise_generation=True)
    same(two.update(key, second), GONE, "the second rotation")
    wanted = replace(trial.record(a=b"1", **{"~p1": b"1"}), generation=1)
    same((one.load(key), two.load(key)), (wanted, wanted), "what both replicas load")


def two_rotations_with_grace_both_count(trial: Trial) -> None:
    """Two requests rotate without raising the generation: both new proofs hold, and a request in flight still writes.

    Where Spring has one of the two users logged out, in save_ChangeSessionIdConcurrent_ShouldThrowException.
    """
    one, two, key = _two_requests(trial, **{"~old": b"0"})
    same(one.update(key, Change(0, put={"~p1": b"1", "~old": b"10"})), APPLIED, "the first rotation")
    same(two.update(key, Change(0, put={"~p2": b"2", "~old": b"10"})), APPLIED, "the second rotation")
    same(one.update(key, Change(0, put={"a": b"in flight"})), APPLIED, "a commit that was in flight")
    fields = {"~old": b"10", "~p1": b"1", "~p2": b"2", "a": b"in flight"}
    same(two.load(key), trial.record(**fields), "what is loaded")


def a_commit_after_a_strict_rotation_writes_nothing(trial: Trial) -> None:
    """A request that loaded before a change of privilege can neither write, nor touch, nor end the session after it."""
    one, two, key = _two_requests(trial, a=b"1")
    login = Change(0, put={"user": b"u"}, owner="u", raise_generation=True)
    same(two.update(key, login), APPLIED, "strict rotation")
    after = two.load(key)
    for late in (
        Change(0, put={"a": b"late"}),
        Change(0, drop=frozenset({"user"}), owner=""),
        Change(0, touched=trial.now + 9, expires=trial.now + 9999),
        Change(0, delete_if_only=""),
    ):
        same(one.update(key, late), GONE, f"{late} after a strict rotation")
        same(one.load(key), after, "the record after it")


def strict_rotations_in_turn_count_each(trial: Trial) -> None:
    """A request that has seen the last rotation may rotate again; saving one rotation twice counts once.

    Spring: save_ChangeSessionIdTwice_ShouldChangeSessionId, save_ChangeSessionIdSaveTwice_ShouldChangeSessionId.
    """
    one, two, key = _two_requests(trial)
    same(one.update(key, Change(0, raise_generation=True)), APPLIED, "the first rotation")
    same(one.update(key, Change(0, raise_generation=True)), GONE, "the same rotation again")
    same(two.update(key, Change(loaded(two, key).generation, raise_generation=True)), APPLIED, "the second rotation")
    same(one.load(key), replace(trial.record(), generation=2), "what is loaded")


def rotating_a_deleted_session_brings_nothing_back(trial: Trial) -> None:
    """A login that commits after a logout is GONE.

    Spring: save_ChangeSessionIdOnDeletedSession_ShouldThrowException, changeSessionIdWhenSessionIsDeleted (#1137).
    """
    one, two, key = _two_requests(trial, a=b"1")
    two.delete(key)
    login = Change(0, put={"user": b"u", "~p": b"1"}, owner="u", raise_generation=True)
    same(one.update(key, login), GONE, "rotation after a delete")
    same((one.load(key), two.load(key)), (None, None), "what both replicas load")


def delete_if_only_spares_a_field_written_in_parallel(trial: Trial) -> None:
    """The last field is removed while another request adds one: the session lives, with that field."""
    one, two, key = _two_requests(trial, a=b"1", **{"~proof": b"p"})
    same(two.update(key, Change(0, put={"b": b"2"})), APPLIED, "put b")
    same(one.update(key, Change(0, drop=_A, delete_if_only="~")), APPLIED, "drop a, the last that it knew")
    same(two.load(key), trial.record(b=b"2", **{"~proof": b"p"}), "what is loaded")


def an_emptied_session_is_not_resurrected(trial: Trial) -> None:
    """After one request has emptied the session, another's put, touch and emptying are GONE, and delete is fine."""
    one, two, key = _two_requests(trial, a=b"1")
    emptying = Change(0, drop=_A, delete_if_only="~")
    same(one.update(key, emptying), EMPTIED, "drop of the last field")
    for late in (Change(0, put={"b": b"2"}), Change(0, expires=trial.now + 9999), emptying):
        same(two.update(key, late), GONE, f"{late} after it")
    two.delete(key)
    same((one.load(key), two.load(key)), (None, None), "what both replicas load")


def a_transaction_that_was_overtaken_is_told(trial: Trial) -> None:
    """Two requests add one to what they loaded: the second is a CONFLICT, and right when it tries again."""
    one, two, key = _two_requests(trial, n=b"1")
    same(one.update(key, Change(0, expect={"n": b"1"}, put={"n": b"2"})), APPLIED, "the first commit")
    same(two.update(key, Change(0, expect={"n": b"1"}, put={"n": b"2"})), CONFLICT, "the second commit")
    same(two.update(key, Change(0, expect={"n": b"2"}, put={"n": b"3"})), APPLIED, "its second try")
    same(one.load(key), trial.record(n=b"3"), "what is loaded")


def of_two_that_create_one_does(trial: Trial) -> None:
    """Both found the key free, or expired: the first create counts, the second changes nothing."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    for what in ("a free key", "an expired record"):
        same((one.load(key), two.load(key)), (None, None), f"what both load of {what}")
        first = trial.record(mine=b"1")
        same(one.create(key, first), True, f"the first create over {what}")
        same(two.create(key, trial.record(theirs=b"2")), False, f"the second create over {what}")
        same(two.load(key), first, "what is loaded")
        trial.clock.advance(3600)


def a_touch_at_the_edge_saves_the_session(trial: Trial) -> None:
    """A request that began before the expiry and commits after another's touch is applied; after the expiry, GONE.

    Spring #2786: the store forgot exactly when the session ended, and commits at the edge failed.
    """
    one, two, key = _two_requests(trial, a=b"1")
    trial.clock.advance(3599)
    same(two.update(key, Change(0, expires=trial.now + 3600)), APPLIED, "touch just before the expiry")
    trial.clock.advance(2)
    same(one.update(key, Change(0, put={"b": b"2"})), APPLIED, "commit after the first expiry")
    same(loaded(two, key).fields, {"a": b"1", "b": b"2"}, "what is loaded")
    trial.clock.advance(3600)
    same(one.update(key, Change(0, expires=trial.now + 3600)), GONE, "touch after the expiry")
    same(two.load(key), None, "load after it")


def an_owner_and_a_field_set_in_parallel_both_count(trial: Trial) -> None:
    """One request logs in while another writes: owner and field are there, and later commits keep the owner."""
    one, two, key = _two_requests(trial)
    same(one.update(key, Change(0, owner="u", put={"user": b"u"})), APPLIED, "set the owner")
    same(two.update(key, Change(0, put={"cart": b"1"})), APPLIED, "put a field")
    same(two.load(key), replace(trial.record(user=b"u", cart=b"1"), owner="u"), "what is loaded")
