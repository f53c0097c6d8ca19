"""The ring of Envoy's ring_hash, by its own vectors."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, by_host, endpoint, get, make_pool
from unsticky.routing.call import Endpoint
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.options import HashOptions
from unsticky.routing.ring import Ring, building, counted

ENVOY = {  # ring_hash_lb_test.cc: six hosts 127.0.0.1:90 to :95, minimum_ring_size 12
    833437586790550860: 94,
    928266305478181108: 92,
    1033482794131418490: 90,
    3551244743356806947: 95,
    3851675632748031481: 93,
    5583722120771150861: 91,
    6311230543546372928: 91,
    7700377290971790572: 93,
    13144177310400110813: 95,
    13444792449719432967: 92,
    15516499411664133160: 94,
    16117243373044804889: 90,
}
ENVOY_BY_NAME = {
    1975508444536362413: 95,
    2376063919839173711: 95,
    2386806903309390596: 93,
    6749904478991551885: 94,
    6803900775736438537: 93,
    7225015537174310577: 92,
    8787465352164086522: 90,
    11282020843382717940: 92,
    13723418369486627818: 91,
    13776502110861797421: 90,
    14338313586354474791: 91,
    15364271037087512980: 94,
}


def address(port: int, weight: int = 1) -> EndpointState:
    return EndpointState(Endpoint(f"http://127.0.0.1:{port}", f"127.0.0.1:{port}", weight))


HOSTS = [address(port) for port in range(90, 96)]


def ring(hosts: list[EndpointState], minimum: int, maximum: int = 8_388_608) -> Ring:
    """The whole of it, at once."""
    steps = building(hosts, minimum, maximum)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: Ring = end.value
            return made


def port(state: EndpointState) -> int:
    return int(state.endpoint.address.rpartition(":")[2])


def test_entries_are_envoys() -> None:
    """All twelve hashes and their owners."""
    made = ring(HOSTS, 12)
    assert list(made.hashes) == list(ENVOY)
    assert {point: port(made.home(point)) for point in made.hashes} == ENVOY


def test_entries_by_name_are_envoys() -> None:
    """BasicWithHostname: the ring of the names 90 to 95."""
    hosts = [EndpointState(Endpoint(f"http://{name}", str(name))) for name in range(90, 96)]
    made = ring(hosts, 12)
    assert {point: int(made.home(point).endpoint.address) for point in made.hashes} == ENVOY_BY_NAME


@pytest.mark.parametrize(
    ("key", "owner"), [(0, 94), (2**64 - 1, 94), (3551244743356806947, 95), (3551244743356806948, 93)]
)
def test_lookups_are_envoys(key: int, owner: int) -> None:
    """First entry at or after the key, around the ring."""
    assert port(ring(HOSTS, 12).home(key)) == owner


def test_further_owners_are_those_of_envoys_further_attempts() -> None:
    """Envoy's attempt n takes the nth entry after the first, around the ring."""
    owners = list(ENVOY.values())
    for index, point in enumerate(ENVOY):
        assert [port(state) for state in ring(HOSTS, 12).owners(point)] == owners[index:] + owners[:index]


@given(st.integers(1, 3000), st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_a_lookup_is_the_search_of_the_whole_ring(minimum: int, keys: list[int]) -> None:
    """However many entries there are: sectors are a shortcut only."""
    made = ring(HOSTS, minimum)
    for key in (*keys, *made.hashes[:20], 0, 2**64 - 1):
        assert made.home(key) is next(made.owners(key))


def test_entries_follow_weights() -> None:
    """Weights 1 and 3 in a ring of 12: 3 and 9 entries."""
    made = ring([address(90), address(91, 3)], 12)
    assert Counter(port(made.home(point)) for point in made.hashes) == {90: 3, 91: 9}


def test_maximum_bounds_the_ring() -> None:
    """The ring is never larger than allowed, even when the lightest endpoint loses its entries."""
    light, heavy = address(90), address(91, 999)
    assert counted([heavy, light], 10, 10) == [10, 0]
    assert len(ring([heavy, light], 10, 10).hashes) == 10


def test_an_endpoint_without_entries_is_still_used_when_it_is_the_only_one_left() -> None:
    """A call that tried the heavy one gets the light one, though the ring does not lead there."""
    pool = make_pool(
        endpoint("light"),
        endpoint("heavy", weight=65535),
        balancer="ring_hash",
        hash=HashOptions(minimum_ring_size=10, maximum_ring_size=10),
    )
    run = get(pool, by_host(heavy=DOWN), key=7)
    assert run.hosts == ["heavy", "light"]


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 10), (11, 10)])
def test_sizes_that_cross_are_refused(minimum: int, maximum: int) -> None:
    """As Envoy does."""
    with pytest.raises(ValueError, match="ring sizes"):
        ring(HOSTS, minimum, maximum)


def test_a_pool_keeps_keys_with_their_endpoint() -> None:
    """Equal keys meet the same endpoint; while that is down they meet one other; calls without a key go anywhere."""
    pool = make_pool("a", "b", "c", balancer="ring_hash")
    homes = {key: get(pool, key=key).hosts for key in range(0, 2**64, 2**58)}
    assert all(get(pool, key=key).hosts == hosts for key, hosts in homes.items())
    pool.report_health(endpoint("a"), False)
    for key, hosts in homes.items():
        now = {get(pool, key=key).hosts[0] for _ in range(3)}
        assert now == set(hosts) if hosts != ["a"] else len(now) == 1 and "a" not in now
    assert len({get(pool).hosts[0] for _ in range(50)}) == 2


def test_each_priority_has_its_ring() -> None:
    """A key that fails over to the next level keeps meeting one endpoint there."""
    pool = make_pool("a", *(endpoint(n, priority=1) for n in "xyz"), balancer="ring_hash", hash=HashOptions())
    pool.report_health(endpoint("a"), False)
    homes = {key: get(pool, key=key).hosts for key in range(0, 2**64, 2**59)}
    assert all(get(pool, key=key).hosts == hosts for key, hosts in homes.items())
    assert {host for hosts in homes.values() for host in hosts} == {"x", "y", "z"}
