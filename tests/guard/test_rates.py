"""Who is named, and how often something is said."""

from __future__ import annotations

from random import Random

from unsticky.guard.rates import GIVE_UP, PATIENCE, Culprit, Rates
from unsticky.guard.violations import Limit, Violation
from unsticky.testing import FakeClock


def test_the_endpoint_that_always_changes_it_is_named() -> None:
    """An innocent one that overlaps with it has a lower rate: spec 2.2 measured 0.65."""
    random, rates = Random(1), Rates()
    for _ in range(50):
        rates.saw("POST /add", changed=True, alone=False)
        rates.saw("GET /slow", changed=random.random() < 0.65, alone=False)
    assert rates.culprit() == Culprit("POST /add", 1.0)
    assert rates.is_known


def test_nobody_is_named_by_a_few_overlapping_requests() -> None:
    """Two requests that overlapped with a change prove nothing."""
    rates = Rates()
    for _ in range(5):
        rates.saw("GET /a", changed=True, alone=False)
    assert rates.culprit() is None
    assert not rates.is_known


def test_requests_that_ran_alone_are_exact() -> None:
    """Two of them are enough, and their rate is that of the lonely ones."""
    rates = Rates()
    for changed in (True, False, True, False):
        rates.saw("GET /cache", changed=changed, alone=True)
        rates.saw("GET /clean", changed=False, alone=True)
    assert rates.culprit() == Culprit("GET /cache", 0.5)


def test_who_ran_alone_without_a_change_is_cleared() -> None:
    """A slow endpoint overlaps with everything, so that its rate is one as well."""
    rates = Rates()
    for _ in range(30):
        rates.saw("GET /slow", changed=True, alone=False)
        rates.saw("POST /add", changed=True, alone=False)
    rates.saw("GET /slow", changed=False, alone=True)
    rates.saw("GET /slow", changed=False, alone=True)
    assert rates.culprit() == Culprit("POST /add", 1.0)


def test_nobody_stands_out() -> None:
    """A thread in the background changes it: after a while that is said without a name."""
    rates = Rates()
    for number in range(PATIENCE):
        rates.saw(f"GET /{number % 4}", changed=number % 3 == 0, alone=False)
    assert rates.culprit() is None
    assert rates.is_known


def test_what_changed_once_is_forgotten() -> None:
    """None to a connection, at a late first use."""
    rates = Rates()
    for number in range(GIVE_UP):
        rates.saw("GET /", changed=number == 0, alone=True)
    assert rates.is_over
    assert not rates.is_known


def test_endpoints_are_bounded() -> None:
    """A WSGI app may say anything of itself."""
    rates = Rates()
    for number in range(10_000):
        rates.saw(f"GET /{number}", changed=False, alone=False)
    assert len(rates._endpoints) <= 257


def test_once_a_minute() -> None:
    """Of each variable."""
    clock = FakeClock()
    limit = Limit(clock)
    assert limit.allows("shop:CART")
    assert not limit.allows("shop:CART")
    assert limit.allows("shop:OTHER")
    clock.advance(59.9)
    assert limit.is_silent("shop:CART")
    assert not limit.allows("shop:CART")
    clock.advance(0.2)
    assert not limit.is_silent("shop:CART")
    assert limit.allows("shop:CART")
    assert not limit.allows("shop:CART")


def test_the_number_of_names_is_bounded() -> None:
    """Those beyond it wait until others are a minute old."""
    clock = FakeClock()
    limit = Limit(clock, most=3)
    assert [limit.allows(str(number)) for number in range(5)] == [True, True, True, False, False]
    clock.advance(60)
    assert limit.allows("4")


def test_attributes_hold_what_is_known() -> None:
    """Path or variable, and nothing empty."""
    assert Violation("sqlite", "/srv/shop.db").attributes() == {
        "stateless.kind": "sqlite",
        "stateless.path": "/srv/shop.db",
        "stateless.verdict": "SUSPECT",
    }
    full = Violation("memory", "shop:CART", endpoint="POST /add", endpoint_rate=1.0, source_line="shop.py:5")
    assert full.attributes() == {
        "stateless.kind": "memory",
        "stateless.variable": "shop:CART",
        "stateless.verdict": "SUSPECT",
        "stateless.endpoint": "POST /add",
        "stateless.endpoint_rate": 1.0,
        "stateless.source_line": "shop.py:5",
    }
