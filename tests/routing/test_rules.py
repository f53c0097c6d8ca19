"""Rules: which conditions hold, which rule counts, and where in its pool a call then goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, OK, by_host, drive, endpoint, get, make_pool
from unsticky.errors import NoHealthyEndpoint, PoolOverflow
from unsticky.routing.call import Call
from unsticky.routing.error_rate import ErrorRate
from unsticky.routing.failover_options import RuleOptions, WhenOptions
from unsticky.routing.options import LimitOptions, RetryOptions
from unsticky.routing.rules import Glob, Preference, decide, on_time, rules_from
from unsticky.testing import FakeClock

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC).timestamp()  # a Friday


@dataclass
class Given:
    """Facts, as a test gives them."""

    method_: str = "GET"
    path_: str = "/items"
    headers: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    fit: float = 100.0
    errors: tuple[float, int] = (0.0, 0)
    calls: int = 0
    now: float = NOON

    def method(self) -> str:
        return self.method_

    def path(self) -> str:
        return self.path_

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    def query(self, name: str) -> str | None:
        return self.parameters.get(name)

    def fit_percent(self) -> float:
        return self.fit

    def error_rate(self, window: float) -> tuple[float, int]:
        assert window == 10
        return self.errors

    def in_flight(self) -> int:
        return self.calls

    def time(self) -> float:
        return self.now


def rule(use_pool: str = "other", name: str | None = None, **when: Any) -> RuleOptions:
    return RuleOptions(when=WhenOptions(**when), use_pool=use_pool, name=name)


HOLDS: list[tuple[dict[str, Any], Given, bool]] = [
    ({"method": ("POST", "GET")}, Given(), True),
    ({"method": ("POST",)}, Given(), False),
    ({"path": ("/items",)}, Given(), True),
    ({"path": ("/items/*",)}, Given(), False),
    ({"path": ("/a", "/it*")}, Given(), True),
    ({"header": {"x-tenant": "big-*"}}, Given(headers={"x-tenant": "big-1"}), True),
    ({"header": {"x-tenant": "*"}}, Given(), False),
    ({"query": {"v": "2"}}, Given(parameters={"v": "2"}), True),
    ({"query": {"v": "2", "w": "*"}}, Given(parameters={"v": "2"}), False),
    ({"healthy_below": 50}, Given(fit=50), False),
    ({"healthy_below": 50}, Given(fit=49), True),
    ({"error_rate_above": 10}, Given(errors=(10.0, 20)), False),
    ({"error_rate_above": 10}, Given(errors=(10.1, 20)), True),
    ({"error_rate_above": 10}, Given(errors=(100.0, 19)), False),
    ({"load_above": 80}, Given(calls=80), False),
    ({"load_above": 80}, Given(calls=81), True),
    ({"in_flight_above": 5}, Given(calls=6), True),
    ({"between": "11:00-12:00"}, Given(), False),
    ({"between": "12:00-12:01"}, Given(), True),
    ({"between": "13:00-14:00", "timezone": "Europe/Berlin"}, Given(), True),
    ({"weekdays": ("sat",)}, Given(), False),
    ({"method": ("GET",), "healthy_below": 50}, Given(), False),
    ({"method": ("GET",), "healthy_below": 50}, Given(fit=0), True),
]


@pytest.mark.parametrize(("when", "facts", "holds"), HOLDS)
def test_conditions(when: dict[str, Any], facts: Given, holds: bool) -> None:
    """All that is given must hold."""
    rules = rules_from([rule(**when)], 100, ZoneInfo)
    assert (decide(rules, facts) is not None) is holds


def test_the_first_that_holds_counts() -> None:
    """Later ones are not looked at; a rule without a name has its number."""
    rules = rules_from([rule(path=("/b",)), rule("second", path=("*",)), rule("third", path=("/*",))], None, ZoneInfo)
    found = decide(rules, Given())
    assert found is not None
    assert (found.pool, found.label) == ("second", "1")
    assert decide(rules_from([rule(name="night", path=("*",))], None, ZoneInfo), Given()).label == "night"  # type: ignore[union-attr]
    assert decide((), Given()) is None


@pytest.mark.parametrize(
    ("moment", "between", "weekdays", "expected"),
    [
        ("2026-11-27T22:00", "22:00-06:00", ("fri",), True),
        ("2026-11-28T05:59", "22:00-06:00", ("fri",), True),
        ("2026-11-28T06:00", "22:00-06:00", ("fri",), False),
        ("2026-11-27T05:59", "22:00-06:00", ("fri",), False),
        ("2026-11-27T23:59", "00:00-24:00", (), True),
        ("2026-11-29T10:00", None, ("sat", "sun"), True),
    ],
)
def test_over_midnight(moment: str, between: str | None, weekdays: tuple[str, ...], expected: bool) -> None:
    """The end is excluded, and the weekday is that of the evening."""
    assert on_time(datetime.fromisoformat(moment), between, weekdays) is expected


@given(st.text("ab*", max_size=6), st.text("ab", max_size=10))
def test_globs(pattern: str, text: str) -> None:
    """As the shell has them, of which only the star is special."""
    assert Glob(pattern).matches(text) is fnmatchcase(text, pattern)


def test_brackets_and_question_marks_are_themselves() -> None:
    """They are common in queries."""
    assert Glob("[a]?").matches("[a]?")
    assert not Glob("[a]?").matches("ab")


@given(st.lists(st.tuples(st.floats(0, 4), st.booleans()), max_size=60), st.floats(0, 30))
def test_an_error_rate_is_that_of_its_window(calls: list[tuple[float, bool]], later: float) -> None:
    """What ended within nine tenths of the window counts, what is older than the window does not."""
    rate, times = ErrorRate(10.0, 0.0), list(accumulate(pause for pause, _ in calls))
    for moment, (_, failed) in zip(times, calls, strict=True):
        rate.observe(failed, moment)
    now = (times[-1] if times else 0.0) + later
    percent, count = rate.percent(now)
    young = [failed for moment, (_, failed) in zip(times, calls, strict=True) if now - moment < 9]
    old = [failed for moment, (_, failed) in zip(times, calls, strict=True) if now - moment < 10.001]
    assert len(young) <= count <= len(old)
    assert sum(young) <= rate.errors <= sum(old)
    assert percent == (100 * rate.errors / count if count else 0)


def hosts(pool: Any, prefer: Preference, answer: Any = OK, **call: Any) -> list[str]:
    run = get(pool, answer, prefer=prefer, **call)
    return [*run.hosts, *([type(run.error).__name__] if run.error else [])]


LEVELS = (endpoint("a"), endpoint("b"), endpoint("c", priority=1), endpoint("d", priority=1))
RETRY = RetryOptions(backoff=0, attempts=4)


def test_a_level_first() -> None:
    """The call begins there, its retries use what is left there, and then go on elsewhere."""
    pool = make_pool(*LEVELS, retry=RETRY)
    tried = hosts(pool, Preference(priority=1), DOWN)
    assert [sorted(tried[:2]), sorted(tried[2:-1])] == [["c", "d"], ["a", "b"]]
    assert hosts(pool, Preference(priority=7))[0] in "ab"


def test_a_level_without_fit_endpoints() -> None:
    """It is no preference, unless it is the only place."""
    pool = make_pool(*LEVELS, retry=RETRY)
    for one in pool.endpoints[2:]:
        pool.report_health(one, False)
    assert hosts(pool, Preference(priority=1))[0] in "ab"
    assert hosts(pool, Preference(priority=1, only=True)) == ["NoHealthyEndpoint"]


def test_a_level_only() -> None:
    """Retries stay there, one endpoint after the other."""
    tried = hosts(make_pool(*LEVELS, retry=RETRY), Preference(priority=1, only=True), DOWN)
    assert sorted(tried[:4]) == ["c", "c", "d", "d"]


def test_an_endpoint_first() -> None:
    """Once; then the others."""
    pool = make_pool(*LEVELS, retry=RETRY)
    answer = by_host(c=DOWN)
    assert hosts(pool, Preference(url="http://c:80"), answer)[0] == "c"
    assert hosts(pool, Preference(url="http://c:80"), answer)[1] in "ab"
    pool.report_health(pool.endpoints[2], False)
    assert "c" not in hosts(pool, Preference(url="http://c:80"))


def test_an_endpoint_only() -> None:
    """Again and again, unfit too; but draining it gets nothing."""
    pool = make_pool(*LEVELS, retry=RETRY)
    prefer = Preference(url="http://c:80", only=True)
    assert hosts(pool, prefer, DOWN) == ["c"] * 4 + ["AttemptsFailed"]
    pool.drain("http://c:80")
    assert hosts(pool, prefer) == ["NoHealthyEndpoint"]


def test_a_full_preference() -> None:
    """Another place on the level, then anywhere; with `only` the call overflows."""
    pool = make_pool(*LEVELS, retry=RETRY, limits=LimitOptions(maximum_in_flight_per_endpoint=1))
    for _ in range(2):
        assert drive(pool, Call("GET", prefer=Preference(priority=1)), OK).hosts[0] in "cd"
    assert hosts(pool, Preference(priority=1))[0] in "ab"
    assert hosts(pool, Preference(priority=1, only=True)) == ["PoolOverflow"]
    assert hosts(pool, Preference(url="http://c:80"))[0] in "ab"
    error = drive(pool, Call("GET", prefer=Preference(url="http://c:80", only=True)), OK).error
    assert isinstance(error, PoolOverflow)


def test_nothing_unfit_where_the_pool_says_so() -> None:
    """`panic_threshold = 0` holds for rules as well."""
    pool = make_pool(*LEVELS, panic_threshold=0, clock=FakeClock())
    pool.report_health(pool.endpoints[2], False)
    run = drive(pool, Call("GET", prefer=Preference(url="http://c:80", only=True)), OK)
    assert isinstance(run.error, NoHealthyEndpoint)
