"""Threads: nothing is lost, nothing comes back, and one object serves them all."""

from __future__ import annotations

from threading import Event

from ...session.store import Applied, Change, Record
from ..trial import Replica, Trial, in_threads, loaded, same

APPLIED, EMPTIED, GONE = Applied.APPLIED, Applied.EMPTIED, Applied.GONE


def _put_fields(replica: Replica, key: str, name: str, count: int) -> None:
    for n in range(count):
        same(replica.update(key, Change(0, put={f"{name} {n}": b"x"})), APPLIED, "update")


def _names(threads: int, count: int) -> set[str]:
    return {f"{thread} {n}" for thread in range(threads) for n in range(count)}


def threads_lose_no_field(trial: Trial) -> None:
    """Eight threads, each with a replica of its own, put twenty-five fields each into one session: all are there."""
    keeper, key, now = trial.replica(), trial.key(), trial.now
    keeper.create(key, trial.record())

    def write(thread: int) -> None:
        mine = trial.replica()
        _put_fields(mine, key, str(thread), 25)
        same(mine.update(key, Change(0, touched=now + thread)), APPLIED, "touch")

    in_threads(8, write)
    record = loaded(keeper, key)
    same(_names(8, 25) - set(record.fields), set(), "the fields that are missing")
    same(record.touched, now + 7, "the last touch")


def threads_may_share_a_store(trial: Trial) -> None:
    """One object serves several threads; an AsyncStore serves several event loops, each in a thread, at once."""
    keeper, key = trial.replica(), trial.key()
    keeper.create(key, trial.record())
    in_threads(4, lambda thread: _put_fields(trial.another_loop(keeper), key, str(thread), 20))
    same(_names(4, 20) - set(loaded(keeper, key).fields), set(), "the fields that are missing")


def a_counter_with_expect_loses_no_count(trial: Trial) -> None:
    """Read, add one, write if unchanged, else again: from six threads every step is counted."""
    keeper, key = trial.replica(), trial.key()
    keeper.create(key, trial.record(n=b"0"))

    def add_one(mine: Replica) -> bool:
        n = loaded(mine, key).fields["n"]
        return mine.update(key, Change(0, expect={"n": n}, put={"n": b"%d" % (int(n) + 1)})) is APPLIED

    def count(_: int) -> None:
        mine = trial.replica()
        for _ in range(20):
            while not add_one(mine):
                pass

    in_threads(6, count)
    same(loaded(keeper, key).fields["n"], b"120", "the counter")


def of_many_that_create_one_does(trial: Trial) -> None:
    """Six threads create the same key, free or expired, ten times over: each time one does, and its record is whole."""
    keys, keeper = [trial.key() for _ in range(10)], trial.replica()
    for key in keys[::2]:
        keeper.create(key, trial.record(old=b"o"))
    trial.clock.advance(3600)

    def create(thread: int) -> list[bool]:
        mine, value = trial.replica(), b"%d" % thread
        return [mine.create(key, trial.record(a=value, b=value)) for key in keys]

    results = in_threads(6, create)
    for n, key in enumerate(keys):
        winners = [b"%d" % thread for thread in range(6) if results[thread][n]]
        same(len(winners), 1, "how many created one key")
        same(keeper.load(key), trial.record(a=winners[0], b=winners[0]), "what is loaded")


def of_many_strict_rotations_one_counts(trial: Trial) -> None:
    """Six threads raise the generation that they loaded, ten times over: each time one does."""
    keeper, key = trial.replica(), trial.key()
    keeper.create(key, trial.record())
    replicas = [trial.another_loop(keeper) for _ in range(6)]
    for generation in range(10):
        rotation = Change(generation, raise_generation=True)
        results = in_threads(6, lambda n, rotation=rotation: replicas[n].update(key, rotation))  # type: ignore[misc]
        same(sorted(one.value for one in results), ["applied"] + ["gone"] * 5, "what six rotations returned")
    same(loaded(keeper, key).generation, 10, "the generation")


def a_logout_among_writers_holds(trial: Trial) -> None:
    """While four threads write, one deletes the session, five times over: it stays away, and late writes are GONE."""
    for _ in range(5):
        keeper, key, deleted = trial.replica(), trial.key(), Event()
        keeper.create(key, trial.record())
        in_threads(5, lambda n, key=key, deleted=deleted: _write_or_log_out(trial, key, deleted, n))  # type: ignore[misc]
        same(keeper.load(key), None, "load after the logout")


def _write_or_log_out(trial: Trial, key: str, deleted: Event, thread: int) -> None:
    mine = trial.replica()
    if thread == 4:
        for _ in range(5):
            mine.load(key)
        mine.delete(key)
        deleted.set()
        return
    for n in range(1000):
        too_late = deleted.is_set()
        done = mine.update(key, Change(0, put={f"{thread} {n}": b"x"}))
        if too_late:
            same(done, GONE, "an update that began after the logout")
            return


def an_emptying_and_a_write_agree(trial: Trial) -> None:
    """One thread removes the last field while another adds one, 25 times over: both are told what then is stored."""
    keeper = trial.replica()
    replicas = [trial.another_loop(keeper), trial.another_loop(keeper)]
    changes = [Change(0, drop=frozenset({"a"}), delete_if_only="~"), Change(0, put={"b": b"2"})]
    for _ in range(25):
        key = trial.key()
        keeper.create(key, trial.record(a=b"1"))
        told = in_threads(2, lambda n, key=key: replicas[n].update(key, changes[n]))  # type: ignore[misc]
        stored: dict[tuple[Applied, ...], Record | None] = {
            (EMPTIED, GONE): None,
            (APPLIED, APPLIED): trial.record(b=b"2"),
        }
        same(tuple(told) in stored, True, f"whether {told} can be, of an emptying and a write")
        same(keeper.load(key), stored[tuple(told)], f"what is loaded after {told}")


def readers_see_whole_changes(trial: Trial) -> None:
    """While two threads write pairs of fields, two others load: both fields of a pair are always equal."""
    keeper, key, ended = trial.replica(), trial.key(), list[int]()
    keeper.create(key, trial.record(a=b"0", b=b"0"))

    def write(thread: int) -> None:
        mine = trial.replica()
        try:
            for n in range(50):
                value = b"%d %d" % (thread, n)
                mine.update(key, Change(0, put={"a": value, "b": value}))
        finally:
            ended.append(thread)

    def read() -> None:
        mine = trial.replica()
        while len(ended) < 2:
            fields = loaded(mine, key).fields
            same(fields["a"], fields["b"], "one field of a pair")

    in_threads(4, lambda thread: write(thread) if thread < 2 else read())
