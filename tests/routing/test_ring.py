"""The ring of Envoy's ring_hash, by its own vectors."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from support.routing import endpoint, get, make_pool
from unsticky.routing.call import Endpoint
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.options import HashOptions
from unsticky.routing.ring import Ring

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


def address(port: int, weight: int = 1) -> EndpointState:
    return EndpointState(Endpoint(f"http://127.0.0.1:{port}", f"127.0.0.1:{port}", weight))


HOSTS = [address(port) for port in range(90, 96)]


def port(state: EndpointState) -> int:
    return int(state.endpoint.address.rpartition(":")[2])


def test_entries_are_envoys() -> None:
    """All twelve hashes and their owners."""
    ring = Ring(HOSTS, 12, 8_388_608)
    assert ring.hashes == list(ENVOY)
    assert {point: port(ring.first(point, HOSTS)) for point in ring.hashes} == ENVOY


@pytest.mark.parametrize(
    ("key", "owner"), [(0, 94), (2**64 - 1, 94), (3551244743356806947, 95), (3551244743356806948, 93)]
)
def test_lookups_are_envoys(key: int, owner: int) -> None:
    """First entry at or after the key, around the ring."""
    assert port(Ring(HOSTS, 12, 8_388_608).first(key, HOSTS)) == owner


def test_a_missing_endpoint_is_passed_over() -> None:
    """The next one on the ring takes the keys of one that is gone; nobody else's keys move."""
    ring = Ring(HOSTS, 1024, 8_388_608)
    rest = HOSTS[1:]
    random = Random(5)
    moved = Counter()
    for _ in range(5000):
        key = random.getrandbits(64)
        before, after = ring.first(key, HOSTS), ring.first(key, rest)
        if before is HOSTS[0]:
            moved[after] += 1
        else:
            assert before is after
    assert set(moved) == set(rest)  # its keys spread over all others


def test_entries_follow_weights() -> None:
    """Weights 1 and 3 in a ring of 12: 3 and 9 entries."""
    ring = Ring([address(90), address(91, 3)], 12, 8_388_608)
    assert Counter(port(ring.first(point, [*HOSTS, *ring._owners])) for point in ring.hashes) == {90: 3, 91: 9}


def test_maximum_bounds_the_ring() -> None:
    """The ring is never larger than allowed, even when the lightest endpoint loses its entries; it stays pickable."""
    light, heavy = address(90), address(91, 999)
    ring = Ring([heavy, light], 10, 10)
    assert len(ring.hashes) == 10
    assert ring.first(7, [light]) is light


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 10), (11, 10)])
def test_sizes_that_cross_are_refused(minimum: int, maximum: int) -> None:
    """As Envoy does."""
    with pytest.raises(ValueError, match="ring sizes"):
        Ring(HOSTS, minimum, maximum)


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
