"""What is counted of a pool's calls, beside what happened."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, OK, Answer, answers, drive, endpoint, get, make_pool, respond
from unsticky.errors import PoolOverflow
from unsticky.routing.call import Call
from unsticky.routing.options import EjectionOptions, LimitOptions, RetryOptions
from unsticky.routing.tally import GONE, Tally


def test_picks_and_calls() -> None:
    """A call is one, however many attempts it took; each attempt is a pick of its endpoint."""
    pool = make_pool("a", "b", retry=RetryOptions(backoff=0))
    get(pool, answers(DOWN, OK))
    get(pool)
    assert pool.tally.calls == 2
    assert sum(pool.tally.picks.values()) == 3
    assert pool.tally.picks.keys() == {"a:80", "b:80"}


def test_failures_and_retries_say_why() -> None:
    """By kind of failure or by status; a last failure is followed by no retry."""
    pool = make_pool("a", "b", "c", retry=RetryOptions(backoff=0))
    get(pool, answers(DOWN, respond(503), respond(503)))
    assert dict(pool.tally.failures) == {"connect": 1, "503": 2}
    assert dict(pool.tally.retries) == {"connect": 1, "503": 1}


def test_a_budget_that_is_empty() -> None:
    """Each retry that it denies is one; none for a call that would not be retried anyway."""
    pool = make_pool("a", "b", retry=RetryOptions(budget_ratio=0, budget_per_second=0))
    for _ in range(3):
        get(pool, respond(503))
    drive(pool, Call("POST"), respond(503))
    assert (pool.tally.denied, dict(pool.tally.retries)) == (3, {})


def test_ejections_and_overflows() -> None:
    """By the setting that was exceeded, or reached."""
    limits = LimitOptions(maximum_in_flight=1)
    pool = make_pool("a", "b", ejection=EjectionOptions(consecutive_failures=1), limits=limits)
    get(pool, answers(DOWN, OK))
    drive(pool, Call("GET"), OK)  # its body stays open
    assert isinstance(drive(pool, Call("GET"), OK).error, PoolOverflow)
    assert dict(pool.tally.ejections) == {"consecutive_failures": 1}
    assert dict(pool.tally.overflows) == {"maximum_in_flight": 1}


def test_endpoints_that_left_count_together() -> None:
    """No name is kept of them, and no pick is lost."""
    pool = make_pool("a", "b", balancer="round_robin")
    for _ in range(4):
        get(pool)
    pool.replace([endpoint("b"), endpoint("c")])
    for _ in range(2):
        get(pool)
    assert pool.tally.picks == {GONE: 2, "b:80": 3, "c:80": 1}


@given(st.lists(st.sampled_from([OK, DOWN, respond(503), respond(500)]), min_size=1, max_size=60))
def test_counts_agree_and_never_shrink(given_answers: list[Answer]) -> None:
    """picks = calls + retries, and failures are what was seen; whatever happened, no count ever falls."""
    pool, seen, sums = make_pool("a", "b"), Counter[str](), []
    left = list(given_answers)

    def answer(attempt: object) -> object:
        given = left.pop(0) if left else OK
        seen["good" if given is OK else "bad"] += 1
        return given(attempt)  # type: ignore[arg-type]

    while left:
        get(pool, answer)  # type: ignore[arg-type]
        sums.append(sum(pool.tally.failures.values()))
    tally = pool.tally
    assert sum(tally.picks.values()) == tally.calls + sum(tally.retries.values()) == seen.total()
    assert sum(tally.failures.values()) == seen["bad"]
    assert all(one <= other for one, other in pairwise(sums))


def test_adding() -> None:
    """The counts of a pool that is gone go into those of its name."""
    one, other = Tally(calls=1), Tally(calls=2, denied=3)
    one.picks["a:80"] = 1
    other.picks.update({"a:80": 4, "b:80": 1})
    one.add(other)
    assert (one.calls, one.denied, one.picks) == (3, 3, {"a:80": 5, "b:80": 1})
