"""Peak EWMA: Finagle's formulas, Envoy's cost tests, and Finagle's suite of simulated clients."""

from __future__ import annotations

from heapq import heappop, heappush
from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, OK, Answer, by_host, drive, endpoint, fail, finish, get, make_pool, respond, state
from unsticky.routing.call import Call, Failure
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.options import EjectionOptions, PeakEwmaOptions, RetryOptions
from unsticky.routing.peak_ewma import PENALTY, PeakEwma, cost, observe, observe_failure
from unsticky.scalars import Duration
from unsticky.testing import FakeClock


@pytest.mark.parametrize(("rtt", "pending", "expected"), [(20, 5, 120), (30, 0, 30), (0, 3, 1_000_003), (0, 0, 10)])
def test_costs_are_envoys(rtt: float, pending: float, expected: float) -> None:
    """peak_ewma/cost_test.cc: milliseconds, a default of 10 and a penalty of a million."""
    assert cost(rtt, pending, unknown=10, penalty=1_000_000) == expected


def test_an_unknown_endpoint_costs_nothing_and_then_finagles_penalty() -> None:
    """It is probed at once, by one call."""
    assert cost(0, 0) == 0
    assert cost(0, 2) == PENALTY + 2
    assert pytest.approx((2**63 - 1) >> 16) == PENALTY * 1e9


def test_a_slow_answer_counts_whole_and_fades() -> None:
    """A jump to the peak; afterwards w = exp(-dt / tau), to the letter."""
    one = state("a")
    observe(one, 0.1, 5.0, 10.0)
    assert one.rtt == 0.1
    observe(one, 2.0, 6.0, 10.0)
    assert one.rtt == 2.0
    observe(one, 0.1, 11.0, 10.0)
    weight = exp(-5.0 / 10.0)
    assert one.rtt == pytest.approx(2.0 * weight + 0.1 * (1 - weight))
    assert one.rtt_at == 11.0


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), min_size=1))
def test_what_is_remembered_lies_between_what_was_seen(seen: list[tuple[float, float]]) -> None:
    """Never above the peak, never below the least, and a clock that stands still does no harm."""
    one, now = state("a"), 0.0
    for seconds, passed in seen:
        now += passed
        observe(one, seconds, now, 10.0)
        assert seconds * (1 - 1e-9) <= one.rtt or one.rtt == pytest.approx(seconds)
        assert one.rtt <= max(seconds for seconds, _ in seen) * (1 + 1e-9)


def test_a_failure_never_makes_an_endpoint_look_fast() -> None:
    """Refused in 0.1 ms: what is known stays. After a long wait it is worse. Who never answered counts as slow."""
    known, unknown = state("a", rtt=0.05, rtt_at=1.0), state("b")
    observe_failure(known, 0.0001, 2.0)
    assert (known.rtt, known.rtt_at) == (0.05, 1.0)
    observe_failure(known, 3.0, 4.0)
    assert (known.rtt, known.rtt_at) == (3.0, 4.0)
    observe_failure(unknown, 0.0001, 2.0)
    assert unknown.rtt == 1.0


def test_the_cheaper_of_two_gets_the_call() -> None:
    """Cost is the time times one more than the calls in flight; of equals the first drawn is taken."""
    slow, fast = state("a", rtt=0.03, rtt_at=1.0), state("b", rtt=0.01, rtt_at=1.0, in_flight=1)
    picker = PeakEwma(Random(1), 10.0)
    assert {picker.pick((slow, fast), None, (), 1.0) for _ in range(50)} == {fast}
    fast.in_flight = 3
    assert {picker.pick((slow, fast), None, (), 1.0) for _ in range(50)} == {slow}
    fast.in_flight = 2
    assert {picker.pick((slow, fast), None, (), 1.0) for _ in range(50)} == {slow, fast}


def test_failures_in_a_row_count_as_pending() -> None:
    """An endpoint that refuses does not stay attractive until it is ejected."""
    good, bad = state("a", rtt=0.02, rtt_at=1.0), state("b", rtt=0.01, rtt_at=1.0, failures=3)
    picker = PeakEwma(Random(1), 10.0)
    assert {picker.pick((good, bad), None, (), 1.0) for _ in range(50)} == {good}


def test_idle_shares_follow_weights_and_load_too() -> None:
    """Equal latencies: calls by weight while idle, and calls in flight by weight while busy."""
    group = tuple(state(n, weight=w, rtt=0.01) for n, w in zip("abc", (6, 3, 1), strict=True))
    picker = PeakEwma(Random(1), 10.0)
    idle = [picker.pick(group, None, (), 0.0) for _ in range(10_000)]
    for one in group:
        assert abs(idle.count(one) / 10_000 - one.weight / 10) < 0.02
    for _ in range(1000):
        picker.pick(group, None, (), 0.0).in_flight += 1
    assert [round(one.in_flight / 100) for one in group] == [6, 3, 1]


class Client:
    """Finagle's P2CSuite: one call per tick over nodes with fixed latencies, tau 150 ticks."""

    def __init__(self, latencies: list[int], calls: int) -> None:
        self.nodes = tuple(state(f"n{i}") for i in range(len(latencies)))
        self.started = dict.fromkeys(self.nodes, 0)
        self.load = dict.fromkeys(self.nodes, 0)  # the sum of starts so far, at each start
        latency_of = dict(zip(self.nodes, latencies, strict=True))
        picker = PeakEwma(Random(12345), 150.0)
        due: list[tuple[int, int, EndpointState]] = []
        for tick in range(calls):
            node = picker.pick(self.nodes, None, (), float(tick))
            node.in_flight += 1
            self.started[node] += 1
            self.load[node] += self.started[node]
            heappush(due, (tick + latency_of[node], tick, node))
            while due and due[0][0] <= tick:
                end, began, done = heappop(due)
                done.in_flight -= 1
                observe(done, float(end - began), float(end), 150.0)

    def mean(self, index: int) -> float:
        node = self.nodes[index]
        return self.load[node] / max(self.started[node], 1)


CALLS = 100_000


def test_equal_nodes_get_equal_loads() -> None:
    """P2CPeakEwmaTest: balances evenly across identical nodes (epsilon 0.0005 R)."""
    client = Client([5] * 100, CALLS)
    means = [client.mean(i) for i in range(100)]
    assert max(abs(mean - means[0]) for mean in means) < 0.0005 * CALLS


def test_a_node_that_never_answers_is_probed_at_most_once() -> None:
    """P2CPeakEwmaTest: its first call lasts longer than the run, and the others share evenly."""
    client = Client([*[1] * 100, CALLS * 2], CALLS)
    assert client.started[client.nodes[100]] == 1
    means = [client.mean(i) for i in range(100)]
    assert max(abs(mean - means[0]) for mean in means) < 0.0005 * CALLS


def test_a_slow_node_gets_less() -> None:
    """P2CPeakEwmaTest: twice the latency, about half of the calls or less."""
    client = Client([*[5] * 100, 10], CALLS)
    assert client.mean(0) - 2 * client.mean(100) > -0.0005 * CALLS
    assert client.started[client.nodes[100]] > 0


def slow(clock: FakeClock, seconds: dict[str, float], answer: Answer = OK) -> Answer:
    """Each host takes its time."""

    def reply(attempt: object) -> object:
        clock.advance(seconds.get(attempt.endpoint.address[0], 0.0))  # type: ignore[attr-defined]
        return answer(attempt)  # type: ignore[arg-type]

    return reply  # type: ignore[return-value]


def test_a_pool_learns_from_headers() -> None:
    """The pool observes each good answer; the slow endpoint gets few calls, and is not forgotten forever."""
    clock = FakeClock()
    pool = make_pool("a", "b", balancer="peak_ewma", clock=clock)
    hosts = [get(pool, slow(clock, {"a": 0.2, "b": 0.01}), clock).hosts[0] for _ in range(100)]
    assert hosts.count("a") < 10
    clock.advance(60)
    assert "a" in [get(pool, slow(clock, {"a": 0.02, "b": 0.01}), clock).hosts[0] for _ in range(50)]


@pytest.mark.parametrize("answer", [DOWN, respond(503), fail(Failure.BROKEN)])
def test_fast_failures_attract_nothing(answer: Answer) -> None:
    """Ejection is off: an endpoint that fails at once, from the start or later, gets few first attempts."""
    for known in (False, True):
        clock = FakeClock()
        pool = make_pool(
            "a",
            "b",
            clock=clock,
            balancer="peak_ewma",
            ejection=EjectionOptions(consecutive_failures=0, failure_percentage=100),
            retry=RetryOptions(budget_per_second=1000),
        )
        if known:
            for _ in range(20):
                get(pool, slow(clock, {"a": 0.01, "b": 0.01}), clock)
        firsts = [get(pool, slow(clock, {"b": 0.01}, by_host(a=answer)), clock).hosts[0] for _ in range(200)]
        assert firsts.count("a") < 20


def test_cancelled_calls_say_nothing() -> None:
    """Neither do requests that can't be sent."""
    clock = FakeClock()
    pool = make_pool("a", balancer="peak_ewma", clock=clock)
    for failure in (Failure.CANCELLED, Failure.LOCAL):
        finish(drive(pool, Call("GET"), fail(failure), clock, took=4.0))
    assert [one.rtt for one in pool._states.values()] == [0.0]


def test_the_decay_time_is_an_option() -> None:
    """With one second a slow answer is forgotten after a few."""
    clock = FakeClock()
    options = PeakEwmaOptions(decay_time=Duration(1))
    pool = make_pool(endpoint("a"), endpoint("b"), balancer="peak_ewma", clock=clock, peak_ewma=options)
    for _ in range(20):
        get(pool, slow(clock, {"a": 2.0, "b": 0.01}), clock)
    clock.advance(8)
    assert "a" in [get(pool, slow(clock, {"a": 0.01, "b": 0.01}), clock).hosts[0] for _ in range(20)]
