"""When a record is absent: the application's clock alone decides."""

from __future__ import annotations

import math
from dataclasses import replace

from ...session.store import Applied, Change
from ..clock import FakeClock
from ..trial import Trial, loaded, same


def a_record_is_absent_at_its_expiry(trial: Trial) -> None:
    """`expires <= now` is expired: one instant before it is not.

    Spring: save_LastAccessedTimeInPast_ShouldExpireSession.
    """
    one, key = trial.replica(), trial.key()
    one.create(key, trial.record(a=b"1"))
    trial.clock.advance(3599.5)
    loaded(one, key)
    trial.clock.advance(0.5)
    same(one.load(key), None, "load at `expires`")
    same(one.update(key, Change(0, put={"a": b"2"}, expires=trial.now + 60)), Applied.GONE, "update at `expires`")
    same(one.load(key), None, "load after that update")


def create_replaces_an_expired_record_whole(trial: Trial) -> None:
    """Nothing of the old record shines through, and the new one is as live as any."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    one.create(key, replace(trial.record(a=b"old", b=b"old"), owner="old", generation=3))
    trial.clock.advance(3600)
    new = trial.record(a=b"new")
    same(two.create(key, new), True, "create over an expired record")
    same(one.create(key, trial.record(a=b"newer")), False, "create over its replacement")
    same(one.load(key), new, "what is loaded")


def a_touch_lets_a_record_live_longer(trial: Trial) -> None:
    """The new expiry holds, in the store's own forgetting too."""
    one, key = trial.replica(), trial.key()
    one.create(key, replace(trial.record(a=b"1"), expires=trial.now + 1))
    same(one.update(key, Change(0, expires=trial.now + 100)), Applied.APPLIED, "touch")
    trial.clock.advance(99)
    loaded(one, key)
    trial.clock.advance(1)
    same(one.load(key), None, "load at the new expiry")


def each_replica_goes_by_its_own_clock(trial: Trial) -> None:
    """What one replica finds expired another, whose clock is behind, still has: nobody forgets early for others."""
    behind = trial.replica(FakeClock(trial.now - 1000))
    ahead, key = trial.replica(), trial.key()
    behind.create(key, replace(trial.record(a=b"1"), expires=trial.now - 500))
    same(ahead.load(key), None, "load past `expires`")
    same(ahead.update(key, Change(0, put={"a": b"2"})), Applied.GONE, "update past `expires`")
    same(loaded(behind, key).fields, {"a": b"1"}, "what the replica behind loads")


def far_expiry(trial: Trial) -> None:
    """An expiry months or centuries away, or never, is kept as it is."""
    one = trial.replica()
    for expires in (trial.now + 29 * 86400, trial.now + 31 * 86400, trial.now + 400 * 86400, 1e13, math.inf):
        key, far = trial.key(), replace(trial.record(a=b"1"), expires=expires)
        same(one.create(key, far), True, f"create with expires={expires}")
        same(one.load(key), far, "what is loaded")
        same(one.create(key, far), False, "create over it")
        longer = Change(0, put={"b": b"2"}, expires=math.inf)
        same(one.update(key, longer), Applied.APPLIED, "update for ever")
        same(one.load(key), replace(far, fields={"a": b"1", "b": b"2"}, expires=math.inf), "what is loaded then")
