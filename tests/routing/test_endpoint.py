"""Endpoints from their options."""

from __future__ import annotations

import pytest

from unsticky.routing.call import Endpoint
from unsticky.routing.endpoint import EndpointState, condition, endpoint_from
from unsticky.routing.options import EndpointOptions


@pytest.mark.parametrize(
    ("url", "origin", "address"),
    [
        ("http://10.0.0.1:8000", "http://10.0.0.1:8000", "10.0.0.1:8000"),
        ("HTTP://Shop.Example/", "http://shop.example", "shop.example:80"),
        ("https://shop.example:443", "https://shop.example", "shop.example:443"),
        ("http://[2001:DB8::1]:81", "http://[2001:db8::1]:81", "[2001:db8::1]:81"),
    ],
)
def test_origins(url: str, origin: str, address: str) -> None:
    """Normalised, so that one server has one identity; the address always has its port."""
    options = EndpointOptions(url=url, weight=3, priority=1, locality="b")
    assert endpoint_from(options) == Endpoint(origin, address, 3, 1, "b")


@pytest.mark.parametrize(
    "url",
    ["", "10.0.0.1:8000", "ftp://a", "http://", "http://a/path", "http://a?q=1", "http://a#f", "http://a:99999", "//a"],
)
def test_what_is_no_origin(url: str) -> None:
    """Refused."""
    with pytest.raises(ValueError):
        endpoint_from(EndpointOptions(url=url))


def test_passwords_are_not_shown() -> None:
    """User and password belong elsewhere, and not into the message."""
    with pytest.raises(ValueError, match="without user and password") as caught:
        endpoint_from(EndpointOptions(url="http://user:hunter2@a"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("options", [{"weight": 0}, {"weight": 65536}, {"priority": -1}])
def test_bounds(options: dict[str, int]) -> None:
    """Weights from 1 to 65535, priorities from 0."""
    with pytest.raises(ValueError, match="expected a"):
        endpoint_from(EndpointOptions(url="http://a", **options))  # type: ignore[arg-type]


def test_condition_in_words() -> None:
    """For errors."""
    one = EndpointState(endpoint_from(EndpointOptions(url="http://a")))
    assert condition(one, 5.0) == ""
    one.ejected_until = 20.0
    assert condition(one, 5.0) == "ejected for 15.0 s more"
    one.healthy, one.unhealthy_since = False, 3.0
    assert condition(one, 5.0) == "unhealthy for 2.0 s"
