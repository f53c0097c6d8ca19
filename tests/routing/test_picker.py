"""The balancers: published sequences, shares, and what a retry gets."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import endpoint, get, make_pool, state
from unsticky.routing.draw import Draw
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.options import LeastRequestOptions, PoolOptions
from unsticky.routing.picker import LeastRequest, RoundRobin, SmoothSequence, WeightedRoundRobin, picker_for

BALANCERS = ["round_robin", "weighted_round_robin", "random", "least_request", "peak_ewma"]


def turns(weights: list[int], count: int) -> str:
    sequence = SmoothSequence(weights)
    return "".join("abcdefgh"[sequence.turn()] for _ in range(count))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([5, 1, 1], "aabacaa"), ([4, 2, 1], "abacaba"), ([3, 2], "ababa"), ([1, 1, 1], "abc"), ([10, 4], "abaaaba")],
)
def test_smooth_sequence_is_nginx(weights: list[int], expected: str) -> None:
    """The sequences of nginx's commit 52327e0627 and those derived from its algorithm, period after period."""
    assert turns(weights, 3 * len(expected)) == 3 * expected


def test_smooth_sequence_counts_as_nginx() -> None:
    """The table in the message of that commit: what each of 5, 1, 1 has left after a pick."""
    sequence, left = SmoothSequence([5, 1, 1]), []
    for _ in range(7):
        sequence.turn()
        left.append(tuple(sequence._current))
    assert left == [(-2, 1, 1), (-4, 2, 2), (1, -4, 3), (-1, -3, 4), (4, -2, -2), (2, -1, -1), (0, 0, 0)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_smooth_sequence_gives_each_its_weight(weights: list[int]) -> None:
    """In each period each endpoint has exactly its share of turns."""
    sequence = SmoothSequence(weights)
    for _ in range(2):
        counted = Counter(sequence.turn() for _ in range(sequence.period))
        assert [counted[i] * sum(weights) for i in range(len(weights))] == [w * sequence.period for w in weights]


def test_weighted_round_robin_follows_the_sequence_from_a_random_turn() -> None:
    """A worker starts somewhere in the sequence and then keeps to it."""
    group = (state("a", weight=5), state("b"), state("c"))
    starts = set()
    for seed in range(40):
        picker = WeightedRoundRobin(Random(seed))
        seen = "".join(picker.pick(group, None, (), 0.0).endpoint.address[0] for _ in range(14))
        assert seen in "aabacaa" * 3
        starts.add(seen[:7])
    assert len(starts) > 3


def test_round_robin_takes_turns_from_a_random_start() -> None:
    """All get the same number of calls, and workers do not all begin with the same endpoint."""
    group = tuple(state(name) for name in "abcd")
    firsts = set()
    for seed in range(40):
        picker = RoundRobin(Random(seed))
        seen = [picker.pick(group, None, (), 0.0) for _ in range(40)]
        assert set(Counter(seen).values()) == {10}
        assert seen[:4] == seen[4:8]
        firsts.add(seen[0])
    assert firsts == set(group)


@pytest.mark.parametrize(("balancer", "tolerance"), [("random", 0.02), ("least_request", 0.02)])
def test_idle_shares_are_even(balancer: str, tolerance: float) -> None:
    """Without load every endpoint gets the same share."""
    pool = make_pool("a", "b", "c", "d", balancer=balancer)
    counted = Counter(get(pool).hosts[0] for _ in range(20_000))
    assert all(abs(count / 20_000 - 0.25) < tolerance for count in counted.values())


@pytest.mark.parametrize("weights", [(3, 1), (5, 3, 1, 1)])
@pytest.mark.parametrize("balancer", ["least_request", "weighted_round_robin"])
def test_idle_shares_follow_weights(balancer: str, weights: tuple[int, ...]) -> None:
    """Without load the weights are the shares."""
    names = "abcd"[: len(weights)]
    pool = make_pool(*(endpoint(n, weight=w) for n, w in zip(names, weights, strict=True)), balancer=balancer)
    counted = Counter(get(pool).hosts[0] for _ in range(20_000))
    for name, weight in zip(names, weights, strict=True):
        assert abs(counted[name] / 20_000 - weight / sum(weights)) < 0.02


def test_least_request_prefers_fewer_active_calls() -> None:
    """Of two with equal weights the one with fewer calls in flight gets the call, always."""
    busy, idle = state("a", in_flight=3), state("b", in_flight=2)
    picker = LeastRequest(Random(1))
    assert {picker.pick((busy, idle), None, (), 0.0) for _ in range(200)} == {idle}


@pytest.mark.parametrize("busy_first", [True, False])
def test_least_request_draws_two_different_ones(busy_first: bool) -> None:
    """Of two with different weights, both are always seen: the light idle one gets every call."""
    busy, idle = state("a", weight=3, in_flight=100), state("b")
    group = (busy, idle) if busy_first else (idle, busy)
    picker = LeastRequest(Random(1))
    assert {picker.pick(group, None, (), 0.0) for _ in range(200)} == {idle}


def test_least_request_fills_by_weight() -> None:
    """Under load that stays, calls in flight are in proportion to the weights."""
    group = (state("a", weight=6), state("b", weight=3), state("c", weight=1))
    picker = LeastRequest(Random(1))
    for _ in range(1000):
        picker.pick(group, None, (), 0.0).in_flight += 1
    assert [round(one.in_flight / 100) for one in group] == [6, 3, 1]


def test_least_request_of_two_choices_balances_better_than_random() -> None:
    """The power of two choices: 10,000 calls that stay on 100 endpoints differ by a few, not by tens."""

    def spread(balancer: str) -> int:
        states = tuple(state(f"h{i}") for i in range(100))
        picker = picker_for(PoolOptions(endpoints=(), balancer=balancer), Random(7))  # type: ignore[arg-type]
        for _ in range(10_000):
            picker.pick(states, None, (), 0.0).in_flight += 1
        loads = [one.in_flight for one in states]
        return max(loads) - min(loads)

    assert spread("least_request") <= 6 < 25 < spread("random")


@pytest.mark.parametrize("balancer", BALANCERS)
@given(data=st.data())
def test_a_pick_is_an_untried_member(balancer: str, data: st.DataObject) -> None:
    """Whatever was tried, the pick is in the group and not among the tried."""
    weights = data.draw(st.lists(st.integers(1, 100), min_size=2, max_size=6))
    group: tuple[EndpointState, ...] = tuple(state(f"h{i}", weight=w) for i, w in enumerate(weights))
    tried = data.draw(st.lists(st.sampled_from(group), max_size=len(group) - 1, unique=True))
    key = data.draw(st.none() | st.integers(0, 2**64 - 1))
    picker = picker_for(PoolOptions(endpoints=(), balancer=balancer), Random(data.draw(st.integers())))  # type: ignore[arg-type]
    for _ in range(5):
        picked = picker.pick(group, key, tried, 0.0)
        assert picked in group
        assert picked not in tried


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_retry_in_a_large_pool_gets_an_untried_endpoint(balancer: str, weighted: bool) -> None:
    """Where a retry draws from a sample, it still finds one that was not tried, even the last."""
    group = tuple(state(f"h{i}", weight=i % 9 + 1 if weighted else 1) for i in range(200))
    picker = picker_for(PoolOptions(endpoints=(), balancer=balancer), Random(3))  # type: ignore[arg-type]
    seen = set()
    for count in (1, 3, 150, 199):
        tried = set(group[:count])
        for _ in range(50):
            picked = picker.pick(group, None, tried, 0.0)
            assert picked in group
            assert picked not in tried
            seen.add(picked)
    assert len(seen) > 60


@pytest.mark.parametrize(("choices", "least", "most"), [(2, 0.30, 0.45), (4, 0.55, 0.75), (10, 0.85, 1.0)])
def test_more_choices_look_harder(choices: int, least: float, most: float) -> None:
    """One idle endpoint among five busy ones is found the more often, the more are drawn."""
    group = (*(state(f"h{i}", in_flight=5) for i in range(5)), state("idle"))
    picker = LeastRequest(Random(2), choices)
    found = sum(picker.pick(group, None, (), 0.0) is group[-1] for _ in range(5000)) / 5000
    assert least < found <= most


def test_the_choice_count_is_an_option() -> None:
    """A pool draws as many as its settings say."""
    options = LeastRequestOptions(choice_count=10)
    pool = make_pool("a", "b", "c", "d", balancer="least_request", least_request=options)
    for one in list(pool._states.values())[:3]:
        one.in_flight = 3
    assert sum(get(pool).hosts == ["d"] for _ in range(200)) > 190


@given(st.lists(st.integers(1, 65535), min_size=2, max_size=300), st.integers())
def test_draws_are_of_two_different_members(weights: list[int], seed: int) -> None:
    """Whatever the weights, in small and in large groups."""
    draw = Draw(tuple(state(f"h{i}", weight=weight) for i, weight in enumerate(weights)), Random(seed))
    for _ in range(5):
        first, second = draw.two()
        assert first is not second
        assert draw.other(first) is not first


def test_draws_follow_weights() -> None:
    """The first by weight; the second by weight among the others, as the formula has it."""
    weights = [9, 3, 2, 1] * 5
    group = tuple(state(f"h{i}", weight=weight) for i, weight in enumerate(weights))
    draw, total = Draw(group, Random(6)), sum(weights)
    pairs = [draw.two() for _ in range(60_000)]
    firsts, seconds = Counter(one for one, _ in pairs), Counter(two for _, two in pairs)
    for one, weight in zip(group, weights, strict=True):
        expected = sum(other / total * weight / (total - other) for other in weights) - weight**2 / total / (
            total - weight
        )
        assert abs(firsts[one] / 60_000 - weight / total) < 0.005
        assert abs(seconds[one] / 60_000 - expected) < 0.005
