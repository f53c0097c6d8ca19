"""Moving in: sessions that Flask, Flask-Session and Starlette made are taken over at first use, and once."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from threading import Barrier
from typing import Any

import flask
import httpx
import pytest
import redis
from flask import Flask, session
from itsdangerous import TimestampSigner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from support import old_sessions
from support.old_sessions import KEY, Old
from support.valkey import Valkey, valkey  # noqa: F401 - a fixture
from unsticky.flask import SessionInterface
from unsticky.sessions import Sessions
from unsticky.starlette import SessionMiddleware, UnstickyMiddleware
from unsticky.testing import FakeClock

FUTURE = "2999-01-01"
FLASK_KINDS = ["flask", "msgpack", "json", "signed", "prefix"]


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


@pytest.fixture(params=FLASK_KINDS)
def old(request: pytest.FixtureRequest, valkey: Valkey) -> Iterator[Old]:  # noqa: F811
    if request.param == "flask":
        yield old_sessions.flask()
        return
    config: dict[str, Any] = {
        "msgpack": {},
        "json": {"SESSION_SERIALIZATION_FORMAT": "json"},
        "signed": {"SESSION_USE_SIGNER": True},
        "prefix": {"SESSION_KEY_PREFIX": "shop:"},
    }[request.param]
    with old_sessions.flask_session(valkey.port, **config) as made:
        yield made


def shown(values: Mapping[str, Any]) -> str:
    """With their types; in an order of their own, for ours need not be that of another library."""
    return repr(dict(sorted(values.items())))


# Flask ----------------------------------------------------------------------------------------------------------------


@contextmanager
def flask_app(old: Old, url: str, clock: FakeClock, **options: Any) -> Iterator[Flask]:
    """The same app on unsticky. A view of `/meet` waits, with its session loaded, until another one is there too."""
    app = Flask("shop")
    app.config.update(old.config)
    settings = {"store": url, "store_timeout": "2s", "migrate_until": FUTURE, **old.options, **options}
    app.session_interface = interface = SessionInterface(settings)
    interface.sessions.close()
    interface.sessions = Sessions(interface.options, clock=clock)
    meeting = Barrier(2)

    @app.get("/")
    def untouched() -> str:
        return ""

    @app.get("/read")
    def read() -> str:
        return shown(session)

    @app.get("/write/<key>")
    def write(key: str) -> str:
        session[key] = 1
        return ""

    @app.get("/meet/<what>")
    def meet(what: str) -> str:
        seen = shown(session)
        meeting.wait(10)
        if what == "login":
            session.clear()
            session["root"] = 1
        elif what == "logout":
            session.clear()
        else:
            session[what] = 1
        return seen

    @app.get("/clear")
    def clear() -> str:
        session.clear()
        return ""

    yield app
    interface.close()


class Client:
    """A browser with one cookie jar, kept by hand."""

    def __init__(self, app: Flask, cookie: str, name: str = "session") -> None:
        self.app = app
        self.cookies = {name: cookie}
        self.set: list[str] = []

    def get(self, path: str) -> str:
        client = self.app.test_client(use_cookies=False)
        header = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = client.get(path, headers={"Cookie": header}, base_url="https://localhost")
        assert response.status_code == 200
        self.set = response.headers.getlist("Set-Cookie")
        for text in self.set:
            for name, morsel in SimpleCookie(text).items():
                self.cookies[name] = morsel.value
                if "1970" in text:
                    del self.cookies[name]
        return response.text


def test_a_flask_session_goes_on(old: Old, url: str, clock: FakeClock) -> None:
    """With all its values, of Flask's own types too; once used, the old cookie is worth nothing more."""
    with flask_app(old, url, clock) as app:
        client, thief = Client(app, old.cookie), Client(app, old.cookie)
        client.get("/")
        assert client.set == []
        assert client.get("/read") == shown(old.values)
        assert client.cookies["session"] != old.cookie
        client.get("/write/more")
        assert client.get("/read") == shown(old.values | {"more": 1})
        clock.advance(11)
        assert thief.get("/read") == "{}"
        assert thief.set == []
        client.get("/clear")
        assert Client(app, old.cookie).get("/read") == "{}"


def test_a_flask_session_that_was_ended_is_not_taken_over_again(old: Old, url: str, clock: FakeClock) -> None:
    """A logout counts, in the very request that takes it over as well as right after it."""
    with flask_app(old, url, clock) as app:
        client = Client(app, old.cookie)
        client.get("/clear")
        assert client.cookies == {}
        assert Client(app, old.cookie).get("/read") == "{}"


def test_a_flask_session_presented_twice_at_once_is_one(old: Old, url: str, clock: FakeClock) -> None:
    """Two threads, both loaded before either commits: both tokens open the session with both changes."""
    with flask_app(old, url, clock) as app, ThreadPoolExecutor(2) as threads:
        clients = [Client(app, old.cookie), Client(app, old.cookie)]
        seen = list(threads.map(lambda client, what: client.get(f"/meet/{what}"), clients, ["one", "two"]))
        assert seen == [shown(old.values)] * 2
        for client in clients:
            assert client.get("/read") == shown(old.values | {"one": 1, "two": 1})
        assert clients[0].cookies != clients[1].cookies


@pytest.mark.parametrize("what", ["login", "logout"])
def test_nobody_follows_into_a_flask_login(url: str, clock: FakeClock, what: str) -> None:
    """Who presents the old cookie beside it is nobody, then and later."""
    old = old_sessions.flask()
    with flask_app(old, url, clock) as app, ThreadPoolExecutor(2) as threads:
        user, thief = Client(app, old.cookie), Client(app, old.cookie)
        list(threads.map(lambda client, what: client.get(f"/meet/{what}"), [user, thief], [what, "stay"]))
        assert user.get("/read") == ("{'root': 1}" if what == "login" else "{}")
        assert thief.get("/read") == "{}"
        assert Client(app, old.cookie).get("/read") == "{}"


def test_flasks_fallback_keys_are_honoured(url: str, clock: FakeClock) -> None:
    """A cookie that an older key has signed; without that key it is nobody's."""
    old = old_sessions.flask()
    old.config = {"SECRET_KEY": "newer", "SECRET_KEY_FALLBACKS": [KEY]}
    with flask_app(old, url, clock) as app:
        assert Client(app, old.cookie).get("/read") == shown(old.values)
    other = old_sessions.flask()
    other.config = {"SECRET_KEY": "newer"}
    with flask_app(other, url, clock) as app:
        assert Client(app, other.cookie).get("/read") == "{}"


def _respelled(text: str) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) ^ 1]


@pytest.mark.parametrize("kind", ["flask", "signed"])
def test_a_flask_cookie_with_a_signature_spelled_anew_is_the_same(
    kind: str,
    url: str,
    clock: FakeClock,
    valkey: Valkey,  # noqa: F811
) -> None:
    """The last letter of a signature has bits that nobody reads: that must not make a replay fresh."""
    with old_sessions.flask_session(valkey.port, SESSION_USE_SIGNER=True) as signed:
        old = signed if kind == "signed" else old_sessions.flask()
    with flask_app(old, url, clock) as app:
        user, thief = Client(app, old.cookie), Client(app, _respelled(old.cookie))
        user.get("/read")
        user.get("/clear")
        assert thief.get("/read") == "{}"
        clock.advance(11)
        assert thief.get("/read") == "{}"


def _tampered(text: str) -> str:
    return ("A" if text[0] != "A" else "B") + text[1:]


@pytest.mark.parametrize("old", ["flask", "signed"], indirect=True)
def test_a_flask_cookie_that_was_tampered_with_is_nobodys(old: Old, url: str, clock: FakeClock) -> None:
    """A changed letter in front; and two that disagree."""
    with flask_app(old, url, clock) as app:
        assert Client(app, _tampered(old.cookie)).get("/read") == "{}"
        client = app.test_client(use_cookies=False)
        both = f"session={old.cookie}; session={_tampered(old.cookie)}"
        assert client.get("/read", headers={"Cookie": both}).text == "{}"
        assert Client(app, old.cookie).get("/read") == shown(old.values)


def test_a_flask_cookie_that_expired_is_nobodys(url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older than PERMANENT_SESSION_LIFETIME, 31 days."""
    with monkeypatch.context() as patched:
        patched.setattr(TimestampSigner, "get_timestamp", lambda _: int(time.time()) - 32 * 86400)
        old = old_sessions.flask()
    with flask_app(old, url, clock) as app:
        assert Client(app, old.cookie).get("/read") == "{}"


def test_a_signed_text_that_is_no_session_is_nobodys(url: str, clock: FakeClock) -> None:
    """Something else that the app's key has signed with Flask's salt."""
    old = old_sessions.flask()
    with flask_app(old, url, clock) as app:
        serializer = flask.sessions.SecureCookieSessionInterface().get_signing_serializer(app)
        assert serializer is not None
        for text in (serializer.dumps([1, 2]), serializer.make_signer(KEY).sign("%%%").decode()):
            assert Client(app, text).get("/read") == "{}"


def test_after_migrate_until_a_flask_cookie_is_nobodys(old: Old, url: str, clock: FakeClock) -> None:
    """What was taken over before then lives on."""
    with flask_app(old, url, clock, migrate_until="2999-01-01") as app:
        client = Client(app, old.cookie)
        client.get("/read")
    with flask_app(old, url, clock, migrate_until="2020-01-01") as app:
        assert client.get("/read") == shown(old.values)
    with flask_app(old, url, FakeClock(), migrate_until="2020-01-01") as app:
        assert Client(app, old.cookie).get("/read") == "{}"


class Bomb:
    """Its pickle writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_in_flask_sessions_redis_is_refused_and_never_run(
    url: str,
    clock: FakeClock,
    valkey: Valkey,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Flask-Session itself would run it."""
    with old_sessions.flask_session(valkey.port) as old:
        pass
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with redis.Redis(port=valkey.port) as client:
            client.set(f"session:{old.cookie}", pickle.dumps({"user": Bomb(tmp_path / "ran")}, protocol))
        with flask_app(old, url, clock) as app:
            assert Client(app, old.cookie).get("/read") == "{}"
    assert not (tmp_path / "ran").exists()


def test_another_type_in_flask_sessions_redis_is_nobodys(url: str, clock: FakeClock, valkey: Valkey) -> None:  # noqa: F811
    """The client has named a key that holds no text."""
    with old_sessions.flask_session(valkey.port) as old, redis.Redis(port=valkey.port) as client:
        client.hset("session:hash", "a", "b")
    with flask_app(old, url, clock) as app:
        assert Client(app, "hash").get("/read") == "{}"


def test_flask_sessions_redis_away_is_503_and_no_logout(url: str, clock: FakeClock) -> None:
    """The session may be there, so nobody says that there is none."""
    old = Old("sid", {}, {"SECRET_KEY": KEY}, {"migrate_flask_session": "redis://127.0.0.1:1/0"})
    with flask_app(old, url, clock) as app:
        response = app.test_client(use_cookies=False).get("/read", headers={"Cookie": "session=sid"})
        assert response.status_code == 503
        assert "Set-Cookie" not in response.headers
        assert app.test_client().get("/read").text == "{}"


def test_a_flask_cookie_of_another_name_is_deleted(url: str, clock: FakeClock) -> None:
    """With the attributes that Flask gave it; ours has a name and a domain of its own."""
    old = old_sessions.flask()
    old.config |= {"SESSION_COOKIE_SAMESITE": "Strict", "SESSION_COOKIE_PATH": "/"}
    cookie = {"name": "sid", "domain": "localhost", "path": "/", "secure": True}
    with flask_app(old, url, clock, cookie=cookie) as app:
        client = Client(app, old.cookie)
        client.get("/")
        assert client.set == []
        client.get("/read")
        [deletion] = [text for text in client.set if text.startswith("session=;")]
        assert "Domain" not in deletion
        assert "SameSite=Strict" in deletion
        assert client.cookies.keys() == {"sid"}
        assert client.get("/read") == shown(old.values)
        assert client.set == []


# ASGI -----------------------------------------------------------------------------------------------------------------

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
            assert (await browser(_respelled(old.cookie)).get("/read")).json() == {}

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
            for cookie in (_tampered(old.cookie), expired, wrong, *others):
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
