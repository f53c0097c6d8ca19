"""Weights from load reports (gRFC A58, A114; Envoy's orca_weight_manager_test) and slow start."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsticky.routing.load_report import LoadReport
from unsticky.routing.stride import StrideSequence
from unsticky.routing.weight_options import LoadReportOptions, SlowStartOptions
from unsticky.routing.weights import Reported, relative, reported_weight, slow_start, utilization
from unsticky.scalars import Duration

REPORT = LoadReport(application_utilization=0.5, cpu_utilization=0.6, named_metrics={"foo": 0.3, "x.y": 0.9})


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ((), 0.5),
        (("named_metrics.foo",), 0.3),
        (("named_metrics.foo", "cpu_utilization"), 0.6),
        (("named_metrics.x.y",), 0.9),
        (("named_metrics.none", "utilization.bandwidth"), 0.5),
    ],
)
def test_configured_metrics_come_first(metrics: tuple[str, ...], expected: float) -> None:
    """The highest of the configured ones, else application_utilization, else cpu_utilization."""
    assert utilization(REPORT, metrics) == expected
    assert utilization(LoadReport(cpu_utilization=0.4), ("named_metrics.none",)) == 0.4
    assert utilization(LoadReport(mem_utilization=0.4), ()) == 0


@pytest.mark.parametrize(
    ("qps", "eps", "used", "penalty", "expected"),
    [
        (1000, 0, 0.5, 0, 2000),
        (1000, 100, 0.5, 2.0, 1428),
        (1000, 100, 0.5, 0, 2000),
        (0, 0, 0.5, 0, 0),
        (1000, 0, 0, 0, 0),
        (1e308, 0, 1e-300, 0, 2**32 - 1),
        (1e-300, 1e300, 1, 1, 0),
        (nan, 0, 1, 0, 0),
        (1000, 0, nan, 0, 0),
    ],
)
def test_weights_of_envoy(qps: float, eps: float, used: float, penalty: float, expected: int) -> None:
    """The vectors of orca_weight_manager_test: penalty, no rate, no utilization, more than an integer holds."""
    assert int(reported_weight(qps, eps, used, penalty)) == expected


def options(**fields: float) -> LoadReportOptions:
    return LoadReportOptions(enabled=True, **{name: Duration(value) for name, value in fields.items()})  # type: ignore[arg-type]


def test_blackout() -> None:
    """Envoy: reports since 5, the last at 10; a blackout that reaches back to 2 hides them, and forgets nothing."""
    one = Reported(weight=42.0, non_empty_since=5.0, updated=10.0)
    assert one.current(options(blackout=10), 12.0, 0.0) == 0
    assert one.non_empty_since == 5.0
    assert one.current(options(blackout=10), 15.0, 0.0) == 42
    assert one.current(options(blackout=0), 12.0, 0.0) == 42


def test_expiry() -> None:
    """Envoy: the last at 7, and none before 8 counts: the blackout begins anew with the next."""
    one = Reported(weight=42.0, non_empty_since=1.0, updated=7.0)
    assert one.current(options(expiry=4, blackout=1), 12.0, 0.0) == 0
    assert one.non_empty_since == inf
    one.observe(LoadReport(cpu_utilization=0.5, rps_fractional=10), options(), 13.0)
    assert one.current(options(expiry=4, blackout=1), 13.5, 0.0) == 0
    assert one.current(options(expiry=4, blackout=1), 14.0, 0.0) == 20


def test_coming_back_begins_a_blackout() -> None:
    """What an endpoint said before it was gone is no more used."""
    one = Reported(weight=42.0, non_empty_since=5.0, updated=30.0)
    assert one.current(options(), 31.0, 20.0) == 0
    assert one.current(options(), 41.0, 20.0) == 0
    one.observe(LoadReport(cpu_utilization=0.5, rps_fractional=10), options(), 42.0)
    assert one.current(options(), 51.9, 20.0) == 0
    assert one.current(options(), 52.0, 20.0) == 20


def test_a_report_without_weight_changes_nothing() -> None:
    """Neither the weight nor its age (gRFC A58)."""
    one = Reported(weight=42.0, non_empty_since=5.0, updated=10.0)
    one.observe(LoadReport(rps_fractional=100), options(), 20.0)
    one.observe(LoadReport(cpu_utilization=0.5), options(), 20.0)
    assert (one.weight, one.updated) == (42.0, 10.0)


def test_own_rate_stands_in() -> None:
    """Reports without a rate, such as vLLM's, are weighed with the calls that we made, over a period or more."""
    one, report = Reported(), LoadReport(named_metrics={"kv": 0.25})
    ours = LoadReportOptions(enabled=True, metrics=("named_metrics.kv",), blackout=Duration(0))

    def heard(calls: int, at: float) -> float:
        one.calls += calls
        one.observe(report, ours, at)
        return one.current(ours, at, 0.0)

    assert heard(1, 100.0) == 0  # nothing to count from yet
    assert heard(30, 100.5) == 0
    assert heard(20, 102.0) == pytest.approx(25 / 0.25)
    assert heard(1, 200.0) == pytest.approx(100)  # one call in 98 s is no measure of a burst that begins
    assert heard(50, 201.0) == pytest.approx(100 + (50 / 0.25 - 100) / 4)  # smoothed


def test_errors_of_all_callers_do_not_count_against_our_rate() -> None:
    """Without a rate of its own, an endpoint's errors per second have nothing to be compared with."""
    one = Reported(calls=10, counted_since=0.0)
    one.observe(LoadReport(cpu_utilization=0.5, eps=1000), options(), 1.0)
    assert one.weight == pytest.approx(20)


@pytest.mark.parametrize(
    ("reported", "static", "expected"),
    [
        ([42, 0, 0], [1, 1, 1], [1, 1, 1]),
        ([0, 0], [3, 1], [3, 1]),
        ([42, 0], [3, 1], [3, 1]),
        ([1, 3, 0], [1, 1, 1], [0.5, 1.5, 1]),
        ([1, 3, 0], [2, 2, 4], [1, 3, 4]),
        ([300, 100], [3, 1], [3, 1]),
        ([100, 100], [3, 1], [2, 2]),
        ([0], [5], [5]),
        ([], [], []),
    ],
)
def test_reported_weights_in_the_measure_of_static_ones(
    reported: list[float], static: list[float], expected: list[float]
) -> None:
    """One report alone is none; those without one get the mean (gRPC); static weights are not counted twice."""
    assert relative(reported, static) == pytest.approx(expected)


@given(st.lists(st.floats(1e-9, 4e9), min_size=2, max_size=30))
def test_no_report_takes_all_or_leaves_none(reported: list[float]) -> None:
    """gRPC C++'s bounds: a tenth of the mean, and ten times."""
    mean = sum(reported) / len(reported)
    weights = relative(reported, [1.0] * len(reported))
    assert sum(weights) == pytest.approx(len(reported))
    assert max(weights) / min(weights) <= 100 * (1 + 1e-9)
    if all(mean / 10 <= weight <= mean * 10 for weight in reported):
        assert weights == pytest.approx([weight / mean for weight in reported])


@pytest.mark.parametrize(
    ("age", "aggression", "least", "expected"),
    [
        (0, 1, 10, 0.1),
        (1, 1, 0, 1 / 60),
        (0.2, 1, 0, 1 / 60),
        (15, 1, 10, 0.25),
        (30, 1, 10, 0.5),
        (60, 1, 10, 1.0),
        (1e9, 1, 10, 1.0),
        (15, 2, 10, 0.5),
        (15, 0.5, 0, 0.0625),
        (15, 1, 40, 0.4),
        (15, 1, 100, 1.0),
    ],
)
def test_slow_start(age: float, aggression: float, least: float, expected: float) -> None:
    """max(minimum_percent, (max(age, 1) / window) ^ (1 / aggression)), of Envoy's slow_start.rst."""
    given = SlowStartOptions(window=Duration(60), aggression=aggression, minimum_percent=least)
    assert slow_start(age, given) == pytest.approx(expected)


def test_a_short_slow_start() -> None:
    """Nothing begins above its weight, and a window of 0 is none."""
    assert slow_start(0.1, SlowStartOptions(window=Duration(0.5))) == 1
    assert slow_start(0, SlowStartOptions()) == 1


def turns(weights: list[float], count: int, start: int = 0) -> list[int]:
    sequence = StrideSequence(weights, start)
    return [sequence.turn() for _ in range(count)]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([5, 1, 1], [0, 2, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0, 0]),
        ([1, 3, 0], [1, 2, 1, 2, 0, 1, 1, 2, 1, 2, 0, 1, 1, 2]),
        ([7, 7, 7], [0, 1, 2, 0, 1, 2]),
        ([0, 0], [0, 1, 0, 1]),
    ],
)
def test_static_stride_is_grpc(weights: list[float], expected: list[int]) -> None:
    """The picks of grpc-go's scheduler from 0: unequal weights, the mean for 0, equal ones, none at all."""
    assert turns(weights, len(expected)) == expected


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=8), st.integers(0, 1 << 20))
def test_static_stride_gives_each_its_weight(weights: list[float], start: int) -> None:
    """From any start the shares of many turns are the weights'."""
    count = 4000
    seen = turns(weights, count, start)
    for index, weight in enumerate(weights):
        assert abs(seen.count(index) - count * weight / sum(weights)) <= len(weights) + 0.001 * count
