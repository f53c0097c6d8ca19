"""Maglev's table, by Envoy's own vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import endpoint, get, make_pool
from unsticky.routing.call import Endpoint
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.maglev import Maglev, _turns, building, is_prime
from unsticky.routing.options import HashOptions


def host(address: str, weight: int = 1) -> EndpointState:
    return EndpointState(Endpoint(f"http://{address}", address, weight))


def table(hosts: Sequence[EndpointState], size: int) -> Maglev:
    """The whole of it, at once."""
    steps = building(hosts, size)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: Maglev = end.value
            return made


def ports(states: Sequence[EndpointState]) -> list[int]:
    return [int(state.endpoint.address.rpartition(":")[2]) for state in states]


ADDRESSES = [host(f"127.0.0.1:{port}") for port in range(90, 96)]


def test_slots_by_address_are_envoys() -> None:
    """maglev_lb_test.cc, Basic."""
    assert ports(table(ADDRESSES, 7).slots) == [92, 94, 90, 91, 95, 90, 93]


def test_slots_by_name_are_envoys() -> None:
    """maglev_lb_test.cc, BasicWithHostName."""
    assert ports(table([host(str(port)) for port in range(90, 96)], 7).slots) == [92, 95, 90, 93, 94, 91, 90]


def test_slots_by_weight_are_envoys() -> None:
    """maglev_lb_test.cc, Weighted: 6 and 11 of 17 slots."""
    weighted = [host("127.0.0.1:90"), host("127.0.0.1:91", 2)]
    assert ports(table(weighted, 17).slots) == [91, 90, 90, 91, 90, 91, 91, 90, 91, 91, 91, 91, 91, 90, 91, 90, 91]


def test_shares_of_the_default_table_are_envoys() -> None:
    """load_balancers.rst: weights 1 and 2 get 21846 and 43691 of 65537 slots."""
    made = table([host("127.0.0.1:90"), host("127.0.0.1:91", 2)], 65537)
    assert Counter(ports(made.slots)) == {90: 21846, 91: 43691}


def test_the_order_of_the_endpoints_means_nothing() -> None:
    """maglev_lb_test.cc, BasicStability: they are sorted by address."""
    assert table(ADDRESSES[::-1], 7).slots == table(ADDRESSES, 7).slots


def test_further_owners_are_those_of_envoys_further_attempts() -> None:
    """maglev_lb_test.cc, BasicWithRetryHostPredicate: key 10 is at 91, then at 90, then at 95."""
    assert ports(list(islice(table(ADDRESSES, 7).owners(10), 3))) == [91, 90, 95]


def scanned(weights: Sequence[int]) -> Iterator[int]:
    """Envoy's own loops: each round looks at every endpoint."""
    total = sum(weights)
    shares = [weight / total for weight in weights]
    targets = [0.0] * len(weights)
    for turn in range(1, 1_000_000):
        for index, share in enumerate(shares):
            if turn * share >= targets[index]:
                targets[index] += max(shares)
                yield index


@given(st.lists(st.integers(1, 65535) | st.integers(1, 5), min_size=1, max_size=8))
def test_turns_are_those_of_envoys_rounds(weights: list[int]) -> None:
    """Knowing who is due gives the sequence that looking at everybody gives."""
    assert list(islice(_turns(weights), 300)) == list(islice(scanned(weights), 300))


def test_few_keys_move_when_an_endpoint_goes() -> None:
    """Its own, and a small part of the others: nine of ten endpoints keep about nine tenths of theirs or more."""
    hosts = [host(f"h{i}:80") for i in range(10)]
    before, after = table(hosts, 65537), table(hosts[1:], 65537)
    moved = sum(old is not new for old, new in zip(before.slots, after.slots, strict=True))
    assert 0.1 <= moved / 65537 < 0.2


@pytest.mark.parametrize("size", [0, 1, 4, 65536, 65535])
def test_only_primes_are_sizes(size: int) -> None:
    """As Envoy demands."""
    assert not is_prime(size)
    with pytest.raises(ValueError, match="prime"):
        table(ADDRESSES, size)


def test_primes() -> None:
    """The first ones, the default, and Envoy's largest."""
    assert [number for number in range(20) if is_prime(number)] == [2, 3, 5, 7, 11, 13, 17, 19]
    assert is_prime(65537)
    assert is_prime(5_000_011)


def test_a_pool_passes_over_who_is_not_fit() -> None:
    """Keys of the others stay where they are, and those of the one that is down have one other home each."""
    pool = make_pool("a", "b", "c", balancer="maglev", hash=HashOptions(table_size=1009))
    homes = {key: get(pool, key=key).hosts for key in range(0, 2**64, 2**64 // 99)}
    assert {host for hosts in homes.values() for host in hosts} == {"a", "b", "c"}
    pool.report_health(endpoint("a"), False)
    for key, hosts in homes.items():
        now = {get(pool, key=key).hosts[0] for _ in range(3)}
        assert now == set(hosts) if hosts != ["a"] else len(now) == 1 and "a" not in now
