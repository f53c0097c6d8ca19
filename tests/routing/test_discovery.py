"""What a source's answers mean for a pool: which set holds, what is told, and when it is asked again."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from support.routing import endpoint
from unsticky.errors import DiscoveryError
from unsticky.routing.call import Endpoint, authority
from unsticky.routing.discovery import DiscoveryStatus, Findings, described
from unsticky.routing.discovery_options import DiscoveryOptions
from unsticky.routing.events import DiscoveryFailed, DiscoveryRecovered, EndpointsChanged
from unsticky.scalars import Duration

A, B, C = endpoint("a"), endpoint("b"), endpoint("c")


def findings(*static: Endpoint, **options: Any) -> Findings:
    return Findings(DiscoveryOptions(**{"type": "file", "path": "e.toml", **options}), static)


def test_the_set_is_the_answer_and_what_is_listed() -> None:
    """A whole set each time; what the settings list is always in it."""
    found = findings(C)
    assert found.known, "listed endpoints need no answer"
    assert found.answered({A, B}, 1.0) == {A, B, C}
    assert found.answered([A], 2.0) == {A, C}
    assert found.events == [EndpointsChanged(0, 1, 1)]
    found.answered({A}, 3.0)
    assert len(found.events) == 1, "the same set is no news"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (set(), "it found no endpoints"),
        (None, "discover() returned NoneType"),
        ({"http://a"}, "discover() found a str"),
        ({A, 5}, "discover() found a int"),
    ],
)
def test_answers_that_are_none(answer: object, text: str) -> None:
    """They are failures, and change nothing."""
    found = findings()
    with pytest.raises(DiscoveryError) as caught:
        found.answered(answer, 1.0)
    assert text in str(caught.value)
    assert not found.known
    assert found.events == []


def test_an_empty_answer_may_be_allowed() -> None:
    """Then it empties the pool."""
    found = findings(allow_empty=True)
    found.answered({A}, 1.0)
    assert found.answered(set(), 2.0) == frozenset()
    assert found.known


def test_a_failure_is_told_once_and_its_end_too() -> None:
    """As an event and as a line, which says what holds meanwhile."""
    found = findings()
    found.answered({A, B}, 0.0)
    found.failed("not TOML", 10.0)
    found.failed("not TOML", 11.0)
    assert found.status(12.0) == DiscoveryStatus("file e.toml", 2, 12.0, "not TOML", 2.0)
    assert found.problem == "file e.toml: not TOML"
    found.answered({A, B}, 20.0)
    assert found.events == [DiscoveryFailed("file e.toml", "not TOML"), DiscoveryRecovered("file e.toml", 10.0)]
    assert found.lines == [
        "file e.toml: not TOML; the last 2 stay",
        "file e.toml: found endpoints again, after 10 s",
    ]
    assert found.status(20.0) == DiscoveryStatus("file e.toml", 2, 0.0)
    assert found.problem == ""


def test_a_source_that_flaps_fills_no_log() -> None:
    """Each failure is an event; a line comes once a minute, and its end only with it."""
    found = findings()
    for second in range(0, 120, 2):
        found.failed("away", float(second))
        found.answered({A}, second + 1.0)
    assert len(found.events) == 120
    assert len(found.lines) == 4
    assert found.lines[0] == "file e.toml: away; no endpoints are known yet"


@pytest.mark.parametrize(
    ("type_", "options", "failures", "known", "paced", "expected"),
    [
        ("file", {}, 0, True, None, 1.0),
        ("program", {}, 0, True, None, 30.0),
        ("program", {"interval": Duration(7)}, 0, True, None, 7.0),
        ("dns", {"name": "a"}, 0, True, 12.5, 12.5),
        ("dns", {"name": "a"}, 0, True, 0.0, 0.01),
        ("dns", {"name": "a"}, 1, True, 12.5, 1.0),
        ("dns", {"name": "a"}, 2, True, 12.5, 2.0),
        ("dns", {"name": "a"}, 9, True, 12.5, 30.0),
        ("dns", {"name": "a"}, 9999, True, 12.5, 30.0),
        ("dns", {"name": "a"}, 1, False, None, 0.25),
        ("dns", {"name": "a"}, 3, False, None, 1.0),
        ("file", {}, 9, True, None, 1.0),
        ("file", {"interval": Duration(0.1)}, 2, True, None, 0.1),
    ],
)
def test_when_it_is_asked_again(
    type_: str, options: Any, failures: int, known: bool, paced: float | None, expected: float
) -> None:
    """By its own word, else by the interval; after failures soon, then less often, with jitter."""
    found = findings(type=type_, **options)
    if known:
        found.answered({A}, 0.0)
    for _ in range(failures):
        found.failed("away", 1.0)
    pauses = [found.pause(paced, Random(seed)) for seed in range(50)]
    assert min(pauses) >= expected * 0.8
    assert max(pauses) <= expected * 1.2
    if failures == 0 and paced is not None:
        assert set(pauses) == {expected}
    else:
        assert len(set(pauses)) > 40


def test_sources_in_words() -> None:
    """For logs and people."""
    assert described(DiscoveryOptions(type="dns", name="c.internal", record="SRV")) == "dns SRV c.internal"
    assert described(DiscoveryOptions(type="shop.sources:consul")) == "shop.sources:consul"


def test_endpoints_by_their_url() -> None:
    """What a discovery of one's own makes: normalised and checked."""
    made = Endpoint.of("HTTPS://A.example:443/", weight=3, priority=1, locality="b", host="c.internal")
    assert made == Endpoint("https://a.example", "a.example:443", 3, 1, "b", False, "c.internal")
    assert Endpoint.of("http://[::1]:8000").address == "[::1]:8000"
    for wrong in ("10.0.0.1:8000", "ftp://a", "http://a/path", "http://u:p@a"):
        with pytest.raises(ValueError, match="expected an origin"):
            Endpoint.of(wrong)
    with pytest.raises(ValueError, match="weight"):
        Endpoint.of("http://a", weight=0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://10.0.0.1", "c.internal"),
        ("https://10.0.0.1:8443", "c.internal:8443"),
        ("http://[::1]", "c.internal"),
        ("http://[::1]:80", "c.internal:80"),
    ],
)
def test_the_host_header(url: str, expected: str) -> None:
    """The name, and the port that the url has."""
    assert authority(url, "c.internal") == expected
