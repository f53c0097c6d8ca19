"""The Flask extension: flask.session unchanged, outages as 503, one client per app."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import flask
import pytest
from flask import Flask, session, stream_with_context
from markupsafe import Markup

from support.counting import CountingStore
from unsticky.context import current
from unsticky.errors import SessionHeadersSent, SettingsError
from unsticky.flask import SessionInterface, Unsticky
from unsticky.flask_responses import cookie_text


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = Flask("shop")
    app.secret_key = "test"
    app.testing = True
    Unsticky(app, settings={"session": {"store": f"sqlite:///{tmp_path}/sessions.db"}})

    @app.get("/")
    def index() -> str:
        return "plain"

    @app.get("/read")
    def read() -> dict[str, Any]:
        return dict(session)

    @app.get("/write/<key>")
    def write(key: str) -> str:
        session[key] = 1
        return "written"

    @app.get("/clear")
    def clear() -> str:
        session.clear()
        return "cleared"

    yield app
    app.extensions["unsticky"].close()


@pytest.fixture
def store(app: Flask) -> CountingStore:
    sessions = app.extensions["unsticky"].sessions
    sessions.access.store = CountingStore(sessions.access.store)
    return sessions.access.store


def cookie_of(response: Any) -> str:
    return str(response.headers.get("Set-Cookie", ""))


def test_the_session_is_in_the_store_and_not_in_the_cookie(app: Flask) -> None:
    """The cookie holds a signed token and none of the data."""
    client = app.test_client()
    response = client.get("/write/user")
    assert cookie_of(response).startswith("session=")
    assert cookie_of(response).split(";")[0].count(".") == 2
    assert client.get("/read").json == {"user": 1}


def test_an_untouched_session_costs_no_store_call_and_no_header(app: Flask, store: CountingStore) -> None:
    """Whether the client has a session or not; a 404 neither."""
    client = app.test_client()
    client.get("/write/user")
    store.calls.clear()
    for path in ("/", "/nowhere"):
        response = client.get(path)
        assert "Set-Cookie" not in response.headers
        assert "Vary" not in response.headers
    assert store.calls == []


def test_headers_for_caches(app: Flask) -> None:
    """Vary where it was read, and no cache for a response with a cookie."""
    client = app.test_client()
    written = client.get("/write/user")
    assert (written.headers["Vary"], written.headers["Cache-Control"]) == ("Cookie", "no-store")
    read = client.get("/read")
    assert read.headers["Vary"] == "Cookie"
    assert "Cache-Control" not in read.headers
    assert "Set-Cookie" not in read.headers


def test_logout_deletes_the_cookie_with_its_own_attributes(app: Flask) -> None:
    """A browser ignores a deletion that lacks Secure, Domain or Path of the cookie."""
    app.config.update(SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Strict", SESSION_COOKIE_PATH="/shop")
    client = app.test_client()
    client.get("/write/user", base_url="https://localhost/shop")
    deletion = cookie_of(client.get("/clear", base_url="https://localhost/shop"))
    assert deletion.startswith("session=;")
    for attribute in ("Max-Age=0", "Secure", "HttpOnly", "Path=/shop", "SameSite=Strict"):
        assert attribute in deletion


@pytest.mark.parametrize("cookie", ["junk", "x" * 5000, "", "a.b.c", f"{'h' * 22}.{'s' * 43}.{'m' * 43}", "é"])
def test_bad_cookies_begin_a_new_session_without_a_store_call(app: Flask, store: CountingStore, cookie: str) -> None:
    """Junk, too long, forged."""
    client = app.test_client(use_cookies=False)
    response = client.get("/read", headers={"Cookie": f"session={cookie}"})
    assert response.json == {}
    assert "Set-Cookie" not in response.headers
    assert store.calls == []


def test_duplicated_cookies_that_disagree_are_not_believed(app: Flask, store: CountingStore) -> None:
    """A neighbour domain can plant a second cookie, never choose the session."""
    tokens = []
    for user in ("ann", "eve"):
        client = app.test_client()
        client.get(f"/write/{user}")
        tokens.append(client.get_cookie("session").value)
    store.calls.clear()
    both = "; ".join(f"session={token}" for token in tokens)
    assert app.test_client(use_cookies=False).get("/read", headers={"Cookie": both}).json == {}
    assert store.calls == []
    same = app.test_client(use_cookies=False).get("/read", headers={"Cookie": f"session=junk; session={tokens[0]}"})
    assert same.json == {"ann": 1}


def test_flasks_types_flashes_and_transactions(app: Flask) -> None:
    """What Flask's own session does, ours does."""
    values = {
        "tuple": (1, 2), "bytes": b"\xff", "markup": Markup("<b>"), "uuid": UUID(int=1),
        "when": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip

    @app.get("/flash")
    def flash() -> str:
        flask.flash(Markup("<i>saved</i>"), "info")
        return ""

    @app.get("/flashed")
    def flashed() -> str:
        return repr(flask.get_flashed_messages(with_categories=True))

    client = app.test_client()
    with client.session_transaction() as opened:
        opened.update(values)
    with client.session_transaction() as opened:
        assert dict(opened) == values
        assert [type(value) for value in opened.values()] == [type(value) for value in values.values()]
    client.get("/flash")
    assert client.get("/flashed").text == "[('info', Markup('<i>saved</i>'))]"
    assert client.get("/flashed").text == "[]"


def test_permanent_sessions(app: Flask) -> None:
    """The cookie lives as Flask's configuration says, and is refreshed when the session is used."""

    @app.get("/stay")
    def stay() -> str:
        session.permanent = True
        session["user"] = 1
        return ""

    client = app.test_client()
    assert "Expires=" in cookie_of(client.get("/stay"))
    assert "Expires=" in cookie_of(client.get("/read"))
    assert cookie_of(client.get("/")) == ""
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    assert cookie_of(client.get("/read")) == ""


def test_secret_keys_rotate(app: Flask) -> None:
    """SECRET_KEY_FALLBACKS keep sessions alive; without them a changed key ends them."""
    client = app.test_client()
    client.get("/write/user")
    app.config["SECRET_KEY"] = "newer"
    assert client.get("/read").json == {}
    app.config["SECRET_KEY_FALLBACKS"] = ["test"]
    assert client.get("/read").json == {"user": 1}


def test_an_app_without_a_secret_key_behaves_as_flask_does(app: Flask) -> None:
    """Reading is fine, writing says what is missing."""
    app.secret_key = None
    with app.test_request_context():
        assert session.get("a") is None
        with pytest.raises(RuntimeError, match="session is unavailable because no secret key"):
            session["a"] = 1


def test_an_outage_is_503_where_the_session_is_needed_and_nowhere_else(
    app: Flask, store: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """With Retry-After, a log line without ids, and no cookie set or deleted."""
    client = app.test_client()
    client.get("/write/user")
    token = client.get_cookie("session").value
    store.away = True
    for path in ("/read", "/write/more", "/clear"):
        response = client.get(path)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "Set-Cookie" not in response.headers
    assert client.get("/").status_code == 200
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    assert not any(part in caplog.text for part in token.split("."))
    store.away = False
    assert client.get("/read").json == {"user": 1}


def test_a_commit_that_fails_is_503_whatever_the_view_answered(app: Flask, store: CountingStore) -> None:
    """The view's own headers, cookies and body do not get out."""

    @app.get("/late")
    def late() -> flask.Response:
        session["a"] = 1
        store.away = True
        response = flask.Response(iter(["se", "cret"]), headers={"X-Result": "saved", "Content-Encoding": "none"})
        response.set_cookie("welcome", "yes")
        return response

    response = app.test_client().get("/late")
    assert response.status_code == 503
    assert "secret" not in response.text
    assert "X-Result" not in response.headers
    assert "Set-Cookie" not in response.headers


def test_a_login_that_was_saved_survives_a_commit_that_fails(app: Flask, store: CountingStore) -> None:
    """Its old token ended with the save, so the 503 brings the new one."""

    @app.get("/login")
    def login() -> str:
        session.owner = "ann"  # type: ignore[attr-defined]
        session.save()  # type: ignore[attr-defined]
        session["b"] = 1
        store.away = True
        return "in"

    client = app.test_client()
    client.get("/write/a")
    before = client.get_cookie("session")
    assert client.get("/login").status_code == 503
    assert client.get_cookie("session") != before
    store.away = False
    assert client.get("/read").json == {"a": 1}


def test_a_view_may_handle_the_outage_itself(app: Flask, store: CountingStore) -> None:
    """The exception is a SessionUnavailable of ours and an HTTPException of Werkzeug's."""

    @app.errorhandler(503)
    def sorry(error: Exception) -> tuple[str, int]:
        return "our own page", 503

    client = app.test_client()
    client.get("/write/user")
    store.away = True
    assert client.get("/read").text == "our own page"


def test_a_value_that_cannot_be_kept_names_its_place(app: Flask) -> None:
    """In the error that the developer sees."""

    @app.get("/bad")
    def bad() -> str:
        session["cart"] = [{"item": object()}]
        return ""

    with pytest.raises(TypeError, match=r"session\['cart'\]\[0\]\['item'\]: object can't be stored"):
        app.test_client().get("/bad")


def test_a_streamed_response_reads_and_writes_the_session(app: Flask) -> None:
    """With Flask's own stream_with_context; a session that would begin there is refused."""

    @app.get("/stream")
    def stream() -> Any:
        def body() -> Iterator[str]:
            session["streamed"] = session.get("streamed", 0) + 1
            yield str(session["streamed"])

        return stream_with_context(body()), 200

    client = app.test_client()
    with pytest.raises(SessionHeadersSent):
        client.get("/stream")
    client.get("/write/user")
    # Buffered: the test client closes the response at once, as a server does.
    assert [client.get("/stream", buffered=True).text for _ in range(2)] == ["1", "2"]
    assert client.get("/read").json == {"user": 1, "streamed": 2}


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("expires", [None, datetime(2031, 5, 6, 7, 8, 9, 10, tzinfo=UTC)])
def test_the_cookie_is_written_as_werkzeug_does(secure: bool, expires: datetime | None) -> None:
    """Attribute by attribute."""
    attributes = {"domain": "example.org", "path": "/a", "secure": secure, "httponly": True, "samesite": "Lax"}
    response = flask.Response()
    response.set_cookie("session", "aB-_.9", expires=expires, **attributes)
    assert response.headers["Set-Cookie"] == cookie_text("session", "aB-_.9", expires, attributes)


def test_each_body_and_its_end_see_their_own_request(app: Flask) -> None:
    """Two streamed bodies in turns, a request inside of a request, and what is called when a plain response closes."""
    seen = []

    @app.get("/stream/<name>")
    def stream(name: str) -> Any:
        return (f"{name} {_tenant()};" for _ in range(2))

    @app.get("/outer")
    def outer() -> str:
        inner = app.test_client().get("/stream/b", headers={"x-tenant": "b"}).text
        return f"{inner} {_tenant()}"

    @app.get("/plain")
    def plain() -> Any:
        response = app.make_response("plain")
        response.call_on_close(lambda: seen.append(_tenant()))
        return response

    client = app.test_client()
    first, second = (client.get(f"/stream/{n}", headers={"x-tenant": n}, buffered=False) for n in "ab")
    chunks = zip(first.iter_encoded(), second.iter_encoded(), strict=True)
    assert list(chunks) == [(b"a a;", b"b b;")] * 2
    assert client.get("/outer", headers={"x-tenant": "a"}).text == "b b;b b; a"
    client.get("/plain", headers={"x-tenant": "c"}, buffered=True)
    assert seen == ["c"]
    assert current.get() is None


def _tenant() -> str | None:
    state = current.get()
    assert state is not None
    return state.header("x-tenant")


def test_a_middleware_between_flask_and_us_sees_the_request_while_it_sends() -> None:
    """What it puts into the body's place may be anything."""
    app = Flask("between")
    app.config["SECRET_KEY"] = "k"
    app.get("/")(lambda: "plain")
    inner = app.wsgi_app

    def between(environ: Any, start_response: Any) -> Iterator[bytes]:
        for chunk in inner(environ, start_response):
            yield chunk + f" {_tenant()}".encode()

    app.wsgi_app = between  # type: ignore[method-assign]
    Unsticky(app, settings={"session": {"store": "memory://"}})
    assert app.test_client().get("/", headers={"x-tenant": "a"}).text == "plain a"


def test_wrong_settings_stop_the_app_at_start_up() -> None:
    """One message with every problem."""
    with pytest.raises(SettingsError) as caught:
        Unsticky(Flask("x"), settings={"session": {"stor": "x", "idle_timeout": "soon"}})
    assert 'session.stor: unknown key, did you mean "store"?' in str(caught.value)
    assert "session.idle_timeout: " in str(caught.value)


def test_settings_come_from_the_apps_config(tmp_path: Path) -> None:
    """app.config["UNSTICKY"], with init_app later."""
    app = Flask("x")
    app.config["UNSTICKY"] = {"session": {"idle_timeout": "7m"}}
    unsticky = Unsticky()
    with pytest.raises(RuntimeError, match=r"call unsticky\.init_app\(app\) first"):
        _ = unsticky.client
    unsticky.init_app(app)
    assert unsticky.state.settings.session.idle_timeout == 420
    with pytest.raises(RuntimeError, match="set up with unsticky before"):
        unsticky.init_app(app)
    app.extensions["unsticky"].close()


def test_two_apps_have_two_states(tmp_path: Path) -> None:
    """One extension object serves both, and finds the current app's."""
    unsticky = Unsticky()
    apps = []
    for name in ("one", "two"):
        app = Flask(name)
        unsticky.init_app(app, settings={"session": {"store": f"sqlite:///{tmp_path}/{name}.db"}})
        apps.append(app)
    for app in apps:
        with app.app_context():
            assert unsticky.client is app.extensions["unsticky"].client
    for app in apps:
        app.extensions["unsticky"].close()


def test_the_interface_alone(tmp_path: Path) -> None:
    """For those who want the session and nothing else."""
    app = Flask("x")
    app.secret_key = "test"
    app.session_interface = SessionInterface({"store": f"sqlite:///{tmp_path}/s.db"})

    @app.get("/")
    def count() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    client = app.test_client()
    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]
    app.session_interface.sessions.close()


def test_lists_of_sessions_are_503_in_an_outage(app: Flask, store: CountingStore) -> None:
    """They ask the store by themselves, beside the request's own session."""

    @app.get("/devices")
    def devices() -> str:
        return str(app.extensions["unsticky"].sessions.list("ann"))

    client = app.test_client()
    assert client.get("/devices").text == "[]"
    store.away = True
    response = client.get("/devices")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
