"""Near endpoints first, subsets of large pools, and endpoints that drain."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, OK, by_host, drive, endpoint, finish, get, in_flight, make_pool, state
from unsticky.errors import NoHealthyEndpoint
from unsticky.routing.call import Call
from unsticky.routing.explain import explain
from unsticky.routing.locality import by_locality
from unsticky.routing.options import EjectionOptions
from unsticky.routing.pool import Pool


def zoned(text: str) -> list[tuple[str, int]]:
    """ "a2 b1": zones and their weights, one endpoint each."""
    return [(word[0], int(word[1:])) for word in text.split()]


@pytest.mark.parametrize(
    ("available", "level", "own", "expected"),
    [
        ("a1 b1", "a1 b1", "a", "a=1 b=0"),
        ("a2 b1", "a2 b1", "a", "a=1 b=0"),  # more than its share: nothing leaves
        ("a1 b3", "a1 b3", "a", "a=.5 b=.5"),  # a fourth of the capacity for half of the callers
        ("b1", "a1 b1", "a", "b=1"),
        ("a1", "a1 b1", "a", "a=1"),
        ("a1 b1 c4", "a1 b1 c4", "a", "a=.5 c=.5 b=0"),  # only c has room
        ("a1 b2 c2", "a1 b2 c2", "a", "a=.6 b=.2 c=.2"),
        ("a1 b1", "a1 b1", None, "*=1"),
        ("a1 b1", "a1 b1", "z", "*=1"),  # nobody is near
        ("a1", "a1", "a", "*=1"),
        ("", "a1 b1", "a", ""),
    ],
)
def test_shares_of_zones(available: str, level: str, own: str | None, expected: str) -> None:
    """What a zone can't carry goes to those with room."""
    everything = {zone: state(zone, weight=weight) for zone, weight in zoned(level)}
    for zone, one in everything.items():
        one.endpoint = endpoint(zone, weight=one.endpoint.weight, locality=zone)
    parts = by_locality([everything[zone] for zone, _ in zoned(available)], list(everything.values()), own)
    shown = " ".join(f"{zone or '*'}={round(share, 6):g}".replace("0.", ".") for zone, _, share in parts)
    assert shown == expected


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_every_endpoint_ends_up_with_the_same_load(weights: list[int]) -> None:
    """When callers are spread evenly over the zones, each zone's calls are as its capacity."""
    states = [state(f"h{zone}", weight=weight) for zone, weight in enumerate(weights)]
    for zone, one in enumerate(states):
        one.endpoint = endpoint(f"h{zone}", weight=one.endpoint.weight, locality=str(zone))
    got: Counter[object] = Counter()
    for own in range(len(weights)):
        for _, members, share in by_locality(states, states, str(own)):
            for one in members:
                got[one] += share / len(weights) * one.endpoint.weight / sum(x.endpoint.weight for x in members)  # type: ignore[assignment]
    for one in states:
        assert got[one] == pytest.approx(one.endpoint.weight / sum(weights))


def test_a_pool_in_zones() -> None:
    """Calls stay near, retries leave the zone, and with the zone down all calls do."""
    pool = make_pool(endpoint("a", locality="a"), endpoint("x", locality="a"), endpoint("b", locality="b"), zone="a")
    assert {get(pool).hosts[0] for _ in range(50)} == {"a", "x"}
    assert get(pool, by_host(a=DOWN, x=DOWN)).hosts[-1] == "b"
    for name in "ax":
        pool.report_health(endpoint(name), False)
    assert {get(pool).hosts[0] for _ in range(50)} == {"b"}
    assert [(one.address, one.eligible) for one in explain(pool)] == [("a:80", False), ("b:80", True), ("x:80", False)]


def test_the_pools_own_locality_wins() -> None:
    """And a balancer that hashes has none: a key has one home for all callers."""
    two = [endpoint("a", locality="a"), endpoint("b", locality="b")]
    assert {get(make_pool(*two, zone="a", locality="b")).hosts[0] for _ in range(20)} == {"b"}
    pool = make_pool(*two, zone="a", balancer="ring_hash")
    assert {get(pool, key=key).hosts[0] for key in range(0, 2**64, 2**58)} == {"a", "b"}


def used(pool: Pool, calls: int = 300) -> set[str]:
    return {get(pool).hosts[0] for _ in range(calls)}


def test_a_subset_of_many() -> None:
    """Each process uses five of forty, others than its neighbours; all of them together use all."""
    names = [f"h{i}" for i in range(40)]
    subsets = [used(make_pool(*names, seed=seed, subset_size=5)) for seed in range(60)]
    assert {len(one) for one in subsets} == {5}
    assert set.union(*subsets) == set(names)
    load = Counter(name for one in subsets for name in one)
    assert max(load.values()) < 20


def test_the_next_steps_in_for_one_that_fails() -> None:
    """And only for that one; when it is back so is the old subset. A smaller pool moves no more than it must."""
    pool = make_pool(*(f"h{i}" for i in range(20)), subset_size=4)
    before = used(pool)
    gone = endpoint(min(before))
    pool.report_health(gone, False)
    assert len(used(pool)) == 4
    assert len(used(pool) & before) == 3
    for _ in range(2):
        pool.report_health(gone, True)
    assert used(pool) == before
    pool.replace([one for one in pool.endpoints if one.url != gone.url])
    assert len(used(pool) & before) == 3


def test_each_level_has_a_subset() -> None:
    """So that there is somewhere to fail over to."""
    pool = make_pool("a", "b", *(endpoint(n, priority=1) for n in "xyz"), subset_size=1)
    first = used(pool)
    assert len(first) == 1
    for name in "ab":
        pool.report_health(endpoint(name), False)
    assert len(used(pool)) == 1
    assert used(pool) < {"x", "y", "z"}


def test_draining() -> None:
    """No new calls, calls under way end in peace, and it holds over discoveries until it is undone."""
    pool = make_pool("a", "b")
    runs = [drive(pool, Call("GET"), OK) for _ in range(20)]
    assert pool.drain("a:80")
    assert used(pool) == {"b"}
    assert in_flight(pool)["a:80"] > 0
    for run in runs:
        finish(run)
    assert in_flight(pool) == {"a:80": 0, "b:80": 0}
    pool.replace([endpoint("a", weight=2), endpoint("b")])
    assert used(pool) == {"b"}
    assert [one.reason for one in pool.snapshot()] == ["draining", ""]
    assert pool.drain("http://a:80", False)
    assert used(pool) == {"a", "b"}
    assert not pool.drain("c:80")


def test_endpoints_that_are_told_to_drain() -> None:
    """By settings or discovery. They are no last resort either: with all draining a call fails."""
    pool = make_pool(endpoint("a", draining=True), "b", ejection=EjectionOptions(consecutive_failures=1))
    for _ in range(5):
        assert "a" not in get(pool, DOWN).hosts
    pool.replace([endpoint("a", draining=True)])
    run = get(pool)
    assert isinstance(run.error, NoHealthyEndpoint)
    assert "a:80 draining" in str(run.error)
    assert pool.drain("a:80", False)
    assert get(pool).status == 200
    assert pool.drain("a:80", None)
    assert isinstance(get(pool).error, NoHealthyEndpoint)


def test_explained() -> None:
    """Level, whether it gets calls or why not, weight and share."""
    pool = make_pool(
        endpoint("a", weight=3), "b", "c", endpoint("d", draining=True), endpoint("x", priority=1),
        ejection=EjectionOptions(consecutive_failures=1),
    )  # fmt: skip
    pool.report_health(endpoint("c"), False)
    found = {one.address[0]: one for one in explain(pool)}
    assert {name: (one.priority, one.eligible, one.reason) for name, one in found.items()} == {
        "a": (0, True, ""),
        "b": (0, True, ""),
        "c": (0, False, "unhealthy for 0.0 s"),
        "d": (0, False, "draining"),
        "x": (1, True, ""),
    }
    assert {name: round(one.share, 2) for name, one in found.items()} == {"a": 52.5, "b": 17.5, "c": 0, "d": 0, "x": 30}
    for name in "cd":
        pool.report_health(endpoint(name), True)
        pool.report_health(endpoint(name), True)
        pool.drain(f"{name}:80", False)
    assert explain(pool)[-1].reason == "better levels take all calls; retries may come here"
    subset = explain(make_pool("a", "b", subset_size=1))
    assert sorted(one.reason for one in subset) == ["", "not in this process's subset"]
    zones = explain(make_pool(endpoint("a", locality="a"), endpoint("b", locality="b"), zone="a"))
    assert [one.reason for one in zones] == ["", "in another locality; near ones take all calls"]
    assert explain(make_pool()) == ()
