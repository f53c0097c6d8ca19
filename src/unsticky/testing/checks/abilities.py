"""What a store may have beside the four verbs. One that has it not passes."""

from __future__ import annotations

from dataclasses import replace

from ...session.store import Change, ImmediateLoad, Purgeable, Record, Scannable
from ..clock import FakeClock
from ..trial import Replica, Trial, same


def purge_deletes_what_has_expired(trial: Trial) -> None:
    """Purgeable: expired records are deleted for good, at most `limit` at once, and no live one."""
    long_ago = trial.now - 1e9  # so that what others keep in the same place has not expired by this clock
    clock, unmoved = FakeClock(long_ago), trial.replica(FakeClock(long_ago))
    one, live = trial.replica(clock), trial.key()
    if not isinstance(one.store, Purgeable):
        return
    expired = [trial.key() for _ in range(5)]
    for key in expired:
        one.create(key, replace(trial.record(), expires=long_ago + 10))
    one.create(live, replace(trial.record(a=b"1"), expires=long_ago + 10.5))
    clock.advance(10)
    first = one.store.purge(3)
    same(1 <= first <= 3, True, f"whether purge(3) deletes one to three ({first})")
    rest = [one.store.purge(), one.store.purge()]
    same((first + rest[0] >= 5, rest[1]), (True, 0), f"whether {[first, *rest]} is all five, and nothing is left then")
    same([unmoved.load(key) for key in expired], [None] * 5, "what is left of the expired ones")
    same(one.load(live), replace(trial.record(a=b"1"), expires=long_ago + 10.5), "the live one")


def scan_shows_all_that_is_live(trial: Trial) -> None:
    """Scannable: key and whole record of all that is live, and of nothing else."""
    one = trial.replica()
    if not isinstance(one.store, Scannable):
        return
    kept = {trial.key(f" {n}"): replace(trial.record(n=b"%d" % n), owner="o"[:n], generation=n) for n in range(10)}
    for key, record in kept.items():
        one.create(key, record)
    expired, deleted = trial.key(), trial.key()
    one.create(expired, replace(trial.record(), expires=trial.now + 1))
    one.create(deleted, trial.record())
    one.delete(deleted)
    trial.clock.advance(1)
    seen = _scanned(one, {*kept, expired, deleted})
    same(seen, {key: replace(record, owner=record.owner or None) for key, record in kept.items()}, "what scan shows")


def scan_sees_what_stays_while_others_change(trial: Trial) -> None:
    """Scannable: records are touched, made and deleted between the batches; those that stay are all seen."""
    one, two = trial.replica(), trial.replica()
    if not isinstance(one.store, Scannable):
        return
    staying = [trial.key() for _ in range(12)]
    coming_and_going = [trial.key() for _ in range(12)]
    for n, key in enumerate(staying):
        if n % 2 == 0:
            one.create(coming_and_going[n], trial.record())
        one.create(key, trial.record())
    seen = set[str]()
    for n, batch in enumerate(one.store.scan(batch=2)):
        seen.update(key for key, _ in batch)
        two.update(staying[n % 12], Change(0, expires=trial.now + 9999, put={"n": b"%d" % n}))
        two.delete(coming_and_going[::2][n % 6])
        two.create(coming_and_going[1::2][n % 6], trial.record())
    same(set(staying) - seen, set(), "what scan missed")


def _scanned(replica: Replica, wanted: set[str]) -> dict[str, Record]:
    return {key: record for batch in replica.store.scan(batch=3) for key, record in batch if key in wanted}


def load_now_is_load(trial: Trial) -> None:
    """ImmediateLoad: a store that can be asked on the event loop's own thread answers there as it does elsewhere."""
    one, key = trial.replica(), trial.key()
    if not isinstance(one.store, ImmediateLoad):
        return
    store: ImmediateLoad = one.store

    async def main() -> Record | None:
        return store.load_now(key)

    same(one.run(main()), None, "load_now of an absent key")
    one.create(key, trial.record(a=b"1"))
    same(one.run(main()), trial.record(a=b"1"), "load_now of a live one")
    trial.clock.advance(3600)
    same(one.run(main()), None, "load_now of an expired one")
