"""Calls over real servers that are killed, paused and made to answer nonsense: what is retried, and what is raised."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.pools import LIBRARIES, both, in_flight, pools_over
from support.ports import free_port
from support.upstream import Upstream, upstreams
from support.waiting import eventually
from unsticky import errors

NOWAIT = {"backoff": 0}


@pytest.fixture
def three() -> Generator[list[Upstream]]:
    with upstreams(3) as found:
        yield found


@both
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refused_connections_are_retried_for_any_method(library: str, method: str, three: list[Upstream]) -> None:
    """Nothing was sent to an endpoint that refuses, so that a POST goes to another one, body and all."""
    three[0].kill()
    with (
        pools_over(library, [one.url for one in three], balancer="round_robin", retry=NOWAIT) as pools,
        pools.client() as client,
    ):
        for _ in range(6):
            answer = client.request(method, "http://catalog/", content=b"body" if method == "POST" else None)
            assert answer.status_code == 200
            assert answer.json()["body"] == ("body" if method == "POST" else "")


@both
def test_generators_survive_a_refused_connection(library: str, three: list[Upstream]) -> None:
    """A body that can be sent once only is untouched by an endpoint that refuses."""
    three[0].kill()
    urls = [{"url": three[0].url}, {"url": three[1].url, "priority": 1}]
    with pools_over(library, urls, retry=NOWAIT) as pools, pools.client() as client:
        answer = client.put("http://catalog/", content=(part for part in (b"a", b"b")))
        assert answer.json()["body"] == "ab"
        assert answer.extensions["unsticky"]["attempts"] == 2


@both
@pytest.mark.parametrize("mode", ["drop", "garbage"])
def test_broken_answers(library: str, mode: str, three: list[Upstream]) -> None:
    """A GET is repeated elsewhere when an endpoint breaks; a POST, which it may have acted on, is not."""
    three[0].behave(mode)
    urls = [{"url": three[0].url}, {"url": three[1].url, "priority": 1}]
    with pools_over(library, urls, retry=NOWAIT) as pools, pools.client() as client:
        assert client.get("http://catalog/").json()["port"] == three[1].port
        with pytest.raises(LIBRARIES[library].RemoteProtocolError):
            client.post("http://catalog/", content=b"x")
        with pytest.raises(LIBRARIES[library].RemoteProtocolError):
            client.put("http://catalog/", content=(part for part in (b"a", b"b")))
        assert three[1].seen()["requests"] == 1
        assert in_flight(pools) == 0


@both
def test_a_paused_endpoint_costs_one_attempt_timeout(library: str, three: list[Upstream]) -> None:
    """An endpoint that accepts and never answers is left after the attempt's timeout."""
    three[0].pause()
    urls = [{"url": three[0].url}, {"url": three[1].url, "priority": 1}]
    with pools_over(library, urls, retry={**NOWAIT, "attempt_timeout": "300ms"}) as pools, pools.client() as client:
        answer = client.get("http://catalog/")
        assert answer.json()["port"] == three[1].port
        assert 0.3 <= answer.elapsed.total_seconds() < 3
        with pytest.raises(LIBRARIES[library].ReadTimeout):
            client.post("http://catalog/")
        assert in_flight(pools) == 0


@both
def test_the_timeout_of_the_whole_call(library: str, three: list[Upstream]) -> None:
    """The pool's timeout, or the call's own, ends everything with an error of both families."""
    for one in three:
        one.pause()
    urls = [one.url for one in three]
    with (
        pools_over(library, urls, timeout="250ms", retry={**NOWAIT, "attempt_timeout": "100ms"}) as pools,
        pools.client() as client,
    ):
        with pytest.raises(errors.CallTimeout) as caught:
            client.get("http://catalog/")
        assert isinstance(caught.value, LIBRARIES[library].TimeoutException)
        assert 1 <= len(caught.value.attempts) <= 3
        assert caught.value.request.url == "http://catalog/"
        assert isinstance(caught.value.__cause__, LIBRARIES[library].ReadTimeout)
        with pytest.raises(errors.CallTimeout) as caught:
            client.get("http://catalog/", extensions={"unsticky": {"timeout": 0.05}})
        assert len(caught.value.attempts) == 1


@both
def test_the_attempt_timeout_ends_at_the_headers(library: str, three: list[Upstream]) -> None:
    """A body may take longer than an attempt may, between its chunks too; the caller's own timeout holds for it."""
    three[0].behave("slow", seconds=0.6, chunks=2)
    with (
        pools_over(library, [three[0].url], retry={"attempt_timeout": "300ms"}, timeout="400ms") as pools,
        pools.client() as client,
    ):
        assert client.get("http://catalog/").text == "x" * 20
        with pytest.raises(LIBRARIES[library].ReadTimeout):
            client.get("http://catalog/", timeout=0.3)
        assert in_flight(pools) == 0


@both
def test_retry_after_is_obeyed(library: str, three: list[Upstream]) -> None:
    """A 503 with Retry-After is repeated elsewhere after that time; its connection is given back first."""
    three[0].behave("status", status=503, headers={"Retry-After": "1"}, times=1)
    with pools_over(library, [three[0].url], retry=NOWAIT) as pools, pools.client() as client:
        answer = client.get("http://catalog/")
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() >= 1
        assert answer.extensions["unsticky"]["attempts"] == 2
        assert three[0].seen()["connections"] == 1
        assert in_flight(pools) == 0


@both
def test_the_last_response_is_the_callers(library: str, three: list[Upstream]) -> None:
    """When all attempts were answered with 503, the last answer is given, body and all."""
    for one in three:
        one.behave("status", status=503, body="busy")
    with pools_over(library, [one.url for one in three], retry=NOWAIT) as pools, pools.client() as client:
        answer = client.get("http://catalog/")
        assert (answer.status_code, answer.text) == (503, "busy")
        assert answer.extensions["unsticky"]["attempts"] == 3
        once = client.get("http://catalog/", extensions={"unsticky": {"retry": False}})
        assert once.extensions["unsticky"]["attempts"] == 1
        assert sum(one.seen()["requests"] for one in three) == 4
        assert in_flight(pools) == 0


@both
def test_failover_by_priority(library: str, three: list[Upstream]) -> None:
    """When the first level is gone, calls go to the next without a failure, and ejected endpoints cost nothing."""
    urls = [{"url": three[0].url}, {"url": three[1].url, "priority": 1}, {"url": three[2].url, "priority": 1}]
    ejection = {"consecutive_failures": 2, "maximum_percent": 100}
    with pools_over(library, urls, retry=NOWAIT, ejection=ejection) as pools, pools.client() as client:
        assert {client.get("http://catalog/").json()["port"] for _ in range(5)} == {three[0].port}
        three[0].kill()
        answers = [client.get("http://catalog/") for _ in range(10)]
        assert {answer.json()["port"] for answer in answers} <= {three[1].port, three[2].port}
        assert [answer.extensions["unsticky"]["attempts"] for answer in answers] == [2, 2, *[1] * 8]


@both
def test_a_truncated_body(library: str, three: list[Upstream]) -> None:
    """A body that breaks off raises the library's error, is counted against its endpoint, and gives all back."""
    three[0].behave("truncated")
    urls = [{"url": three[0].url}, {"url": three[1].url, "priority": 1}]
    ejection = {"consecutive_failures": 2, "maximum_percent": 100}
    with pools_over(library, urls, ejection=ejection) as pools, pools.client() as client:
        for _ in range(2):
            with pytest.raises(LIBRARIES[library].RemoteProtocolError):
                client.get("http://catalog/")
        assert in_flight(pools) == 0
        assert client.get("http://catalog/").json()["port"] == three[1].port


@both
def test_all_endpoints_down(library: str) -> None:
    """One exception of both families names every attempt and its reason."""
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    with pools_over(library, urls, retry=NOWAIT) as pools, pools.client() as client:
        with pytest.raises(errors.AttemptsFailed) as caught:
            client.get("http://catalog/x?secret=1")
        error = caught.value
        assert isinstance(error, LIBRARIES[library].ConnectError)
        assert type(error).__qualname__ == "AttemptsFailedToConnect"
        assert sorted(one.endpoint for one in error.attempts) == sorted(url[7:] for url in urls)
        assert {(one.failure, one.error, one.status) for one in error.attempts} == {("connect", "ConnectError", None)}
        assert [one.resend_count for one in error.attempts] == [0, 1, 2]
        assert all(str(one) in str(error) and 0 <= one.seconds < 10 for one in error.attempts)
        assert "secret" not in str(error)
        assert error.request.url == "http://catalog/x?secret=1"
        assert isinstance(error.__cause__, LIBRARIES[library].ConnectError)
        assert in_flight(pools) == 0


@both
def test_an_empty_pool(library: str) -> None:
    """Where there is no endpoint nothing is sent, and the error is a ConnectError."""
    with pools_over(library, ["http://a:1"]) as pools, pools.client() as client:
        served = pools.find("http", "catalog", None)
        assert served is not None
        with served.pool.lock:
            served.pool.replace(())
        with pytest.raises(errors.NoHealthyEndpoint) as caught:
            client.get("http://catalog/")
        assert isinstance(caught.value, LIBRARIES[library].ConnectError)
        assert (caught.value.pool, caught.value.attempts) == ("catalog", ())
        assert caught.value.request.url == "http://catalog/"


@both
def test_all_attempts_broken(library: str, three: list[Upstream]) -> None:
    """The error is a TransportError, and no ConnectError, when the last attempt did connect."""
    for one in three:
        one.behave("drop")
    with pools_over(library, [one.url for one in three], retry=NOWAIT) as pools, pools.client() as client:
        with pytest.raises(LIBRARIES[library].TransportError) as caught:
            client.get("http://catalog/")
        assert isinstance(caught.value, errors.AttemptsFailed)
        assert not isinstance(caught.value, (LIBRARIES[library].ConnectError, LIBRARIES[library].TimeoutException))


@both
def test_all_attempts_in_vain(library: str, three: list[Upstream]) -> None:
    """The error is a TimeoutException when the last attempt had no answer in time."""
    for one in three:
        one.pause()
    retry = {**NOWAIT, "attempt_timeout": "50ms"}
    with pools_over(library, [one.url for one in three], retry=retry) as pools, pools.client() as client:
        with pytest.raises(LIBRARIES[library].TimeoutException) as caught:
            client.get("http://catalog/")
        assert isinstance(caught.value, errors.AttemptsFailed)


@both
def test_one_attempt_raises_its_own_error(library: str) -> None:
    """Without retries, the library's own exception comes out, as it would without us."""
    with pools_over(library, [f"http://127.0.0.1:{free_port()}"], retry={"attempts": 1}) as pools:
        with pools.client() as client, pytest.raises(LIBRARIES[library].ConnectError) as caught:
            client.get("http://catalog/")
        assert type(caught.value) is LIBRARIES[library].ConnectError
        assert caught.value.request.url == "http://catalog/"


@both
def test_retries_spend_the_budget(library: str) -> None:
    """With everything down, attempts stay within 1.2 + 10/rate per call."""
    url = f"http://127.0.0.1:{free_port()}"
    retry = {**NOWAIT, "attempts": 3, "budget_per_second": 1.0}
    with pools_over(library, [url], retry=retry) as pools, pools.client() as client:
        attempts = 0
        for _ in range(300):
            with pytest.raises(LIBRARIES[library].ConnectError) as caught:
                client.get("http://catalog/")
            attempts += len(getattr(caught.value, "attempts", "1"))
        assert 300 < attempts <= 300 * 1.2 + 10 * 1.0 + 30


@both
def test_an_interrupted_call_gives_all_back(library: str, three: list[Upstream]) -> None:
    """Ctrl-C in the middle of a call, or of a body, leaves no lease and no connection."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupt_when(so: Callable[[], object]) -> None:
        eventually(so, 60)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with (
            pools_over(library, [three[0].url]) as pools,
            pools.client(timeout=60) as client,
            ThreadPoolExecutor() as other,
        ):
            moments: list[tuple[dict[str, Any], Callable[[], object]]] = [
                ({"mode": "hang"}, lambda: three[0].seen().get("requests")),
                ({"mode": "slow", "seconds": 60}, lambda: client._transport._bodies.open),  # type: ignore[attr-defined]
            ]
            for options, so in moments:
                three[0].behave(**options)
                done = other.submit(interrupt_when, so)
                with pytest.raises(KeyboardInterrupt):
                    client.get("http://catalog/")
                done.result(60)
                assert in_flight(pools) == 0
            assert not client._transport._bodies.open
            assert not client._transport._inner.busy()
    finally:
        signal.signal(signal.SIGALRM, before)


@both
def test_kill_one_of_three_under_200_concurrent_calls(library: str, three: list[Upstream]) -> None:
    """SIGKILL in the middle of 200 concurrent idempotent calls: none fails."""
    for one in three:
        one.behave("echo", delay=0.02)
    killed = threading.Event()
    with (
        pools_over(library, [one.url for one in three]) as pools,
        pools.client(timeout=30) as client,
        ThreadPoolExecutor(200) as threads,
    ):

        def call(_: int) -> int:
            after = 0
            while after < 3:  # calls that began after the kill
                after += killed.is_set()
                assert client.get("http://catalog/").status_code == 200
            return after

        results = threads.map(call, range(200))
        eventually(lambda: three[0].seen().get("requests", 0) > 50)
        three[0].kill()
        killed.set()
        assert sum(results) == 600
        assert in_flight(pools) == 0
