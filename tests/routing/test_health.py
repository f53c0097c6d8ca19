"""Active health checks: thresholds."""

from __future__ import annotations

from random import Random

import pytest

from support.routing import endpoint, get, make_pool, state
from unsticky.routing.events import HealthChanged
from unsticky.routing.health import BAD, GOOD, CheckResult, judged, observe_check, pause, target
from unsticky.routing.options import HealthOptions
from unsticky.scalars import Duration

KNOWN = {"+": GOOD, "-": BAD, "!": CheckResult(False, decisive=True)}


@pytest.mark.parametrize(
    ("results", "verdicts"),
    [
        ("+", "+"),  # the first counts at once
        ("-", "-"),
        ("+-", "++"),
        ("+--", "++-"),
        ("+-+--", "++++-"),  # in a row
        ("-++", "---"),
        ("-+++", "---+"),
        ("-++-+++", "------+"),
        ("-+++--", "---++-"),
        ("+!", "+-"),  # decisive
        ("+!+++", "+---+"),
        ("+-!", "++-"),
    ],
)
def test_thresholds(results: str, verdicts: str) -> None:
    """Three good ones in a row to come back, two bad ones to go."""
    one, options, seen = state("a"), HealthOptions(healthy_threshold=3, unhealthy_threshold=2), ""
    for now, result in enumerate(results):
        before = one.healthy
        changed = observe_check(one, KNOWN[result], options, float(now))
        assert changed is (one.healthy is not before)
        seen += "+" if one.healthy else "-"
    assert seen == verdicts


def test_a_new_endpoint_is_used_before_its_first_check() -> None:
    """Unknown is not unhealthy: an app that just started must not refuse its first calls."""
    pool = make_pool("a")
    assert pool.snapshot()[0].healthy is None
    assert get(pool).status == 200


def test_a_first_good_check_changes_nothing_for_calls() -> None:
    """A pool of ten thousand is not ranked anew ten thousand times; a first bad check does count at once."""
    pool = make_pool("a", "b")
    before, _ = pool.ranking()
    pool.report_health(endpoint("a"), True)
    assert pool.ranking()[0] is before
    pool.report_health(endpoint("b"), False)
    assert {get(pool).hosts[0] for _ in range(20)} == {"a"}


def test_changes_are_events() -> None:
    """One per change of mind, none per result; results about others are ignored."""
    pool = make_pool("a", "b")
    for ok in (True, True, False, False, False):
        pool.report_health(endpoint("a"), ok)
    pool.report_health(endpoint("gone"), False)
    assert pool.drain_events() == [HealthChanged(endpoint("a"), True), HealthChanged(endpoint("a"), False)]
    assert {get(pool).hosts[0] for _ in range(20)} == {"b"}


@pytest.mark.parametrize(
    ("status", "body", "options", "expected"),
    [
        (200, "", {}, GOOD),
        (204, "", {}, GOOD),
        (201, "", {}, CheckResult(False, decisive=True)),
        (503, "", {}, CheckResult(False, decisive=True)),
        (503, "", {"retriable_statuses": {503}}, BAD),
        (500, "", {"retriable_statuses": {503}}, CheckResult(False, decisive=True)),
        (302, "", {"statuses": {302}}, GOOD),
        (200, "all well", {"body": "well"}, GOOD),
        (200, "unwell? no: ill", {"body": "healthy"}, BAD),
    ],
)
def test_what_an_answer_means(status: int, body: str, options: dict[str, object], expected: CheckResult) -> None:
    """A status that is not expected is the endpoint's own word; a body that is not may be cut short."""
    assert judged(status, {}, body, HealthOptions(**options)) == expected  # type: ignore[arg-type]


def test_a_degraded_answer() -> None:
    """By Envoy's header, whatever its value, or by another one; never of a bad answer."""
    assert judged(200, {"x-envoy-degraded": ""}, "", HealthOptions()).degraded
    assert judged(200, {"x-tired": "1"}, "", HealthOptions(degraded_header="X-Tired")).degraded
    assert not judged(200, {"x-envoy-degraded": ""}, "", HealthOptions(degraded_header="X-Tired")).degraded
    assert judged(503, {"x-envoy-degraded": ""}, "", HealthOptions()) == CheckResult(False, decisive=True)


def test_when_to_ask_again() -> None:
    """Seldom before the first call, at other times if unhealthy, and never two processes in step."""
    still = HealthOptions(interval=Duration(5), unhealthy_interval=Duration(2), jitter=0)
    assert pause(still, True, used=False, random=Random(1)) == 60
    assert pause(still, True, used=True, random=Random(1)) == pause(still, None, used=True, random=Random(1)) == 5
    assert pause(still, False, used=True, random=Random(1)) == 2
    assert pause(HealthOptions(interval=Duration(90)), True, used=False, random=Random(1)) >= 81
    random = Random(1)
    times = [pause(HealthOptions(), True, used=True, random=random) for _ in range(1000)]
    assert 4.5 <= min(times) < 4.6 < 5.4 < max(times) <= 5.5
    assert pause(HealthOptions(), False, used=True, random=random) >= 4.5


@pytest.mark.parametrize(
    ("url", "port", "expected"),
    [
        ("http://a:8000", None, ("http://a:8000", "a", 8000)),
        ("https://a", None, ("https://a:443", "a", 443)),
        ("http://a", 9000, ("http://a:9000", "a", 9000)),
        ("http://[::1]:80", 9000, ("http://[::1]:9000", "::1", 9000)),
    ],
)
def test_where_it_is_asked(url: str, port: int | None, expected: object) -> None:
    """The endpoint's own port, or the one for checks."""
    assert target(url, port) == expected


def test_subsets_are_watched_as_far_as_needed() -> None:
    """Those in use, and those that would be if they were well: so that they are seen to come back."""
    pool = make_pool(*(f"h{i}" for i in range(30)), subset_size=3)
    assert {one.address.partition(":")[0] for one in pool.watched()} == {get(pool).hosts[0] for _ in range(100)}
    first = pool.watched()
    assert len(first) == 3
    pool.report_health(first[0], False)
    assert set(pool.watched()) > set(first)
    assert len(pool.watched()) == 4
    for _ in range(2):
        pool.report_health(first[0], True)
    assert pool.watched() == first
    assert len(make_pool("a", "b").watched()) == 2
