"""Finagle's retry budget, by its own table."""

from __future__ import annotations

from random import Random

import pytest

from unsticky.routing.budget import TTL, RetryBudget


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.25, 0.75, 0.99, 0.999, 0.9999, 0.01, 0.001, 0.0001])
@pytest.mark.parametrize("per_second", [0, 10])
def test_ratio_of_calls(ratio: float, per_second: int) -> None:
    """RetryBudgetTest.scala: of 10,000 calls, each wanting one retry, ratio * calls + the reserve get it."""
    budget = RetryBudget(ratio, per_second, 0.0)
    made = 0
    for _ in range(10_000):
        budget.deposit(0.0)
        made += budget.withdraw(0.0)
    assert abs(made - min(10_000, int(10_000 * ratio + per_second * TTL))) <= 1


def test_ratio_above_one() -> None:
    """RetryBudgetTest.scala: with a ratio of 2.0 ten thousand calls leave exactly 20,000 retries."""
    budget = RetryBudget(2.0, 0, 0.0)
    for _ in range(10_000):
        budget.deposit(0.0)
    assert budget.balance(0.0) == 20_000


def test_without_calls_the_reserve_counts() -> None:
    """`per_second` * 10 s at once, and again ten seconds later."""
    budget = RetryBudget(0.2, 5, 100.0)
    for start in (100.0, 110.0, 500.0):
        assert sum(budget.withdraw(start) for _ in range(100)) == 50
        assert not budget.withdraw(start + TTL - 1)


def test_ratio_zero_leaves_the_reserve() -> None:
    """Calls earn nothing."""
    budget = RetryBudget(0.0, 1, 0.0)
    for _ in range(1000):
        budget.deposit(0.0)
    assert sum(budget.withdraw(0.0) for _ in range(100)) == 10


def test_both_zero_is_none() -> None:
    """No retries at all."""
    budget = RetryBudget(0.0, 0.0, 0.0)
    budget.deposit(0.0)
    assert not budget.withdraw(0.0)
    assert budget.balance(0.0) == 0


def test_deposits_expire() -> None:
    """What was earned counts for ten seconds."""
    budget = RetryBudget(0.2, 0, 0.5)
    for _ in range(10):
        budget.deposit(0.5)
    assert budget.balance(0.5) == 2
    assert budget.balance(9.9) == 2
    assert budget.balance(10.0) == 0
    assert not budget.withdraw(10.0)


@pytest.mark.parametrize("rate", [5, 50, 500])
def test_a_long_outage_stays_within_the_budget(rate: int) -> None:
    """Every call wants two more attempts for 10 minutes: at most 0.2 + 10 / rate retries per call, and one reserve."""
    budget, random, now = RetryBudget(0.2, 10, 0.0), Random(rate), 0.0
    calls = retries = 0
    while now < 600:
        now += random.expovariate(rate)
        calls += 1
        budget.deposit(now)
        retries += budget.withdraw(now) + budget.withdraw(now)
    assert retries <= 0.2 * calls + 10 * now + 10 * TTL
    assert retries >= min(2 * calls, 0.2 * calls + 10 * now) * 0.8  # it is a budget, not a ban


def test_towers_vectors() -> None:
    """tower retry/budget/tps_budget.rs: leaky, slots and reserve, with ten seconds for its one."""
    leaky = RetryBudget(1.0, 0, 0.0)
    assert not leaky.withdraw(0.0)
    leaky.deposit(0.0)
    assert not leaky.withdraw(30.0)
    slots = RetryBudget(0.5, 0, 0.0)
    slots.deposit(0.0)
    slots.deposit(0.0)
    assert slots.withdraw(9.01)
    for moment in (29.02, 32.03, 40.04):  # the first one is too old by the end
        slots.deposit(moment)
    assert slots.withdraw(40.04)
    assert not slots.withdraw(40.04)
    reserve = RetryBudget(1.0, 0.5, 0.0)
    assert [reserve.withdraw(0.0) for _ in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize("ratio", [5e-324, 1e-300, 1000.0])
def test_the_ends_of_what_settings_allow(ratio: float) -> None:
    """No float runs over, however rare retries shall be."""
    budget = RetryBudget(ratio, 1_000_000, 0.0)
    assert budget.balance(0.0) == 1_000_000 * TTL
