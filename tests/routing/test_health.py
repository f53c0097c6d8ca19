"""Active health checks: thresholds."""

from __future__ import annotations

import pytest

from support.routing import endpoint, get, make_pool, state
from unsticky.routing.events import HealthChanged
from unsticky.routing.health import observe_check
from unsticky.routing.options import HealthOptions


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
    ],
)
def test_thresholds(results: str, verdicts: str) -> None:
    """Three good ones in a row to come back, two bad ones to go."""
    one, options, seen = state("a"), HealthOptions(healthy_threshold=3, unhealthy_threshold=2), ""
    for now, result in enumerate(results):
        before = one.healthy
        changed = observe_check(one, result == "+", options, float(now))
        assert changed is (one.healthy is not before)
        seen += "+" if one.healthy else "-"
    assert seen == verdicts


def test_a_new_endpoint_is_used_before_its_first_check() -> None:
    """Unknown is not unhealthy: an app that just started must not refuse its first calls."""
    pool = make_pool("a")
    assert pool.snapshot()[0].healthy is None
    assert get(pool).status == 200


def test_changes_are_events() -> None:
    """One per change of mind, none per result; results about others are ignored."""
    pool = make_pool("a", "b")
    for ok in (True, True, False, False, False):
        pool.report_health(endpoint("a"), ok)
    pool.report_health(endpoint("gone"), False)
    assert pool.drain_events() == [HealthChanged(endpoint("a"), True), HealthChanged(endpoint("a"), False)]
    assert {get(pool).hosts[0] for _ in range(20)} == {"b"}
