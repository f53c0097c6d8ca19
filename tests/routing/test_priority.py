"""The load of priority levels: Envoy's published tables, and what must hold for any numbers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import endpoint, get, make_pool
from unsticky.errors import NoHealthyEndpoint
from unsticky.routing.events import PanicChanged
from unsticky.routing.health import CheckResult
from unsticky.routing.pool import Pool
from unsticky.routing.priority import Level, loads, loads_in_panic, panicking


def levels(text: str) -> list[Level]:
    """ "72 25/65": percent healthy, and after the slash degraded, of a hundred endpoints per level."""
    counts = [[int(part) for part in (word + "/0").split("/")[:2]] for word in text.split()]
    return [Level(healthy, degraded, 100) for healthy, degraded in counts]


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ("100 100", "100 0"),
        ("72 72", "100 0"),
        ("71 71", "99 1"),
        ("50 50", "70 30"),
        ("25 100", "35 65"),
        ("25 25", "50 50"),
        ("0 100", "0 100"),
        ("0 0", "0 0"),
        ("25 25 100", "35 35 30"),
        ("25 25 20", "37 35 28"),  # documented as 36/36/28; the code gives the remainder to the first
        ("5 65", "8 92"),  # documented as 7/93
        ("0 5 65", "0 8 92"),  # the first that has health
    ],
)
def test_envoys_tables(health: str, expected: str) -> None:
    """priority.rst and panic_threshold.rst, with the rounding of load_balancer_impl.cc."""
    assert loads(levels(health)).healthy == tuple(map(int, expected.split()))


@pytest.mark.parametrize(
    ("health", "healthy", "degraded"),
    [
        ("100/0", "100", "0"),
        ("71/29", "99", "1"),
        ("71/0", "100", "0"),
        ("50/50", "70", "30"),
        ("25/65", "35", "65"),
        ("5/0", "100", "0"),
        ("0/40", "0", "100"),
        ("0/40 100", "0 100", "0 0"),  # healthy ones of any level come before degraded ones
        ("10/20 20/10 10/0", "16 28 14", "28 14 0"),  # the example in the code
    ],
)
def test_degraded_endpoints_get_what_healthy_ones_leave(health: str, healthy: str, degraded: str) -> None:
    """degraded.rst."""
    found = loads(levels(health))
    assert found.healthy == tuple(map(int, healthy.split()))
    assert found.degraded == tuple(map(int, degraded.split()))


COUNTS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
    .filter(any)
    .map(lambda parts: Level(parts[0], parts[1], sum(parts))),
    min_size=1,
    max_size=5,
)


@given(COUNTS, st.integers(100, 300), st.integers(1, 100))
def test_loads_are_whole(found: list[Level], factor: int, threshold: int) -> None:
    """All calls go somewhere, none to what is not there; enough health means no panic."""
    given_out = loads(found, factor)
    assert sum((*given_out.healthy, *given_out.degraded)) == (100 if any(x.healthy or x.degraded for x in found) else 0)
    for level, healthy, degraded in zip(found, given_out.healthy, given_out.degraded, strict=True):
        assert not healthy or level.healthy
        assert not degraded or level.degraded
    assert sum(loads_in_panic(found)) == 100
    if found[0].healthy == found[0].total:
        assert given_out.healthy[0] == 100
        assert not any(panicking(found, threshold, factor))


@given(st.integers(1, 40), st.integers(0, 40))
def test_more_health_is_never_less_load(total: int, healthy: int) -> None:
    """One more healthy endpoint of level 0 does not take calls from it."""
    healthy = min(healthy, total - 1)
    other = Level(total, 0, total)
    before, after = (loads([Level(count, 0, total), other]).healthy[0] for count in (healthy, healthy + 1))
    assert before <= after


@pytest.mark.parametrize(
    ("health", "threshold", "panic"),
    [
        ("100 100", 50, "no no"),
        ("25 100", 50, "no no"),  # together they can take all
        ("50 0", 50, "no yes"),
        ("25 25", 50, "yes yes"),
        ("5 65", 50, "yes no"),
        ("20/40 0", 50, "no yes"),  # degraded ones are available
        ("0 0", 50, "yes yes"),
        ("0 0", 1, "yes yes"),
        ("25 25", 20, "no no"),
    ],
)
def test_panic(health: str, threshold: int, panic: str) -> None:
    """panic_threshold.rst: only what is below the threshold, and only when the pool lacks health."""
    assert panicking(levels(health), threshold) == tuple(word == "yes" for word in panic.split())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([Level(1, 0, 4), Level(1, 0, 4)], (50, 50)),
        ([Level(1, 0, 3), Level(1, 0, 6)], (34, 66)),
        ([Level(0, 0, 4), Level(0, 0, 4)], (100, 0)),
    ],
)
def test_when_all_levels_panic(found: list[Level], expected: tuple[int, ...]) -> None:
    """By their numbers of endpoints; with none available all go to the first."""
    assert loads_in_panic(found) == expected


def fail(pool: Pool, *names: str) -> None:
    for one in pool.endpoints:
        if one.address.partition(":")[0] in names:
            pool.report_health(one, False)


def seen(pool: Pool, calls: int = 400) -> Counter[str]:
    return Counter(get(pool).hosts[0] for _ in range(calls))


def test_below_the_threshold_all_are_used() -> None:
    """Two of three are said to be unhealthy: that is more likely a wrong check, or the last one would be overrun."""
    pool = make_pool("a", "b", "c", panic_threshold=50)
    fail(pool, "a")
    assert set(seen(pool)) == {"b", "c"}
    fail(pool, "b")
    assert set(seen(pool)) == {"a", "b", "c"}
    assert PanicChanged(True) in pool.drain_events()
    for _ in range(2):
        pool.report_health(endpoint("b"), True)
    assert set(seen(pool)) == {"b", "c"}
    assert PanicChanged(False) in pool.drain_events()


def test_without_a_threshold_the_last_one_gets_all() -> None:
    """A pool of three that lost two goes on without failures."""
    pool = make_pool("a", "b", "c")
    fail(pool, "a", "b")
    assert set(seen(pool)) == {"c"}


def test_a_level_in_panic_keeps_its_load() -> None:
    """Of 5 % and 65 % health, the first level gets 8 % of the calls, spread over all of its endpoints."""
    first, second = [f"a{i}" for i in range(20)], [endpoint(f"b{i}", priority=1) for i in range(20)]
    pool = make_pool(*first, *second, panic_threshold=50)
    fail(pool, *first[1:], *(f"b{i}" for i in range(13, 20)))
    hosts = seen(pool, 5000)
    assert 300 < sum(hosts[name] for name in first) < 500
    assert sum(hosts[name] > 0 for name in first) == 20
    assert {name for name in hosts if name[0] == "b"} == {f"b{i}" for i in range(13)}


def test_a_threshold_of_zero_fails_fast() -> None:
    """Nothing unfit is used, and the error says why each endpoint is not."""
    pool = make_pool("a", "b", panic_threshold=0)
    fail(pool, "a")
    assert set(seen(pool)) == {"b"}
    fail(pool, "b")
    run = get(pool)
    assert isinstance(run.error, NoHealthyEndpoint)
    assert run.attempts == []
    assert "a:80 unhealthy for 0.0 s, b:80 unhealthy" in str(run.error)
    assert get(make_pool(*(f"h{i}" for i in range(9)), panic_threshold=0)).status == 200


def test_degraded_ones_of_a_pool() -> None:
    """Four of four healthy need no degraded one; with one healthy of four, degraded ones get 65 %."""
    pool = make_pool("a", "b", "c", "d", panic_threshold=50)
    pool.report_health(endpoint("d"), CheckResult(True, degraded=True))
    assert set(seen(pool)) == {"a", "b", "c"}  # 75 % * 1.4
    for name in "bc":
        pool.report_health(endpoint(name), CheckResult(True, degraded=True))
    hosts = seen(pool, 2000)
    assert 600 < hosts["a"] < 800
    assert set(hosts) == set("abcd")
    pool.report_health(endpoint("b"), True)
    pool.report_health(endpoint("c"), True)
    assert set(seen(pool)) == {"a", "b", "c"}
    assert [one.degraded for one in pool.snapshot()] == [False, False, False, True]


def test_a_key_keeps_its_level() -> None:
    """The hash key draws the level too: equal keys meet the same endpoint while two levels share the calls."""
    pool = make_pool("a", "b", endpoint("x", priority=1), endpoint("y", priority=1), balancer="ring_hash")
    fail(pool, "a")
    homes = {key: get(pool, key=key).hosts for key in range(0, 2**64, 2**64 // 500 + 7)}
    assert all(get(pool, key=key).hosts == hosts for key, hosts in homes.items())
    assert 300 < sum(hosts == ["b"] for hosts in homes.values()) < 400
