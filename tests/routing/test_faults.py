"""Which attempts fail or wait on purpose."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsticky.routing.call import Endpoint, Failure
from unsticky.routing.events import FaultsInjected
from unsticky.routing.fault_options import FaultOptions
from unsticky.routing.faults import Fault, Faults
from unsticky.routing.options import PoolOptions
from unsticky.routing.pool import Pool
from unsticky.scalars import Duration
from unsticky.testing import FakeClock

HERE, THERE = "10.0.0.1:8000", "10.0.0.2:8000"


class Drawn(Random):
    """Gives these numbers."""

    def __new__(cls, *numbers: float) -> Drawn:
        return super().__new__(cls)

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self._numbers = list(numbers)

    def random(self) -> float:
        return self._numbers.pop(0)


def options(**given: Any) -> FaultOptions:
    return FaultOptions(**given)


@pytest.mark.parametrize("off", [{}, {"abort": "connect"}, {"delay": Duration(1)}, {"endpoints": (HERE,)}])
def test_off_unless_there_is_a_percentage(off: dict[str, Any]) -> None:
    """A pool has no faults then, so that a call asks nobody."""
    assert Faults.of(options(**off), Random(0)) is None


@pytest.mark.parametrize(
    ("given", "drawn", "expected"),
    [
        ({"abort_percent": 10}, (0.0999,), Fault(abort=503)),
        ({"abort_percent": 10}, (0.1,), None),
        ({"abort_percent": 100, "abort": "connect"}, (0.999999,), Fault(abort=Failure.CONNECT)),
        ({"abort_percent": 100, "abort": "timeout"}, (0.0,), Fault(abort=Failure.TIMEOUT)),
        ({"abort_percent": 100, "abort": "broken"}, (0.0,), Fault(abort=Failure.BROKEN)),
        ({"abort_percent": 100, "abort": 429}, (0.0,), Fault(abort=429)),
        ({"delay_percent": 50, "delay": Duration("200ms")}, (0.4, 0.0), Fault(0.2)),
        ({"delay_percent": 50, "delay": Duration("200ms")}, (0.5, 0.0), None),
        ({"delay_percent": 50, "delay": Duration(2), "abort_percent": 50}, (0.4, 0.4), Fault(2.0, 503)),
        ({"delay_percent": 50, "delay": Duration(2), "abort_percent": 50}, (0.6, 0.4), Fault(0.0, 503)),
        ({"delay_percent": 50, "delay": Duration(2), "abort_percent": 50}, (0.4, 0.6), Fault(2.0)),
        ({"abort_percent": 100, "endpoints": (HERE,)}, (0.0,), Fault(abort=503)),
        ({"abort_percent": 100, "endpoints": (THERE,)}, (0.0,), None),
    ],
)
def test_what_is_drawn(given: dict[str, Any], drawn: tuple[float, ...], expected: Fault | None) -> None:
    """A draw below the percentage hits; delay and abort are drawn each for itself."""
    assert Faults(options(**given), Drawn(*drawn)).draw(HERE) == expected


@given(percent=st.floats(0, 100), seed=st.integers())
def test_rates_are_those_that_were_set(percent: float, seed: int) -> None:
    """Of many attempts; six standard deviations are allowed."""
    faults, attempts = Faults(options(abort_percent=percent), Random(seed)), 500
    share, count = percent / 100, sum(faults.draw(HERE) is not None for _ in range(attempts))
    assert abs(count - attempts * share) <= 6 * (attempts * share * (1 - share)) ** 0.5 + 1


@given(seed=st.integers(), abort=st.floats(0.1, 100), delay=st.floats(0.1, 100))
def test_the_same_chance_is_the_same_faults(seed: int, abort: float, delay: float) -> None:
    """Nothing but the chance that is given decides."""
    given = options(abort_percent=abort, delay_percent=delay, delay=Duration(1))
    first, second = Faults(given, Random(seed)), Faults(given, Random(seed))
    assert [first.draw(HERE) for _ in range(50)] == [second.draw(HERE) for _ in range(50)]


def test_a_pool_says_once_that_it_has_faults() -> None:
    """With the first attempt, and not again."""
    pool = Pool("catalog", PoolOptions(faults=options(abort_percent=5)), FakeClock(), Random(1), [])
    assert pool.faults is not None
    assert pool.drain_events() == []
    for _ in range(3):
        pool.fault(pool.faults, Endpoint.of("http://10.0.0.1:8000"))
    assert pool.drain_events() == [FaultsInjected(5, 0)]
