"""May it be repeated, and when."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsticky.routing.call import Call
from unsticky.routing.classify import AWAY, FAULTY, FINE, LATER, SILENT, UNREACHABLE, Verdict
from unsticky.routing.options import RetryOptions
from unsticky.routing.retry import backoff, may_repeat, retry_after
from unsticky.scalars import Duration

OPTIONS = RetryOptions()


@pytest.mark.parametrize(
    ("verdict", "call", "expected"),
    [
        (AWAY, Call("GET"), True),
        (AWAY, Call("PUT"), True),
        (AWAY, Call("POST"), False),
        (AWAY, Call("PATCH"), False),
        (AWAY, Call("PUT", replayable=False), False),
        (AWAY, Call("GET", retry=False), False),
        (LATER, Call("GET"), True),
        (LATER, Call("POST"), False),
        (UNREACHABLE, Call("POST"), True),
        (UNREACHABLE, Call("POST", replayable=False), True),
        (UNREACHABLE, Call("GET", retry=False), False),
        (FAULTY, Call("GET"), False),
        (SILENT, Call("GET"), False),
        (FINE, Call("GET"), False),
    ],
)
def test_what_may_be_repeated(verdict: Verdict, call: Call, expected: bool) -> None:
    """Unsent: anything. Else idempotent methods with bodies that can be sent again."""
    assert may_repeat(verdict, call, OPTIONS) is expected


@pytest.mark.parametrize(("retry", "most"), [(1, 0.025), (2, 0.075), (3, 0.175), (4, 0.25), (5, 0.25), (10_000, 0.25)])
def test_backoff_is_full_jitter(retry: int, most: float) -> None:
    """Over all of [0, (2^n - 1) * 25 ms), capped at 250 ms."""
    random = Random(3)
    drawn = [backoff(retry, OPTIONS, random) for _ in range(2000)]
    assert 0 <= min(drawn) < most * 0.01
    assert most * 0.99 < max(drawn) < most
    assert abs(sum(drawn) / len(drawn) - most / 2) < most * 0.03


def test_no_backoff_is_no_wait() -> None:
    """Zero is zero."""
    assert backoff(3, RetryOptions(backoff=Duration(0)), Random(1)) == 0


NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's own example


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("soon", None),
        ("٣", None),
        ("9" * 5000, float("inf")),
        ("Sun, 99 Nov 1994 08:49:47 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds and dates as RFC 9110 10.2.3 has them; a date gone by is now; junk is nothing."""
    assert retry_after(header, NOW) == seconds


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ (GMT|[-+]\d+)"))
def test_retry_after_takes_anything(header: str) -> None:
    """Servers send what they like: never an exception, never a negative wait."""
    seconds = retry_after(header, NOW)
    assert seconds is None or seconds >= 0
