"""Bounded loads, by the vectors of Envoy's bounded_load_hlb_test.cc."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, by_host, get, make_pool, state
from unsticky.routing.bounded import Bound, _drawn, overload, shuffled
from unsticky.routing.call import Call, Send
from unsticky.routing.flow import route
from unsticky.routing.options import HashOptions
from unsticky.routing.pool import Pool


def test_numbers_are_those_of_the_mersenne_twister() -> None:
    """The first of std::mt19937 with its default seed, and with 1, as published."""
    assert _drawn(5489, 5) == (3499211612, 581869302, 3890346734, 3586334585, 545404204)
    assert _drawn(1, 3) == (1791095845, 4282876139, 3093770124)


@pytest.mark.parametrize(("seed", "order"), [(2, [2, 1, 0, 4, 3]), (6, [4, 0, 2, 3, 1]), (7, [0, 1, 4, 3, 2])])
def test_shuffles_are_envoys(seed: int, order: list[int]) -> None:
    """The orders that its tests name."""
    assert list(shuffled(5, seed)) == order
    assert list(shuffled(5, seed + (77 << 32))) == order  # the seed has 32 bits


@given(st.integers(1, 64), st.integers(0, 2**64 - 1))
def test_a_shuffle_visits_each_once(count: int, key: int) -> None:
    """Up to as many as are looked at."""
    assert sorted(shuffled(count, key)) == list(range(count))


def test_of_many_only_some_are_looked_at() -> None:
    """A call among 10,000 full endpoints must not look at them all."""
    seen = list(shuffled(10_000, 12345))
    assert len(seen) == len(set(seen)) == 64


@pytest.mark.parametrize(
    ("active", "total", "factor", "share", "expected"),
    [
        (0, 0, 150, 0.2, 0.0),
        (1, 1, 100, 0.2, 1.0),  # one slot at least
        (2, 2, 1, 0.2, 2.0),  # Envoy's ActualHostOverloaded
        (3, 9, 150, 0.2, 1.0),  # 15 slots in all, 3 for a fifth
        (4, 9, 150, 0.2, 4 / 3),
        (4, 9, 151, 0.2, 1.0),  # 16 in all, rounded up; 4 for a fifth
    ],
)
def test_overload(active: int, total: int, factor: int, share: float, expected: float) -> None:
    """Calls per slot; slots are rounded up, first all of them and then the endpoint's."""
    assert overload(active, total, factor, share) == expected


@dataclass
class Load:
    """Of a pool."""

    in_flight: int


def stands_in(key: int, home: int, full: dict[int, int], count: int = 5) -> int:
    """Who gets a call with `key` at `home` among `count` equal endpoints, of which `full` have that many calls."""
    group = tuple(state(f"127.0.0.1{i}", in_flight=full.get(i, 0)) for i in range(count))
    bound = Bound(100, Load(sum(full.values())))
    return group.index(bound.spare(group[home], key, group, count, ()))


def test_who_has_room_keeps_its_calls() -> None:
    """Envoy's NoHostEverOverloaded."""
    assert [stands_in(key, key, {}) for key in range(5)] == [0, 1, 2, 3, 4]


def test_the_next_of_the_shuffle_stands_in() -> None:
    """Envoy's OneHostOverloaded, MultipleHostOverloaded and MultipleHashSameHostOverloaded."""
    assert stands_in(2, 2, {2: 4}) == 1
    assert stands_in(2, 2, {0: 4, 1: 4, 2: 5}) == 4
    assert stands_in(6, 3, {3: 4}) == 4
    assert stands_in(7, 3, {3: 4}) == 0


def test_when_all_are_full_the_least_loaded_is_used() -> None:
    """Envoy's AllHostsOverloaded: loads of 103, 102 and 104 percent, so the second."""
    group = tuple(state(f"127.0.0.1{i}", in_flight=load) for i, load in enumerate((103, 102, 104)))
    bound = Bound(100, Load(0))  # no slots beyond the one that each has
    assert bound.spare(group[0], 0, group, 3, ()) is group[1]


def hold(pool: Pool, key: int) -> str:
    """The endpoint of a call that stays."""
    flow = route(pool, Call("GET", key=key))
    sent = next(flow)
    assert isinstance(sent, Send)
    HELD.append(flow)
    return sent.attempt.endpoint.address.partition(":")[0]


HELD: list[object] = []


@pytest.mark.parametrize("balancer", ["ring_hash", "maglev", "rendezvous"])
def test_no_endpoint_of_a_pool_gets_more_than_its_bound(balancer: str) -> None:
    """Calls with one key that stay: home gets 1.5 times the mean and the others the rest, each within its bound."""
    sizes = HashOptions(balance_factor=150, table_size=1009)
    pool = make_pool(*"abcde", balancer=balancer, hash=sizes)
    for total in range(200):
        counts = {one.endpoint.address: one.in_flight for one in pool._states.values()}
        assert max(counts.values()) <= 1.5 * (total + 1) / 5 + 2
        hold(pool, 7)
    HELD.clear()
    unbound = make_pool(*"abcde", balancer=balancer, hash=HashOptions(table_size=1009))
    assert len({hold(unbound, 7) for _ in range(50)}) == 1
    HELD.clear()


def test_calls_that_end_make_room() -> None:
    """The bound looks at calls in flight, so a key returns home when home is idle again."""
    pool = make_pool(*"abcde", balancer="rendezvous", hash=HashOptions(balance_factor=100))
    home = get(pool, key=7).hosts[0]
    held = [hold(pool, 7) for _ in range(5)]
    assert held[0] == home
    assert len(set(held)) > 1
    while HELD:
        HELD.pop().close()  # type: ignore[attr-defined]
    assert get(pool, key=7).hosts == [home]
    assert pool._places.in_flight == 1  # of `get`, whose lease the next look takes back
    pool.snapshot()
    assert pool._places.in_flight == 0


def test_a_retry_of_a_bounded_call_goes_elsewhere() -> None:
    """Who was tried is no stand-in."""
    pool = make_pool("a", "b", "c", balancer="ring_hash", hash=HashOptions(balance_factor=100))
    random = Random(4)
    for _ in range(200):
        run = get(pool, by_host(a=DOWN, b=DOWN), key=random.getrandbits(64))
        assert len(set(run.hosts)) == len(run.hosts)
