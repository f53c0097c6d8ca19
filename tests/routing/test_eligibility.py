"""Who may be picked, by tables."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.routing import DOWN, OK, by_host, endpoint, get, make_pool, state
from unsticky.routing.eligibility import Rules, Tier, by_priority, choice, healthy, not_ejected, ranking, untried
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.events import FailedOver, LoadShifted, PanicChanged
from unsticky.routing.options import EjectionOptions, RetryOptions

ONCE = EjectionOptions(consecutive_failures=1)


def made(text: str) -> list[EndpointState]:
    """ "a b0! c1x d1?": name, priority, then ! for unhealthy, x for ejected, ? for checked and healthy."""
    states = []
    for word in text.split():
        one = state(word[0], priority=int(word[1]))
        one.healthy = False if "!" in word else True if "?" in word else None
        one.ejected_until = 5.0 if "x" in word else None
        states.append(one)
    return states


def names(states: object) -> str:
    return "".join(one.endpoint.address[0] for one in states)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("states", "groups", "fit"),
    [
        ("", "", True),
        ("a0 b0", "ab", True),
        ("a0 b0! c0x", "a c", True),  # ejected ones after the fit, unhealthy ones not at all
        ("a1 b0 c1 d0", "bd ac", True),
        ("a0! b0! c1", "c", True),  # level 0 is gone
        ("a0x b1", "b a", True),
        ("a0x b0x", "ab", False),
        ("a1x b0x c0!", "b a", False),
        ("a0! b0x!", "ab", False),  # nothing but unhealthy ones: they are used
        ("a1! b0!", "b a", False),
        ("a0? b0", "ab", True),
    ],
)
def test_ranking(states: str, groups: str, fit: bool) -> None:
    """Fit by priority, then ejected by priority; unhealthy ones only when there is nothing else."""
    result = ranking(made(states))
    assert " ".join(names(tier.states) for tier in result.order) == groups
    assert result.panic is not fit or not states
    assert names(result.first[0].states) == groups.split()[0] if groups else not result.first


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[EndpointState], Rules]:
    """Up to twelve endpoints in any condition, and any rules."""
    states = []
    for index in range(draw(st.integers(0, 12))):
        zone = draw(st.sampled_from([None, "a", "b", "c"]))
        one = EndpointState(
            endpoint(f"h{index}", priority=draw(st.integers(0, 2)), weight=draw(st.integers(1, 9)), locality=zone)
        )
        one.healthy, one.degraded = draw(st.sampled_from([None, True, False])), draw(st.booleans())
        one.ejected_until = draw(st.sampled_from([None, None, 5.0]))
        one.draining, one.place = draw(st.sampled_from([False, False, True])), draw(st.integers(0, 99)) * 100 + index
        states.append(one)
    rules = Rules(
        factor=draw(st.sampled_from([100, 140, 300])),
        panic_threshold=draw(st.sampled_from([None, 0, 1, 50, 100])),
        locality=draw(st.sampled_from([None, "a"])),
        subset_size=draw(st.sampled_from([None, 1, 2])),
    )
    return states, rules


def lacks_nothing(one: EndpointState) -> bool:
    return one.healthy is not False and one.ejected_until is None and not one.draining


@given(worlds())
def test_what_holds_for_any_ranking(world: tuple[list[EndpointState], Rules]) -> None:
    """All calls go somewhere, if there is anywhere, and to nobody who must not get them."""
    states, rules = world
    result = ranking(states, rules)
    members = [one for tier in result.order for one in tier.states]
    first = {one for tier in result.first for one in tier.states}
    fit = {one for one in states if lacks_nothing(one)}
    assert result.fit == fit
    assert len(members) == len(set(members)), "one in two tiers"
    assert first <= set(members), "a retry must reach them too"
    assert not any(one.draining for one in members)
    assert all(tier.states for tier in (*result.first, *result.order))
    assert all({one.endpoint.priority for one in tier.states} == {tier.priority} for tier in result.order)
    assert bool(result.first) is bool(result.order)
    assert bool(result.order) is bool(fit or (rules.panic_threshold != 0 and any(not one.draining for one in states)))
    if result.first:
        assert sum(tier.share for tier in result.first) == pytest.approx(result.sums[-1])
        assert result.sums[-1] == pytest.approx(100) or result.panic
    if fit and not result.panic:
        assert first <= fit
    if rules.panic_threshold == 0:
        assert set(members) <= fit
    if rules.subset_size:
        assert all(len(tier.states) <= rules.subset_size for tier in result.fit_tiers)
    else:
        assert {one for tier in result.fit_tiers for one in tier.states} == fit


def test_links_of_the_chain() -> None:
    """Each function alone, from set to set."""
    states = made("a1 b0! c0x d0? e1!")
    assert names(healthy(states)) == "acd"
    assert names(not_ejected(states)) == "abde"
    assert [names(level) for level in by_priority(states)] == ["bcd", "ae"]
    assert names(untried(states, states[:3])) == "de"


@pytest.mark.parametrize(
    ("groups", "tried", "group", "excluded"),
    [
        ("ab c", "", "ab", ""),
        ("ab c", "a", "ab", "a"),
        ("ab c", "ab", "c", "ab"),
        ("ab c", "abc", "ab", "c"),  # another round
        ("ab c", "abca", "ab", "a"),
        ("ab c", "abcab", "c", "ab"),
        ("ab c", "aba", "c", "ab"),  # c is new
        ("ab", "aab", "ab", "b"),  # b was used least, and last: not twice in a row
        ("a", "aa", "a", ""),
        ("a", "xy", "a", "xy"),  # x and y are gone meanwhile
    ],
)
def test_choice(groups: str, tried: str, group: str, excluded: str) -> None:
    """Untried first, then the least used, then any but the last."""
    known = {name: state(name) for name in "abcxy"}
    parts = tuple(Tier(tuple(known[name] for name in word), 0, "healthy") for word in groups.split())
    got, without = choice(parts, [known[name] for name in tried])
    assert names(got.states) == group
    assert set(names(without)) == set(excluded)


def test_unhealthy_everywhere_is_still_used() -> None:
    """A health check that is wrong must not take the application down."""
    pool = make_pool("a", "b")
    for one in pool.endpoints:
        pool.report_health(one, False)
    assert get(pool).status == 200
    assert PanicChanged(True) in pool.drain_events()
    pool.report_health(endpoint("a"), True)
    pool.report_health(endpoint("a"), True)
    assert {get(pool).hosts[0] for _ in range(20)} == {"a"}
    assert PanicChanged(False) in pool.drain_events()


def test_the_next_level_takes_over_and_gives_back() -> None:
    """With half of level 0 unhealthy level 1 gets 30 % of the calls, with all of it 100 %."""
    pool = make_pool("a", "b", endpoint("c", priority=1))
    assert {get(pool).hosts[0] for _ in range(40)} == {"a", "b"}
    pool.report_health(endpoint("a"), False)
    hosts = [get(pool).hosts[0] for _ in range(1000)]
    assert set(hosts) == {"b", "c"}
    assert 250 < hosts.count("c") < 350
    assert LoadShifted(((0, 70), (1, 30))) in pool.drain_events()
    pool.report_health(endpoint("b"), False)
    assert {get(pool).hosts[0] for _ in range(40)} == {"c"}
    assert FailedOver(0, 1) in pool.drain_events()
    for _ in range(2):
        pool.report_health(endpoint("b"), True)
    assert {get(pool).hosts[0] for _ in range(40)} == {"b", "c"}
    assert FailedOver(1, 0) in pool.drain_events()
    for _ in range(2):
        pool.report_health(endpoint("a"), True)
    assert {get(pool).hosts[0] for _ in range(40)} == {"a", "b"}
    assert LoadShifted(((0, 100),)) in pool.drain_events()


def test_a_call_fails_over_when_it_tried_a_whole_level() -> None:
    """Within one call: both of level 0, then level 1."""
    pool = make_pool("a", "b", endpoint("c", priority=1))
    run = get(pool, by_host(a=DOWN, b=DOWN))
    assert sorted(run.hosts[:2]) == ["a", "b"]
    assert run.hosts[2] == "c"
    assert run.status == 200


def test_an_ejected_endpoint_is_tried_before_one_is_repeated() -> None:
    """A came back while it is still ejected, B goes down: the call reaches A instead of knocking at B again."""
    pool = make_pool("a", "b", ejection=ONCE)
    for _ in range(100):
        get(pool, by_host(a=DOWN))
    assert [bool(status.ejected_for) for status in pool.snapshot()] == [True, False]
    assert get(pool).hosts == ["b"]
    run = get(pool, by_host(b=DOWN))
    assert run.hosts == ["b", "a"]
    assert run.status == 200


def test_repeats_begin_another_round() -> None:
    """When all were tried, each gets its second attempt before any gets a third, never one twice in a row."""
    pool = make_pool("a", "b", "c", retry=RetryOptions(attempts=9), ejection=EjectionOptions(consecutive_failures=0))
    hosts = get(pool, DOWN).hosts
    assert len(hosts) == 9
    assert sorted(hosts[:3]) == ["a", "b", "c"]
    assert all(one != other for one, other in pairwise(hosts))
    assert get(make_pool("a", retry=RetryOptions(attempts=3)), DOWN).hosts == ["a", "a", "a"]
    assert get(pool, OK).status == 200
