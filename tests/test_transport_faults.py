"""Faults of a pool, over real servers: what is made up counts as if it were real, and nothing is sent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import pytest
import requests
import trio

from support.otlp import Telemetry
from support.pools import LIBRARIES, both, in_flight, pools_over
from support.upstream import Upstream, upstreams
from unsticky import Pools, SettingsError
from unsticky.requests import PoolAdapter

loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])
ways = pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
aborts = pytest.mark.parametrize("abort", ["connect", "timeout", "broken", 503])
NOWAIT = {"backoff": 0}
ERRORS = {"connect": "ConnectError", "timeout": "ReadTimeout", "broken": "ReadError"}


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def first_then_second(two: list[Upstream]) -> list[Any]:
    return [{"url": two[0].url}, {"url": two[1].url, "priority": 1}]


def get(way: str, pools: Pools, method: str = "GET", **options: Any) -> Any:
    """One call: the response, with its body read."""
    if way == "sync":
        with pools.client(**options) as client:
            return client.request(method, "http://catalog/")

    async def main() -> Any:
        async with pools.async_client(**options) as client:
            return await client.request(method, "http://catalog/")

    return asyncio.run(main()) if way == "asyncio" else trio.run(main)


@both
@ways
@aborts
def test_retries_rescue_aborted_attempts(
    library: str, way: str, abort: Any, otlp: Telemetry, two: list[Upstream]
) -> None:
    """The client sees the other endpoint's answer; the one that was hit got no request, and counts a failure."""
    faults = {"abort_percent": 100, "abort": abort, "endpoints": [two[0].address]}
    options: dict[str, Any] = {"retry": NOWAIT, "ejection": {"consecutive_failures": 1}, "faults": faults}
    with pools_over(library, first_then_second(two), **options) as pools:
        answer = get(way, pools)
        assert (answer.status_code, answer.json()["port"]) == (200, two[1].port)
        assert answer.extensions["unsticky"]["attempts"] == 2
        assert [status.ejected_for > 0 for status in pools.status()["catalog"]] == [True, False]
        assert in_flight(pools) == 0
    assert "requests" not in two[0].seen()
    hit, rescued = otlp.spans()
    assert (hit.attributes["unsticky.fault"], hit.status) == ("abort", "ERROR")
    expected = "503" if abort == 503 else f"{LIBRARIES[library].__name__}.{ERRORS[abort]}"
    assert hit.attributes["error.type"] == expected
    assert "unsticky.fault" not in rescued.attributes


@both
@ways
def test_a_status_is_a_response(library: str, way: str, two: list[Upstream]) -> None:
    """A real one of the library, with an empty body; what is not retried is handed out."""
    faults = {"abort_percent": 100, "abort": 404}
    with pools_over(library, [two[0].url], faults=faults) as pools:
        answer = get(way, pools)
        assert isinstance(answer, LIBRARIES[library].Response)
        assert (answer.status_code, answer.content, in_flight(pools)) == (404, b"", 0)
        assert answer.extensions["unsticky"] == {"pool": "catalog", "endpoint": two[0].address, "attempts": 1}
    assert two[0].seen()["accepted"] == 1  # this question


@both
@ways
def test_an_error_is_the_librarys(library: str, way: str, two: list[Upstream]) -> None:
    """A POST that breaks is not tried again."""
    faults = {"abort_percent": 100, "abort": "broken"}
    with pools_over(library, [one.url for one in two], faults=faults) as pools:
        with pytest.raises(LIBRARIES[library].ReadError, match=r"^the connection broke \(by faults of pool catalog\)$"):
            get(way, pools, "POST")
        assert in_flight(pools) == 0


@both
def test_ejection_happens(library: str, two: list[Upstream]) -> None:
    """Then calls need no second attempt."""
    faults = {"abort_percent": 100, "abort": "connect", "endpoints": [two[0].address]}
    ejection = {"consecutive_failures": 2}
    options: dict[str, Any] = {"retry": NOWAIT, "ejection": ejection, "faults": faults}
    with pools_over(library, first_then_second(two), **options) as pools, pools.client() as client:
        attempts = [client.get("http://catalog/").extensions["unsticky"]["attempts"] for _ in range(4)]
        assert attempts == [2, 2, 1, 1]
        assert pools.status()["catalog"][0].ejected_for > 0


@both
@ways
def test_a_delay_longer_than_the_attempt_is_a_timeout(library: str, way: str, two: list[Upstream]) -> None:
    """It ends with the attempt's time, and the next one is sent."""
    faults = {"delay_percent": 100, "delay": "20s", "endpoints": [two[0].address]}
    retry = {**NOWAIT, "attempt_timeout": "100ms"}
    began = time.monotonic()
    with pools_over(library, first_then_second(two), retry=retry, faults=faults) as pools:
        answer = get(way, pools)
        assert (answer.json()["port"], answer.extensions["unsticky"]["attempts"]) == (two[1].port, 2)
    assert 0.1 <= time.monotonic() - began < 15
    assert "requests" not in two[0].seen()


@both
@ways
def test_the_callers_timeout_ends_a_delay(library: str, way: str, two: list[Upstream]) -> None:
    """Where the pool sets none, as it would end the wait for an endpoint that is slow."""
    faults = {"delay_percent": 100, "delay": "20s"}
    with pools_over(library, [two[0].url], faults=faults) as pools:
        with pytest.raises(LIBRARIES[library].ReadTimeout):
            get(way, pools, "POST", timeout=0.1)
        assert in_flight(pools) == 0


@both
@ways
def test_a_shorter_delay_waits(library: str, way: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """The attempt is sent then, within the rest of its time."""
    faults = {"delay_percent": 100, "delay": "100ms"}
    two[0].behave("echo", delay=20)
    retry = {**NOWAIT, "attempt_timeout": "300ms"}
    began = time.monotonic()
    with pools_over(library, first_then_second(two), retry=retry, faults=faults) as pools:
        answer = get(way, pools)
        assert (answer.json()["port"], answer.extensions["unsticky"]["attempts"]) == (two[1].port, 2)
    assert 0.4 <= time.monotonic() - began < 15
    late, rescued = otlp.spans()
    assert (late.attributes["unsticky.fault"], rescued.attributes["unsticky.fault"]) == ("delay", "delay")
    assert 200_000_000 <= late.end - late.start < 15_000_000_000  # its time had begun before its span
    assert rescued.end - rescued.start >= 99_000_000


@both
@ways
def test_a_delay_leaves_the_attempt_the_rest_of_its_time(library: str, way: str) -> None:
    """The transport below is told how long it has."""
    module, seconds = LIBRARIES[library], []

    def below(request: Any) -> Any:
        seconds.append(request.extensions["timeout"]["read"])
        return module.Response(200)

    faults = {"delay_percent": 100, "delay": "100ms"}
    options: dict[str, Any] = {"retry": {"attempt_timeout": "20s"}, "faults": faults}
    with pools_over(library, ["http://10.0.0.1:8000"], **options) as pools:
        assert get(way, pools, transport=module.MockTransport(below), timeout=None).status_code == 200
    assert 0 < seconds[0] <= 19.9


@both
@loops
def test_a_hedge_wins_over_a_delayed_attempt(library: str, loop: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """The delayed one is cancelled, and never sent."""
    faults = {"delay_percent": 100, "delay": "20s", "endpoints": [two[0].address]}

    async def main() -> None:
        async with pools.async_client() as client:
            with anyio.fail_after(15):
                answer = await client.get("http://catalog/")
            assert (answer.json()["port"], answer.extensions["unsticky"]["attempts"]) == (two[1].port, 2)

    with pools_over(library, first_then_second(two), hedge={"after": "50ms"}, faults=faults) as pools:
        asyncio.run(main()) if loop == "asyncio" else trio.run(main)
        assert in_flight(pools) == 0
    assert "requests" not in two[0].seen()
    delayed = next(span for span in otlp.spans() if "unsticky.fault" in span.attributes)
    assert (delayed.attributes["unsticky.fault"], delayed.attributes["unsticky.cancelled"]) == ("delay", True)


@aborts
def test_requests(abort: Any, two: list[Upstream]) -> None:
    """The same for requests: rescued, or raised as its own."""
    faults = {"abort_percent": 100, "abort": abort, "endpoints": [two[0].address]}
    pool = {"endpoints": first_then_second(two), "retry": NOWAIT, "faults": faults}
    with Pools.from_settings({"pools": {"catalog": pool}}) as pools, requests.Session() as session:
        session.mount("http://", PoolAdapter(pools))
        answer = session.get("http://catalog/")
        assert (answer.status_code, answer.json()["port"], answer.unsticky["attempts"]) == (200, two[1].port, 2)  # type: ignore[attr-defined]
        session.mount("http://", PoolAdapter(pools, retry=False))
        if abort == 503:
            answer = session.get("http://catalog/")
            assert (answer.status_code, answer.content) == (503, b"")
        else:
            kind = requests.ReadTimeout if abort == "timeout" else requests.ConnectionError
            with pytest.raises(kind) as caught:
                session.get("http://catalog/")
            assert caught.value.request is not None
            assert isinstance(caught.value, requests.Timeout) is (abort == "timeout")
        assert in_flight(pools) == 0
    assert "requests" not in two[0].seen()


def test_a_delay_of_requests_is_late(two: list[Upstream]) -> None:
    """Within the attempt's time."""
    faults = {"delay_percent": 100, "delay": "20s", "endpoints": [two[0].address]}
    pool = {"endpoints": first_then_second(two), "retry": {**NOWAIT, "attempt_timeout": "100ms"}, "faults": faults}
    with Pools.from_settings({"pools": {"catalog": pool}}) as pools, requests.Session() as session:
        session.mount("http://", PoolAdapter(pools))
        answer = session.get("http://catalog/")
        assert (answer.json()["port"], answer.unsticky["attempts"]) == (two[1].port, 2)  # type: ignore[attr-defined]


def test_it_is_never_silent(two: list[Upstream], caplog: pytest.LogCaptureFixture) -> None:
    """One warning per pool, with its first call."""
    pool = {"endpoints": [two[0].url], "faults": {"abort_percent": 0.5, "delay_percent": 1, "delay": "1ms"}}
    with Pools.from_settings({"pools": {"warned": pool}}) as pools, pools.client() as client:
        assert caplog.records == []
        for _ in range(3):
            client.get("http://warned/")
    (line,) = [one for one in caplog.records if one.name == "unsticky.routing"]
    assert line.levelno == logging.WARNING
    assert line.getMessage() == "pool 'warned': attempts fail on purpose (0.5 %) or wait (1 %), as `faults` says"


@pytest.mark.parametrize(
    ("faults", "problem"),
    [
        ({"abort_percent": 101}, "abort_percent: expected a number from 0 to 100, got 101"),
        ({"abort": "conect"}, 'did you mean "connect"?'),
        ({"abort": 200}, 'expected one of "connect", "timeout", "broken", 400,'),
        ({"delay_percent": 5}, "delay_percent: has no effect without delay"),
        ({"endpoints": ["10.0.0.1:800"]}, 'endpoints[0]: no endpoint of the pool, did you mean "10.0.0.1:8000"?'),
    ],
)
def test_wrong_settings(faults: dict[str, Any], problem: str) -> None:
    """They say what is allowed."""
    with pytest.raises(SettingsError) as caught:
        Pools.from_settings({"pools": {"catalog": {"endpoints": ["http://10.0.0.1:8000"], "faults": faults}}})
    assert problem in str(caught.value)


@pytest.mark.parametrize(("text", "abort"), [("429", 429), ("broken", "broken")])
def test_the_environment_sets_them(text: str, abort: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while, in one deployment, without a change of the file."""
    file = tmp_path / "unsticky.toml"
    file.write_text('[pools.catalog]\nendpoints = ["http://10.0.0.1:8000"]\n')
    monkeypatch.setenv("UNSTICKY_POOLS__CATALOG__FAULTS__ABORT_PERCENT", "2.5")
    monkeypatch.setenv("UNSTICKY_POOLS__CATALOG__FAULTS__ABORT", text)
    with Pools.from_settings(file) as pools:
        found = pools.settings.pools["catalog"].faults
    assert (found.abort_percent, found.abort) == (2.5, abort)
