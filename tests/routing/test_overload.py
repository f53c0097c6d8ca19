"""Ejection while endpoints are overrun, and after all of them failed: no outlier, nobody to spare, all back at once."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, OK, Answer, by_host, drive, endpoint, fail, finish, make_pool, respond, state
from unsticky.routing.call import Call, Failure
from unsticky.routing.classify import Fault
from unsticky.routing.ejection import common, overload_in_a_row, overload_mostly
from unsticky.routing.events import Ejected, Returned
from unsticky.routing.options import EjectionOptions
from unsticky.routing.outliers import Outliers
from unsticky.routing.pool import Pool
from unsticky.testing import FakeClock

LATE = fail(Failure.TIMEOUT)
FULL = respond(503)
TEN = "abcdefghij"
DEFAULT = EjectionOptions()


def pool_of(names: str, clock: FakeClock | None = None, **options: int) -> Pool:
    return make_pool(*names, clock=clock, balancer="round_robin", ejection=EjectionOptions(**options))  # type: ignore[arg-type]


def calls(pool: Pool, answer: Answer, rounds: int = 20) -> None:
    """Each endpoint that is in its turn gets one in each round."""
    for _ in range(rounds * len(pool.endpoints)):
        finish(drive(pool, Call("POST", retry=False), answer))


def out(pool: Pool) -> str:
    return "".join(one.endpoint.address[0] for one in pool.snapshot() if one.ejected_for)


@pytest.mark.parametrize("answer", [LATE, FULL, respond(504)])
@pytest.mark.parametrize("names", ["ab", "abc", TEN])
def test_an_overrun_pool_stays_whole(names: str, answer: Answer) -> None:
    """Two of three calls of all endpoints fail as in an overload: at times five in a row do, and nobody is ejected."""
    turns = Random(1)
    pool = pool_of(names)
    calls(pool, lambda attempt: (answer if turns.random() < 0.67 else OK)(attempt), 100)
    assert not [event for event in pool.drain_events() if isinstance(event, Ejected)]


def test_without_the_limits_it_would_be_cut_in_half() -> None:
    """So the test above says something."""
    turns = Random(1)
    pool = pool_of(TEN, maximum_overload_percent=100)
    calls(pool, lambda attempt: (FULL if turns.random() < 0.67 else OK)(attempt), 100)
    assert len(out(pool)) == 5


@pytest.mark.parametrize(
    ("names", "ill", "ejected"),
    [
        ("a", "a", "a"),
        ("ab", "a", "a"),
        ("abc", "a", "a"),
        ("abc", "ab", ""),  # half of what others do fails so: it is not one of them
        (TEN, "a", "a"),
        (TEN, "ab", "ab"),
        (TEN, "abc", ""),  # two of the nine others are more than 20 %
    ],
)
def test_the_few_that_hang_are_ejected(names: str, ill: str, ejected: str) -> None:
    """While the others do well, and at most a fifth of the pool. One always may be."""
    pool = pool_of(names)
    calls(pool, by_host(**dict.fromkeys(ill, LATE)))
    assert len(out(pool)) == len(ejected)
    assert set(out(pool)) <= set(ill)


@pytest.mark.parametrize("answer", [DOWN, respond(500), respond(502), fail(Failure.BROKEN)])
def test_what_no_overload_explains_ejects_as_before(answer: Answer) -> None:
    """Two of three, and half of ten."""
    for names, ill, count in (("abc", "ab", 2), (TEN, "abcdef", 5)):
        pool = pool_of(names)
        calls(pool, by_host(**dict.fromkeys(ill, answer)))
        assert len(out(pool)) == count


def test_more_than_the_share_are_not_ejected_one_after_the_other() -> None:
    """The third of ten hangs when two are out, and gets no more calls of others: it stays, for there is no room."""
    pool = pool_of(TEN)
    for ill in ("a", "ab", "abc"):
        calls(pool, by_host(**dict.fromkeys(ill, LATE)))
    assert out(pool) == "ab"


def test_a_smaller_maximum_holds_for_both() -> None:
    """`maximum_overload_percent` never allows more than `maximum_percent`."""
    pool = pool_of(TEN, maximum_percent=10, maximum_overload_percent=100)
    calls(pool, by_host(a=LATE, b=LATE, c=LATE))
    assert len(out(pool)) == 1


def test_an_endpoint_that_dies_while_it_is_overrun_is_ejected() -> None:
    """Its five refused connections are enough, whatever else it and the others failed by."""
    pool = pool_of(TEN)
    calls(pool, FULL, 10)
    assert out(pool) == ""
    calls(pool, by_host(**{**dict.fromkeys(TEN, FULL), "a": DOWN}), 4)
    assert out(pool) == ""
    calls(pool, by_host(**{**dict.fromkeys(TEN, FULL), "a": DOWN}), 1)
    assert out(pool) == "a"


def test_which_kind_a_run_is_of() -> None:
    """Of overload, unless those of other kinds are enough by themselves."""
    for hard, broken, overload in ((5, 0, False), (4, 0, True), (4, 1, False), (0, 0, True)):
        one = state("a", failures=9, hard_failures=hard, broken_bodies=broken)
        assert overload_in_a_row(one, "consecutive_failures", DEFAULT) is overload
    split = EjectionOptions(split_local_failures=True, consecutive_local_failures=3)
    assert not overload_in_a_row(state("a", hard_failures=3), "consecutive_local_failures", split)
    assert overload_in_a_row(state("a", hard_failures=2), "consecutive_local_failures", split)


def test_which_kind_a_rate_is_of() -> None:
    """Of that of most failures."""
    for overloaded, overload in ((0, False), (10, False), (11, True), (20, True)):
        assert overload_mostly(state("a", observed=50, succeeded=30, overloaded=overloaded)) is overload


def test_others_share_the_trouble_or_do_not() -> None:
    """More than `maximum_overload_percent` of their calls."""
    assert not common(0, 0, DEFAULT)  # nobody else was called
    assert not common(80, 20, DEFAULT)
    assert common(79, 20, DEFAULT)
    assert not common(0, 9, EjectionOptions(maximum_overload_percent=100))


@pytest.mark.parametrize(("answer", "most"), [(LATE, 2), (respond(500), 5)])
def test_a_sweep_keeps_the_share_of_the_kind(answer: Answer, most: int) -> None:
    """All fail nine of ten calls, which is more than `failure_percentage`."""
    clock = FakeClock()
    pool = pool_of(TEN, clock, consecutive_failures=0)
    count = [0]

    def mostly(attempt: object) -> object:
        count[0] += 1
        return (OK if count[0] // 10 % 10 == 0 else answer)(attempt)  # type: ignore[arg-type]

    calls(pool, mostly, 100)  # type: ignore[arg-type]
    clock.advance(10)
    assert len(out(pool)) == most


def test_after_a_total_outage_all_are_back_with_the_first_success() -> None:
    """Half of them were ejected, for what they all had in common."""
    pool = pool_of(TEN)
    calls(pool, DOWN)
    gone = out(pool)
    assert len(gone) == 5
    pool.drain_events()
    finish(drive(pool, Call("GET"), OK))
    assert out(pool) == ""
    assert pool.drain_events() == [Returned(endpoint(name)) for name in gone]
    assert all(one.reason == "" for one in pool.snapshot())


def test_what_was_seen_in_an_outage_ejects_nobody_after_it() -> None:
    """The sweep that comes after the outage looks at what came after it, too."""
    clock = FakeClock()
    pool = pool_of(TEN, clock)
    calls(pool, DOWN, 100)
    clock.advance(9)
    calls(pool, OK, 10)
    assert out(pool) == ""
    clock.advance(9)
    calls(pool, OK, 1)
    clock.advance(9)
    assert out(pool) == ""


def test_after_all_were_ejected_the_first_success_is_not_left_alone() -> None:
    """It would have all calls to bear."""
    pool = pool_of("abc", maximum_percent=100)
    calls(pool, DOWN)
    assert out(pool) == "abc"
    finish(drive(pool, Call("GET"), OK))
    assert out(pool) == ""


def test_while_one_is_well_the_others_stay_out() -> None:
    """It failed now and then, but not so often that it would have been ejected."""
    pool = pool_of("abc")
    turns = Random(2)
    calls(pool, by_host(a=DOWN, b=DOWN, c=lambda attempt: (DOWN if turns.random() < 0.3 else OK)(attempt)), 40)
    assert out(pool) == "ab"
    assert not [event for event in pool.drain_events() if isinstance(event, Returned)]


@pytest.mark.parametrize("spare", ["draining", "unhealthy"])
def test_endpoints_that_get_no_calls_are_not_well(spare: str) -> None:
    """The outage was total for those that may be called."""
    pool = pool_of("abc")
    if spare == "draining":
        pool.drain("c:80")
    else:
        for _ in range(2):
            pool.report_health(endpoint("c"), False)
    calls(pool, DOWN)
    assert len(out(pool)) == 2
    finish(drive(pool, Call("GET"), OK))
    assert out(pool) == ""


KINDS = [(fault, overload) for fault in Fault for overload in (False, True)]
STEPS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, *KINDS])), max_size=400)


@given(STEPS, st.integers(0, 100), st.booleans())
def test_overload_alone_never_takes_more_than_its_share(
    steps: list[tuple[int, tuple[Fault, bool] | None]], percent: int, split: bool
) -> None:
    """In whatever order; and each endpoint's own counts are never more than the pool's."""
    options = EjectionOptions(
        consecutive_failures=2,
        consecutive_local_failures=2,
        maximum_overload_percent=percent,
        split_local_failures=split,
    )
    states = {one.endpoint.url: one for one in (state(f"h{i}") for i in range(10))}
    outliers = Outliers(options, Random(1), lambda event: None)
    outliers.replace(states)
    hard = False
    for index, failure in steps:
        one = states[f"http://h{index}:80"]
        if failure is None:
            outliers.good(one, 0.0)
            assert one.ejected_until is None
        else:
            fault, overload = failure
            hard = hard or not overload
            outliers.bad(one, fault, 0.0, overload=overload)
            assert min(outliers._of_others(one)) >= 0
        count = sum(one.ejected_until is not None for one in states.values())
        assert count <= (5 if hard else max(1, min(5, -(-percent * 10 // 100))))
