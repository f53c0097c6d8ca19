"""Moving in: sessions that Flask and Flask-Session made are taken over at first use, and once."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from threading import Barrier
from typing import Any

import flask
import pytest
import redis
from flask import Flask, session
from itsdangerous import TimestampSigner

from support import old_sessions
from support.old_sessions import KEY, Old, respelled, tampered
from support.valkey import Valkey, valkey  # noqa: F401 - a fixture
from unsticky.flask import SessionInterface
from unsticky.sessions import Sessions
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

    try:
        yield app
    finally:
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
        user, thief = Client(app, old.cookie), Client(app, respelled(old.cookie))
        user.get("/read")
        user.get("/clear")
        assert thief.get("/read") == "{}"
        clock.advance(11)
        assert thief.get("/read") == "{}"


@pytest.mark.parametrize("old", ["flask", "signed"], indirect=True)
def test_a_flask_cookie_that_was_tampered_with_is_nobodys(old: Old, url: str, clock: FakeClock) -> None:
    """A changed letter in front; and two that disagree."""
    with flask_app(old, url, clock) as app:
        assert Client(app, tampered(old.cookie)).get("/read") == "{}"
        client = app.test_client(use_cookies=False)
        both = f"session={old.cookie}; session={tampered(old.cookie)}"
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
        client.app = app
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
