"""Cookies and the headers beside them."""

from __future__ import annotations

import pytest

from unsticky.session.cookie import CookieFormat, InboundCookies, cookie_values, uncached, vary_on
from unsticky.session.options import CookieOptions
from unsticky.session.policy import Lifetime


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, "no-store"),
        ("", "no-store"),
        ("public, max-age=60", "no-store"),
        ("private, max-age=60", "private, max-age=60"),
        ("max-age=0, No-Store", "max-age=0, No-Store"),
        ('private="x-foo", max-age=600', "no-store"),
        ('max-age=5, ext="a,private,b"', "no-store"),
    ],
)
def test_cache_control(given: str | None, sent: str) -> None:
    """The app's own stays where it keeps shared caches away."""
    assert uncached(given) == sent


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, "Cookie"),
        ("Accept", "Accept, Cookie"),
        ("accept, COOKIE", "accept, COOKIE"),
        ("*", "*"),
        (" ,", "Cookie"),
    ],
)
def test_vary(given: str | None, sent: str) -> None:
    """Cookie once."""
    assert vary_on(given, "Cookie") == sent


def test_all_cookies_of_a_name() -> None:
    """From several headers, quoted or not."""
    assert cookie_values(['a=1; s="x"; s=y', "s=z;;=;junk"], "s") == ["x", "y", "z"]
    assert dict(InboundCookies(lambda: ["a=1; a=2", "b=3"])) == {"a": "1", "b": "3"}


def test_a_deletion_has_the_cookies_attributes() -> None:
    """Browsers ignore others."""
    form = CookieFormat(name="__Host-s", secure=True, same_site="strict", partitioned=True, max_age=5)
    assert form.set("v") == (
        "Set-Cookie",
        "__Host-s=v; path=/; Max-Age=5; httponly; samesite=strict; secure; partitioned",
    )
    end = "__Host-s=null; path=/; expires=Thu, 01 Jan 1970 00:00:00 GMT; httponly; samesite=strict; secure; partitioned"
    assert form.delete() == ("Set-Cookie", end)


def test_the_strict_attributes_are_the_default() -> None:
    """Out of reach of scripts, and not sent by other sites; over https with the prefix that no neighbour can set."""
    assert CookieFormat.of(CookieOptions(), Lifetime(idle=60, touch_interval=6)).set("v") == (
        "Set-Cookie",
        "session=v; path=/; Max-Age=66; httponly; samesite=lax",
    )
    assert CookieFormat.of(CookieOptions(secure=True), Lifetime()).name == "__Host-session"
    assert CookieFormat.of(CookieOptions(secure=True, domain="example.com"), Lifetime()).name == "session"
    assert CookieFormat.of(CookieOptions(secure=True, name="sid"), Lifetime()).name == "sid"
