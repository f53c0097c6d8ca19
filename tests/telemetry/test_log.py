"""Log lines of pools: which, with what, and how many."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from support.otlp import telemetry
from support.routing import DOWN, endpoint, get, make_pool
from unsticky.routing.options import EjectionOptions, LimitOptions
from unsticky.telemetry import log
from unsticky.telemetry.log import MOST, RateLimit, pool_line
from unsticky.telemetry.pool_events import report
from unsticky.testing import FakeClock


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Generator[None]:
    monkeypatch.setattr(log, "_limit", RateLimit())
    with caplog.at_level(logging.INFO, "unsticky.routing"):
        yield


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def test_what_happens_to_a_pool(caplog: pytest.LogCaptureFixture) -> None:
    """Bad news are warnings, good news are not."""
    clock = FakeClock()
    ejection = EjectionOptions(consecutive_failures=1, maximum_percent=100)
    pool = make_pool("a", endpoint("b", priority=1), clock=clock, ejection=ejection)
    get(pool, DOWN, retry=False)
    get(pool, DOWN, retry=False)
    clock.advance(31)
    get(pool)
    report(pool)
    assert lines(caplog) == [
        "WARNING pool 'catalog': a:80 is ejected for 30.0 s (consecutive_failures, failures: 1)",
        "WARNING pool 'catalog': calls go to priority 1 now, before to 0",
        "WARNING pool 'catalog': b:80 is ejected for 30.0 s (consecutive_failures, failures: 1)",
        "INFO pool 'catalog': a:80 is back from its ejection",
        "INFO pool 'catalog': b:80 is back from its ejection",
        "INFO pool 'catalog': calls go to priority 0 now, before to 1",
    ]


def test_health_panic_and_overflow(caplog: pytest.LogCaptureFixture) -> None:
    """What was found out, and that a call found no place."""
    pool = make_pool("a", limits=LimitOptions(maximum_in_flight=1))
    pool.report_health(pool.endpoints[0], False)
    pool.lease(None, [], 0.0)
    get(pool)
    report(pool)
    assert lines(caplog) == [
        "INFO pool 'catalog': the checks call a:80 unhealthy",
        "WARNING pool 'catalog': too few endpoints are fit, unfit ones are used too",
        "WARNING pool 'catalog': a call found no place, limits.maximum_in_flight is reached",
    ]


def test_fields_for_formatters(caplog: pytest.LogCaptureFixture) -> None:
    """All that the line says is there by itself, with the ids of the caller's span."""
    with telemetry(), trace.get_tracer("the app").start_as_current_span("caller") as span:
        pool_line("catalog", "ejection", {"endpoint": "a:80", "seconds": 30.0, "failures": 5, "cause": "x"}, 0.0)
    (record,) = caplog.records
    found = {name: value for name, value in vars(record).items() if name.startswith("unsticky_")}
    assert found == {
        "unsticky_event": "ejection",
        "unsticky_pool": "catalog",
        "unsticky_endpoint": "a:80",
        "unsticky_seconds": 30.0,
        "unsticky_failures": 5,
        "unsticky_cause": "x",
        "unsticky_suppressed": 0,
    }
    context = span.get_span_context()
    ids = (trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id))
    assert (record.trace_id, record.span_id) == ids  # type: ignore[attr-defined]


def test_a_flood_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Per event, pool and endpoint; the first line of the next minute says how many were left out."""
    for _ in range(MOST + 7):
        pool_line("catalog", "overflow", {"limit": "maximum_in_flight"}, 5.0)
    pool_line("other", "overflow", {"limit": "maximum_in_flight"}, 5.0)
    assert len(caplog.records) == MOST + 1
    pool_line("catalog", "overflow", {"limit": "maximum_in_flight"}, 65.0)
    assert lines(caplog)[-1].endswith("is reached (7 more like this were left out)")
    assert caplog.records[-1].unsticky_suppressed == 7  # type: ignore[attr-defined]


def test_a_logger_that_is_off_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What is not logged does not use up the minute's lines."""
    with caplog.at_level(logging.ERROR, "unsticky.routing"):
        for _ in range(MOST * 2):
            pool_line("catalog", "overflow", {"limit": "x"}, 0.0)
    pool_line("catalog", "overflow", {"limit": "x"}, 0.0)
    assert len(caplog.records) == 1


@given(st.lists(st.tuples(st.floats(0, 40), st.sampled_from("ab")), max_size=80), st.integers(1, 5))
def test_the_limit(events: list[tuple[float, str]], most: int) -> None:
    """Never more than twice `most` within a minute, and what is left out is told or still counted."""
    limit, now, told, allowed = RateLimit(most), 0.0, 0, dict[str, list[float]](a=[], b=[])
    for pause, key in events:
        now += pause
        left_out = limit.left_out((key,), now)
        if left_out is not None:
            told += left_out
            allowed[key].append(now)
    for times in allowed.values():
        assert all(sum(one <= other < one + 60 for other in times) <= 2 * most for one in times)
    pending = sum(max(0, count - most) for _, count in limit._seen.values())
    assert sum(map(len, allowed.values())) + told + pending == len(events)


def test_what_is_remembered_is_bounded() -> None:
    """Endpoints come and go."""
    limit = RateLimit(kept=10)
    for number in range(100):
        limit.left_out((str(number),), 0.0)
    assert len(limit._seen) == 10
