"""May it be repeated, and when."""

from __future__ import annotations

from random import Random

import pytest

from unsticky.routing.call import Call
from unsticky.routing.classify import AWAY, FAULTY, FINE, LATER, SILENT, UNREACHABLE, Verdict
from unsticky.routing.options import RetryOptions
from unsticky.routing.retry import backoff, may_repeat
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
        (AWAY, Call("POST", idempotent=True), True),
        (AWAY, Call("GET", idempotent=False), False),
        (AWAY, Call("POST", replayable=False, idempotent=True), False),
        (AWAY, Call("POST", retry=False, idempotent=True), False),
        (UNREACHABLE, Call("POST", idempotent=False), True),
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
