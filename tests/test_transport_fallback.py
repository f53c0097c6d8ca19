"""Calls that fail for good, over real servers: what steps in, and who is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from typing import Any
from uuid import uuid4

import pytest

from support.otlp import telemetry
from support.pools import LIBRARIES, both, in_flight
from support.ports import free_port
from support.upstream import Upstream, upstreams
from unsticky import Pools, errors
from unsticky.pools import CallFailed

drivers = pytest.mark.parametrize("driver", ["sync", "async"])
DEAD = f"http://127.0.0.1:{free_port()}"
NOWAIT = {"backoff": 0}


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def call(pools: Any, driver: str, method: str = "GET", url: str = "http://main/x", **kwargs: Any) -> Any:
    async def main() -> Any:
        async with pools.async_client() as client:
            return await client.request(method, url, **kwargs)

    if driver == "async":
        return asyncio.run(main())
    with pools.client() as client:
        return client.request(method, url, **kwargs)


def pools_of(library: str, main: list[str], fallback: Any, spare: list[str] | None = None, **options: Any) -> Pools:
    first = {"endpoints": main, "fallback": fallback, "retry": NOWAIT, **options}
    second = {"endpoints": spare or [DEAD], "retry": NOWAIT}
    return Pools.from_settings({"client": library, "pools": {"main": first, "spare": second}})


@both
@drivers
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_pool_when_nothing_was_sent(library: str, driver: str, method: str, two: list[Upstream]) -> None:
    """For any method; the response says so, and keeps the error."""
    with pools_of(library, [DEAD], {"pool": "spare"}, [two[1].url]) as pools:
        answer = call(pools, driver, method, content=b"body" if method == "POST" else None)
        assert answer.json()["port"] == two[1].port
        assert answer.json()["body"] == ("body" if method == "POST" else "")
        found = answer.extensions["unsticky"]
        assert (found["pool"], found["fallback"], found["attempts"]) == ("spare", "spare", 1)
        assert isinstance(found["error"], errors.AttemptsFailed)
        assert isinstance(found["error"], LIBRARIES[library].ConnectError)
        assert in_flight(pools) == 0


@both
@drivers
def test_another_pool_after_something_was_sent(library: str, driver: str, two: list[Upstream]) -> None:
    """Idempotent calls only, unless the settings name the method; a body that is gone can't be sent again."""
    two[0].behave("drop")
    with pools_of(library, [two[0].url], {"pool": "spare"}, [two[1].url]) as pools:
        assert call(pools, driver, "PUT", content=b"x").json()["body"] == "x"
        with pytest.raises(LIBRARIES[library].RemoteProtocolError):
            call(pools, driver, "POST", content=b"x")
        keyed = call(pools, driver, "POST", content=b"x", headers={"Idempotency-Key": "1"})
        assert keyed.json()["port"] == two[1].port
    with pools_of(library, [two[0].url], {"pool": "spare", "methods": ["POST"]}, [two[1].url]) as pools:
        assert call(pools, driver, "POST", content=b"x").json()["port"] == two[1].port
        with pytest.raises(errors.AttemptsFailed):
            call(pools, driver, "GET")


@both
@drivers
def test_by_status(library: str, driver: str, two: list[Upstream]) -> None:
    """A status counts as failed if the settings say so. Its connection is given back."""
    two[0].behave("status", status=503)
    with pools_of(library, [two[0].url], {"pool": "spare", "statuses": [503]}, [two[1].url]) as pools:
        answer = call(pools, driver)
        assert answer.json()["port"] == two[1].port
        assert answer.extensions["unsticky"]["failed_status"] == 503
        assert "error" not in answer.extensions["unsticky"]
        two[0].behave("status", status=500)
        assert call(pools, driver).status_code == 500
        assert in_flight(pools) == 0


@both
@drivers
def test_a_fallback_that_fails_too(library: str, driver: str, two: list[Upstream]) -> None:
    """The caller gets what its own pool gave: the error, with a note, or the response, whole."""
    with pools_of(library, [DEAD], {"pool": "spare"}) as pools:
        with pytest.raises(errors.AttemptsFailed) as caught:
            call(pools, driver)
        assert caught.value.pool == "main"
        assert "its fallback, the pool 'spare', failed too: pool 'spare': all 3" in caught.value.__notes__[0]
    two[0].behave("status", status=503, body="sorry")
    with pools_of(library, [two[0].url], {"pool": "spare", "statuses": [503]}) as pools:
        answer = call(pools, driver)
        assert (answer.status_code, answer.text) == (503, "sorry")
        assert "fallback" not in answer.extensions["unsticky"]
        assert in_flight(pools) == 0


@both
@drivers
def test_a_response_of_its_own(library: str, driver: str, two: list[Upstream]) -> None:
    """With status, headers and body as the settings say, for any method, streamed or not."""
    fallback = {"status": 200, "headers": {"X-From": "settings"}, "json": '{"items": []}'}
    with pools_of(library, [DEAD], fallback) as pools:
        answer = call(pools, driver, "POST", content=b"x")
        assert (answer.status_code, answer.json(), answer.headers["x-from"]) == (200, {"items": []}, "settings")
        assert answer.headers["content-type"] == "application/json"
        assert answer.extensions["unsticky"]["fallback"] == "response"
        assert answer.extensions["unsticky"]["error"].attempts[0].failure == "connect"
        with pools.client() as client, client.stream("GET", "http://main/") as streamed:
            assert streamed.read() == b'{"items": []}'
        with pytest.raises(errors.AttemptsFailed):
            call(pools, driver, extensions={"unsticky": {"fallback": False}})


@both
@drivers
def test_the_time_of_the_call_is_for_both(library: str, driver: str, two: list[Upstream]) -> None:
    """The other pool gets what is left; if nothing is, the call fails, but an answer of its own needs no time."""
    two[1].pause()
    with pools_of(library, [DEAD], {"pool": "spare"}, [two[1].url], timeout="300ms") as pools:
        with pytest.raises(errors.AttemptsFailed) as caught:
            call(pools, driver)
        assert "the call's time was over" in caught.value.__notes__[0]
    two[0].pause()
    with pools_of(library, [two[0].url], {"pool": "spare"}, [two[1].url], timeout="100ms") as pools:
        with pytest.raises(errors.CallTimeout) as caught_:
            call(pools, driver)
        assert not hasattr(caught_.value, "__notes__")
    with pools_of(library, [two[0].url], {"status": 504}, timeout="100ms") as pools:
        assert call(pools, driver).status_code == 504


@both
def test_a_cancelled_fallback_leaves_nothing(library: str, two: list[Upstream]) -> None:
    """Both responses are given back when the caller goes away in the middle of it."""
    two[0].behave("status", status=503)
    two[1].pause()

    async def main() -> None:
        async with pools.async_client() as client:
            task = asyncio.create_task(client.get("http://main/"))
            while pools.status()["spare"][0].in_flight == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    with pools_of(library, [two[0].url], {"pool": "spare", "statuses": [503]}, [two[1].url]) as pools:
        asyncio.run(main())
        assert in_flight(pools) == 0


@both
@drivers
def test_handlers_are_told(library: str, driver: str, two: list[Upstream]) -> None:
    """About every pool that failed, also when a fallback saved the call; once each; not about successes."""
    seen: list[CallFailed] = []
    with pools_of(library, [DEAD], {"pool": "spare"}, [two[1].url]) as pools:
        pools.on_error(seen.append)
        pools.on_error(pool="Spare")(seen.append)
        call(pools, driver)
        (event,) = seen
        assert (event.pool, event.method, event.status, event.fallback) == ("main", "GET", None, "spare")
        assert isinstance(event.error, errors.AttemptsFailed)
        assert [one.failure for one in event.attempts] == ["connect"] * 3
        assert 0 <= event.seconds < 10
        seen.clear()
        two[1].behave("drop")
        with pytest.raises(errors.AttemptsFailed):
            call(pools, driver)
        assert [(one.pool, one.fallback) for one in seen] == [("spare", None), ("spare", None), ("main", None)]
        with pytest.raises(KeyError):
            pools.on_error(seen.append, pool="nobody")


@both
@drivers
def test_a_handler_can_break_nothing(library: str, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged; those after it are told all the same."""
    seen: list[str] = []
    with pools_of(library, [DEAD], {"status": 503}) as pools:

        @pools.on_error
        def broken(event: CallFailed) -> None:
            raise LookupError("mine")

        @pools.on_error(pool="main")
        def fine(event: CallFailed) -> None:
            seen.append(event.reason)

        assert call(pools, driver).status_code == 503
    assert seen == ["AttemptsFailedToConnect"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


@both
def test_coroutine_functions(library: str, caplog: pytest.LogCaptureFixture) -> None:
    """Async clients await them; sync ones say that they can't."""
    seen: list[str] = []
    with pools_of(library, [DEAD], {"status": 503}) as pools:

        @pools.on_error
        async def tell(event: CallFailed) -> None:
            await asyncio.sleep(0)
            seen.append(event.pool)

        call(pools, "async")
        assert seen == ["main"]
        call(pools, "sync")
    assert seen == ["main"]
    assert "is a coroutine function" in caplog.text


@both
@drivers
def test_telemetry(library: str, driver: str, two: list[Upstream], caplog: pytest.LogCaptureFixture) -> None:
    """A log line, an event on the caller's span, counts, and the trace's id for handlers; nothing of the request."""
    from opentelemetry import trace

    name, seen = f"fallback-{uuid4().hex}", list[CallFailed]()
    main = {"endpoints": [DEAD], "fallback": {"status": 200}, "retry": NOWAIT}
    with telemetry() as otlp, Pools.from_settings({"client": library, "pools": {name: main}}) as pools:
        pools.on_error(seen.append)
        with trace.get_tracer("the app").start_as_current_span("caller"):
            call(pools, driver, "GET", f"http://{name}/secret?token=secret")
        (caller,) = (span for span in otlp.spans(client=False) if span.name == "caller")
        counts = {
            metric: [(p.attributes, p.value) for p in otlp.points(f"unsticky.pool.{metric}")]
            for metric in ("calls.failed", "fallbacks")
        }
    assert (seen[0].trace_id, seen[0].span_id) == (caller.trace_id, caller.span_id)
    assert "unsticky.fallback" in [event for event, _ in caller.events]
    reason = {"unsticky.pool": name, "unsticky.reason": "AttemptsFailedToConnect"}
    assert (reason, 1) in counts["calls.failed"]
    assert ({"unsticky.pool": name, "unsticky.fallback": "response"}, 1) in counts["fallbacks"]
    (record,) = [one for one in caplog.records if getattr(one, "unsticky_event", "") == "fallback"]
    assert (record.levelname, record.unsticky_fallback, record.trace_id) == ("WARNING", "response", caller.trace_id)  # type: ignore[attr-defined]
    assert "secret" not in caplog.text.replace("HTTP Request", "")
    assert "could not connect" in record.getMessage()


@both
@drivers
def test_an_answer_to_head(library: str, driver: str) -> None:
    """Has the headers, in Latin-1 too, and no body."""
    fallback = {"status": 200, "headers": {"X-Name": "caf\xe9"}, "body": "abc"}
    with pools_of(library, [DEAD], fallback) as pools:
        answer = call(pools, driver, "HEAD")
        assert (answer.status_code, answer.content, answer.headers["x-name"]) == (200, b"", "caf\xe9")
        assert call(pools, driver).content == b"abc"
