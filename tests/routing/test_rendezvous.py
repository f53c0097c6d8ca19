"""Rendezvous hashing: shares, and who moves."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh64_intdigest

from support.routing import endpoint, get, make_pool, state
from unsticky.routing.rendezvous import Rendezvous

KEYS = [Random(3).getrandbits(64) for _ in range(1)] + [Random(n).getrandbits(64) for n in range(6000)]


def test_the_home_is_the_greatest_hash() -> None:
    """xxh64 of the key's bytes, seeded with the xxh64 of the address."""
    states = [state(name) for name in "abcde"]
    made = Rendezvous(states)
    for key in KEYS[:200]:
        best = max(
            states,
            key=lambda one: xxh64_intdigest(key.to_bytes(8, "little"), xxh64_intdigest(one.endpoint.address.encode())),
        )
        assert made.home(key) is best
        assert next(made.owners(key)) is best


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 3), (5, 3, 1, 1)])
def test_shares_are_the_weights(weights: tuple[int, ...]) -> None:
    """Within two percent of all keys."""
    states = [state(f"h{i}", weight=weight) for i, weight in enumerate(weights)]
    made = Rendezvous(states)
    counted = Counter(made.home(key) for key in KEYS)
    for one in states:
        assert abs(counted[one] / len(KEYS) - one.endpoint.weight / sum(weights)) < 0.02


@given(st.lists(st.integers(1, 9), min_size=2, max_size=7), st.integers(0, 2**64 - 1), st.data())
def test_only_keys_of_the_one_that_goes_move(weights: list[int], key: int, data: st.DataObject) -> None:
    """To the next owner, whoever else there is; the same read backwards is an endpoint that comes."""
    states = [state(f"h{i}", weight=weight) for i, weight in enumerate(weights)]
    gone = data.draw(st.sampled_from(states))
    order = list(Rendezvous(states).owners(key))
    rest = Rendezvous([one for one in states if one is not gone])
    assert sorted(map(id, order)) == sorted(map(id, states))
    assert list(rest.owners(key)) == [one for one in order if one is not gone]


def test_more_weight_only_draws_keys() -> None:
    """An endpoint that gets heavier loses no key, and takes none from one to another."""
    before = [state(name) for name in "abcd"]
    after = [state(name, weight=2 if name == "a" else 1) for name in "abcd"]
    old, new = Rendezvous(before), Rendezvous(after)
    for key in KEYS[:2000]:
        was, now = old.home(key).endpoint.address, new.home(key).endpoint.address
        assert now in (was, "a:80")


def test_a_pool_fails_over_by_score() -> None:
    """Calls whose home is down meet the next owner, all of them the same."""
    pool = make_pool("a", "b", "c", balancer="rendezvous")
    homes = {key: get(pool, key=key).hosts[0] for key in KEYS[:60]}
    pool.report_health(endpoint("a"), False)
    for key, home in homes.items():
        now = {get(pool, key=key).hosts[0] for _ in range(3)}
        assert len(now) == 1
        assert "a" not in now
        assert home == "a" or now == {home}
