"""Moving in: sessions that Starlette made are taken over at first use, and once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from itsdangerous import TimestampSigner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from support import old_sessions
from support.old_sessions import KEY, Old, respelled, tampered
from support.valkey import Valkey, valkey  # noqa: F401 - a fixture
from unsticky.sessions import Sessions
from unsticky.starlette import SessionMiddleware, UnstickyMiddleware
from unsticky.testing import FakeClock

FUTURE = "2999-01-01"


@pytest.fixture(params=["sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store on the event loop's thread, and one across a socket."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db"
    server: Valkey = request.getfixturevalue("valkey")
    return server.url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(time=time.time())


Make = Callable[[Any, str, Old, FakeClock], Any]


def by_settings(app: Any, url: str, old: Old, clock: FakeClock, **options: Any) -> UnstickyMiddleware:
    settings = {"store": url, "store_timeout": "2s", "migrate_until": FUTURE, **old.options, **options}
    middleware = UnstickyMiddleware(app, settings={"session": settings})
    middleware.sessions = Sessions(middleware.sessions.options, clock=clock)
    return middleware


def by_argument(app: Any, url: str, old: Old, clock: FakeClock, **arguments: Any) -> SessionMiddleware:
    arguments = {"secret_key": KEY, "migrate_until": FUTURE, **arguments}
    middleware = SessionMiddleware(app, store=url, **arguments)
    middleware.sessions = Sessions(middleware.sessions.options, clock=clock)
    return middleware


def asgi_app() -> Starlette:
    meeting = asyncio.Barrier(2)

    async def untouched(request: Request) -> Response:
        return PlainTextResponse("")

    async def read(request: Request) -> Response:
        return JSONResponse(dict(request.session))

    async def write(request: Request) -> Response:
        request.session[request.path_params["key"]] = 1
        return PlainTextResponse("")

    async def meet(request: Request) -> Response:
        seen, what = dict(request.session), request.path_params["what"]
        await meeting.wait()
        if what in ("login", "logout"):
            request.session.clear()
        if what != "logout":
            request.session["root" if what == "login" else what] = 1
        return JSONResponse(seen)

    async def clear(request: Request) -> Response:
        request.session.clear()
        return PlainTextResponse("")

    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "one"
            yield request.scope["session"].get("user", "nobody")

        return StreamingResponse(body())

    routes = [
        Route("/", untouched),
        Route("/read", read),
        Route("/write/{key}", write),
        Route("/meet/{what}", meet),
        Route("/clear", clear),
        Route("/stream", stream),
    ]
    return Starlette(routes=routes)


@asynccontextmanager
async def serving(make: Make, url: str, old: Old, clock: FakeClock, **options: Any) -> AsyncIterator[Any]:
    """A function that makes browsers."""
    app = make(asgi_app(), url, old, clock, **options)
    browsers = []

    def browser(cookie: str = old.cookie, name: str = "session") -> httpx.AsyncClient:
        made = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://localhost")
        made.cookies.set(name, cookie, domain="localhost.local")
        browsers.append(made)
        return made

    yield browser
    for made in browsers:
        await made.aclose()
    await app.aclose()


both_hosts = pytest.mark.parametrize("make", [by_settings, by_argument])


@both_hosts
def test_a_starlette_session_goes_on(make: Make, url: str, clock: FakeClock) -> None:
    """With all its values; once used, the old cookie is worth nothing more."""
    old = old_sessions.starlette()

    async def scenario() -> None:
        async with serving(make, url, old, clock) as browser:
            client, thief = browser(), browser()
            assert "set-cookie" not in (await client.get("/")).headers
            assert (await client.get("/read")).json() == old.values
            await client.get("/write/more")
            assert (await client.get("/read")).json() == old.values | {"more": 1}
            clock.advance(11)
            late = await thief.get("/read")
            assert late.json() == {}
            assert "set-cookie" not in late.headers
            await client.get("/clear")
            assert (await browser().get("/read")).json() == {}
            assert (await browser(respelled(old.cookie)).get("/read")).json() == {}

    asyncio.run(scenario())


@both_hosts
def test_a_starlette_session_presented_twice_at_once_is_one(make: Make, url: str, clock: FakeClock) -> None:
    """Two tasks, both loaded before either commits: both tokens open the session with both changes."""
    old = old_sessions.starlette()

    async def scenario() -> None:
        async with serving(make, url, old, clock) as browser:
            clients = [browser(), browser()]
            met = [client.get(f"/meet/{what}") for client, what in zip(clients, ("one", "two"), strict=True)]
            for response in await asyncio.gather(*met):
                assert response.json() == old.values
            for client in clients:
                assert (await client.get("/read")).json() == old.values | {"one": 1, "two": 1}
            assert clients[0].cookies["session"] != clients[1].cookies["session"]

    asyncio.run(scenario())


@both_hosts
@pytest.mark.parametrize("what", ["login", "logout"])
def test_nobody_follows_into_a_starlette_login(make: Make, url: str, clock: FakeClock, what: str) -> None:
    """Who presents the old cookie beside it is nobody, then and later."""
    old = old_sessions.starlette()

    async def scenario() -> None:
        async with serving(make, url, old, clock) as browser:
            user, thief = browser(), browser()
            await asyncio.gather(user.get(f"/meet/{what}"), thief.get("/meet/stay"))
            assert (await user.get("/read")).json() == ({"root": 1} if what == "login" else {})
            assert (await thief.get("/read")).json() == {}
            assert (await browser().get("/read")).json() == {}

    asyncio.run(scenario())


def test_starlette_cookies_that_are_nobodys(url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tampered with, expired, signed with another key, no session, after `migrate_until`."""
    old = old_sessions.starlette()
    with monkeypatch.context() as patched:
        patched.setattr(TimestampSigner, "get_timestamp", lambda _: int(time.time()) - 15 * 86400)
        expired = old_sessions.starlette().cookie
    wrong = old_sessions.starlette(key="another").cookie
    signer = TimestampSigner(KEY)
    others = [signer.sign(text).decode() for text in ("bm8gSlNPTg==", "WzFd", "%%%", "e30=")]

    async def scenario() -> None:
        async with serving(by_settings, url, old, clock) as browser:
            for cookie in (tampered(old.cookie), expired, wrong, *others):
                response = await browser(cookie).get("/read")
                assert response.json() == {}
                assert "set-cookie" not in response.headers
        async with serving(by_settings, url, old, FakeClock(), migrate_until="2020-01-01") as browser:
            assert (await browser().get("/read")).json() == {}
        async with serving(by_argument, url, old, clock, max_age=None) as browser:
            assert (await browser(expired).get("/read")).json()["user"] == "ann"  # Starlette takes it for ever, too

    asyncio.run(scenario())


@pytest.mark.parametrize("old_name", ["session", "__Host-session"])
def test_a_starlette_cookie_of_another_name_is_deleted(url: str, clock: FakeClock, old_name: str) -> None:
    """Ours gets the `__Host-` prefix; the app that had it before goes on with it."""
    old = old_sessions.starlette()

    async def scenario() -> None:
        async with serving(by_settings, url, old, clock, cookie={"secure": True}) as browser:
            client = browser(name=old_name)
            response = await client.get("/read")
            assert response.json() == old.values
            ours, *deletions = response.headers.get_list("set-cookie")
            assert ours.startswith("__Host-session=")
            assert [text.partition("=")[0] for text in deletions] == ["session"] * (old_name == "session")
            assert all("expires=Thu, 01 Jan 1970" in text for text in deletions)
            ours = ours.split(";")[0]
            again = await browser("", "none").get("/read", headers={"Cookie": ours})
            assert again.json() == old.values

    asyncio.run(scenario())


def test_with_header_transport_the_old_cookie_is_deleted(url: str, clock: FakeClock) -> None:
    """The token goes on in the header."""
    old = old_sessions.starlette()

    async def scenario() -> None:
        async with serving(by_settings, url, old, clock, transport="header") as browser:
            response = await browser().get("/read")
            assert response.json() == old.values
            assert response.headers["set-cookie"].startswith("session=null;")
            token = {"X-Session": response.headers["x-session"]}
            assert (await browser("", "none").get("/read", headers=token)).json() == old.values

    asyncio.run(scenario())


def test_read_after_the_headers_it_is_left_for_the_next_request(url: str, clock: FakeClock) -> None:
    """Its token could not be sent: whoever reads it in a stream stays logged in."""
    old = old_sessions.starlette()

    async def scenario() -> None:
        async with serving(by_settings, url, old, clock) as browser:
            client = browser()
            assert (await client.get("/stream")).text == "oneann"
            clock.advance(11)
            assert (await client.get("/read")).json() == old.values

    asyncio.run(scenario())


def test_lazy_sessions_are_taken_over_when_they_are_loaded(clock: FakeClock, valkey: Valkey) -> None:  # noqa: F811
    """And not before: an old cookie is a token as any other."""
    old = old_sessions.starlette()
    store = valkey.url

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        await request.session.load()
        await JSONResponse(dict(request.session))(scope, receive, send)

    async def scenario() -> None:
        host = by_settings(app, store, old, clock, lazy=True)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url="http://x") as client:
            response = await client.get("/", headers={"Cookie": f"session={old.cookie}"})
            assert response.json() == old.values
            assert "set-cookie" in response.headers
        await host.aclose()

    asyncio.run(scenario())
