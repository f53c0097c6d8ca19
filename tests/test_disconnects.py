"""A client that goes away cancels the outbound calls of its request; the app gets every message all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.pools import LIBRARIES, both
from support.upstream import Upstream, upstream
from support.waiting import eventually
from unsticky import ClientDisconnected, disconnects
from unsticky.disconnects import AsgiClient
from unsticky.starlette import UnstickyMiddleware

GONE = {"type": "http.disconnect"}
App = Callable[[Any, Any, Any], Awaitable[None]]


class Server:
    """The server's side of one request: hypercorn tells of a disconnect once, uvicorn whenever it is asked."""

    def __init__(self, *messages: dict[str, Any], repeats: bool) -> None:
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.receiving = 0
        self._repeats = repeats
        for message in messages:
            self.queue.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        self.receiving += 1
        assert self.receiving == 1, "two receive at once: each may get what the other waits for"
        try:
            message = await self.queue.get()
        finally:
            self.receiving -= 1
        if message == GONE and self._repeats:
            self.queue.put_nowait(GONE)
        return message

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.queue.put_nowait(GONE)  # as servers do when a response is complete

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def body(*parts: str) -> list[dict[str, Any]]:
    """The messages of a request."""
    return [
        {"type": "http.request", "body": part.encode(), "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]


@pytest.fixture
def one() -> Generator[Upstream]:
    with upstream() as found:
        yield found


@pytest.fixture(params=[True, False], ids=["told-again", "told-once"])
def repeats(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def serving(one: Upstream, app: App, library: str = "httpx", **inbound: Any) -> AsyncIterator[Any]:
    """`app` behind the middleware; afterwards nothing of it may be left."""
    settings = {
        "client": library,
        "session": {"store": "memory://"},
        "inbound": inbound,
        "pools": {"next": {"endpoints": [one.url], "ejection": {"consecutive_failures": 1}}},
    }
    before = asyncio.all_tasks()
    middleware = UnstickyMiddleware(app, settings)

    async def run(server: Server) -> None:
        scope = {"type": "http", "path": "/", "method": "POST", "headers": []}
        await middleware(scope, server.receive, server.send)

    yield run
    status = middleware._state.pools.status()["next"]  # type: ignore[union-attr]
    assert [(one.in_flight, one.ejected_for) for one in status] == [(0, 0)]
    await middleware.aclose()
    for _ in range(1000):
        if asyncio.all_tasks() == before:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(asyncio.all_tasks() - before)


def client_of(scope: Any) -> Any:
    return scope["state"]["unsticky"].client


async def answer(send: Any, text: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


async def seen(one: Upstream, name: str, least: int = 1) -> None:
    """Wait until a counter of the upstream is there."""
    await asyncio.to_thread(eventually, lambda: one.seen().get(name, 0) >= least)


@both
@pytest.mark.parametrize("reads", [True, False], ids=["body-read", "body-unread"])
def test_the_call_is_cancelled_and_the_app_goes_on(library: str, reads: bool, repeats: bool, one: Upstream) -> None:
    """Its call raises, also as an error of the library; its clean-up runs; the upstream's connection is closed."""
    one.behave("hang")
    cleaned: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if reads:
            assert (await receive())["body"] == b"all"
        with pytest.raises(LIBRARIES[library].TransportError) as caught:
            await client_of(scope).get("http://next/x")
        assert isinstance(caught.value, ClientDisconnected)
        assert str(caught.value.request.url) == "http://next/x"
        await asyncio.sleep(0.01)  # the task itself is not cancelled
        cleaned.append(caught.value.pool)
        await client_of(scope).get("http://next/x")

    async def main() -> None:
        server = Server(*body("all"), repeats=repeats)
        async with serving(one, app, library) as run:
            task = asyncio.ensure_future(run(server))
            await seen(one, "GET /x")
            server.queue.put_nowait(GONE)
            await asyncio.wait_for(task, 10)
        assert server.status == 499

    asyncio.run(main())
    assert cleaned == ["next"]
    assert one.seen()["requests"] == 1
    eventually(lambda: one.seen()["connections"] == 0)


@both
def test_a_body_that_is_read(library: str, repeats: bool, one: Upstream) -> None:
    """The same in the middle of a response's body; it says nothing against the endpoint."""
    one.behave("slow", seconds=0.2, chunks=1000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with client_of(scope).stream("GET", "http://next/x") as response:
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def main() -> None:
        server = Server(*body(""), repeats=repeats)
        async with serving(one, app, library) as run:
            task = asyncio.ensure_future(run(server))
            await asyncio.to_thread(eventually, lambda: len(server.sent) > 1)
            server.queue.put_nowait(GONE)
            await asyncio.wait_for(task, 10)

    asyncio.run(main())
    eventually(lambda: one.seen()["connections"] == 0)


def test_after_the_response(repeats: bool, one: Upstream) -> None:
    """Servers say http.disconnect then, too: what goes on in the background is not cancelled."""
    one.behave("status", status=200, delay=0.2)
    statuses = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        beside = asyncio.ensure_future(client_of(scope).get("http://next/beside"))
        await seen(one, "GET /beside")
        await answer(send)
        statuses.extend([(await beside).status_code, (await client_of(scope).get("http://next/after")).status_code])
        assert await receive() == GONE

    async def main() -> None:
        server = Server(*body(""), repeats=repeats)
        async with serving(one, app) as run:
            await asyncio.wait_for(run(server), 10)
        assert server.status == 200

    asyncio.run(main())
    assert statuses == [200, 200]


def test_a_response_that_is_complete_as_the_listener_begins(repeats: bool) -> None:
    """It is cancelled before its first step, and the app's own receive does not wait for it."""

    async def main() -> None:
        server = Server(repeats=repeats)
        client = AsgiClient(server.receive)
        with patch.object(disconnects, "PATIENCE", 0.0):
            call = asyncio.ensure_future(client.while_there(asyncio.sleep(60), ClientDisconnected))
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0, client.end)  # in one turn of the loop with the listener's beginning
        await asyncio.sleep(0.01)
        server.queue.put_nowait(GONE)
        assert await asyncio.wait_for(client.receive(), 5) == GONE
        call.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("off", ["setting", "call"])
def test_where_it_is_not_wanted(off: str, one: Upstream) -> None:
    """By the settings, or for one call."""
    one.behave("status", status=200, delay=0.3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        extensions = {"unsticky": {"inbound": False}} if off == "call" else {}
        got = await client_of(scope).get("http://next/x", extensions=extensions)
        await answer(send, str(got.status_code).encode())

    async def main() -> None:
        server = Server(*body(""), GONE, repeats=True)
        async with serving(one, app, cancel_on_disconnect=off == "call") as run:
            await asyncio.wait_for(run(server), 10)
        assert server.sent[1]["body"] == b"200"

    asyncio.run(main())


def test_an_app_that_is_cancelled_itself(one: Upstream) -> None:
    """By its server, in the middle of a call: a cancellation stays one."""
    one.behave("hang")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await client_of(scope).get("http://next/x")

    async def main() -> None:
        async with serving(one, app) as run:
            task = asyncio.ensure_future(run(Server(*body(""), repeats=False)))
            await seen(one, "GET /x")
            await asyncio.sleep(3 * disconnects.PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


STEPS = st.lists(st.sampled_from(["receive", "call", "peek", "turn"]), max_size=12)


@settings(deadline=None)
@given(
    st.lists(st.text("ab", max_size=2), min_size=1, max_size=4), st.lists(STEPS, min_size=1, max_size=3), st.booleans()
)
def test_no_message_is_lost(parts: list[str], tasks: list[list[str]], repeats: bool) -> None:
    """Whatever tasks of an app receive, call and give up, in whatever order: each message comes once, in its place."""

    async def main() -> None:
        server = Server(repeats=repeats)
        client = AsgiClient(server.receive)
        got: list[Any] = []
        reading = asyncio.Lock()  # as apps do it: one reads the body

        async def act(steps: list[str]) -> None:
            for step in steps:
                if step == "receive":
                    with suppress(TimeoutError):
                        async with reading, asyncio.timeout(0.002):
                            got.append(await client.receive())
                elif step == "peek":  # Starlette's is_disconnected
                    async with reading:
                        peeking = asyncio.ensure_future(client.receive())
                        await asyncio.sleep(0)
                        if not peeking.done():
                            peeking.cancel()
                        with suppress(asyncio.CancelledError):
                            got.append(await peeking)
                elif step == "call":
                    with suppress(ClientDisconnected):
                        await client.while_there(asyncio.sleep(0.001), lambda: ClientDisconnected("gone", pool="p"))
                else:
                    await asyncio.sleep(0)

        async def feed() -> None:
            for message in [*body(*parts), GONE]:
                server.queue.put_nowait(message)
                await asyncio.sleep(0.001)

        await asyncio.gather(feed(), *map(act, tasks))
        client.end()
        await asyncio.sleep(0)
        while GONE not in got:
            got.append(await asyncio.wait_for(client.receive(), 5))
        first = got.index(GONE)
        assert got[:first] == body(*parts)
        assert all(message == GONE for message in got[first:])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with patch.object(disconnects, "PATIENCE", 0):
        asyncio.run(main())
