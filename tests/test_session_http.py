"""Sessions on the wire, at every host: cookies and headers, when the store is asked, limits, outages, encryption."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from support.session_hosts import HOSTS, flask_app, serving, starlette_app
from support.valkey import Valkey, running, valkey  # noqa: F401 - a fixture
from unsticky.errors import SessionNotLoaded, SessionValueError
from unsticky.sessions import Sessions


@pytest.fixture(params=["sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store on the event loop's thread, and one across a socket."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db"
    server: Valkey = request.getfixturevalue("valkey")
    return server.url


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/s.db"


every_host = pytest.mark.parametrize("host", HOSTS)


def attributes(header: str) -> dict[str, str]:
    """Of a Set-Cookie header, with the cookie's name, without its value and its time."""
    first, *rest = (part.strip() for part in header.split(";"))
    pairs = [part.partition("=") for part in rest]
    found = {name.lower(): value for name, _, value in pairs if name.lower() not in ("max-age", "expires")}
    return {"name": first.partition("=")[0], **found}


# The cookie -----------------------------------------------------------------------------------------------------------


@every_host
def test_over_https_the_cookie_has_the_host_prefix(host: str, file: str) -> None:
    """And it is really deleted: a browser takes such a deletion only with Secure and Path=/."""
    with serving(host, {"store": file, "cookie": {"secure": True}}) as client:
        given = client.get("/write/a").headers["set-cookie"]
        assert given.startswith("__Host-session=")
        assert list(client.cookies) == ["__Host-session"]
        assert client.get("/read").json() == {"a": 1}
        assert attributes(client.get("/clear").headers["set-cookie"]) == attributes(given)
        assert list(client.cookies) == []


def test_flasks_own_secure_cookie_has_the_host_prefix(file: str) -> None:
    """With Flask's configuration alone; a name that the app chose is kept."""
    with serving("flask", {"store": file}, SESSION_COOKIE_SECURE=True) as client:
        given = client.get("/write/a").headers["set-cookie"]
        assert attributes(given) == {"name": "__Host-session", "secure": "", "httponly": "", "path": "/"}
        assert attributes(client.get("/clear").headers["set-cookie"]) == attributes(given)
        assert list(client.cookies) == []
    for config in ({"SESSION_COOKIE_NAME": "sid"}, {"SESSION_COOKIE_PATH": "/shop"}, {"SESSION_COOKIE_DOMAIN": "a.b"}):
        with serving("flask", {"store": file}, SESSION_COOKIE_SECURE=True, **config) as client:
            assert not client.get("/write/a").headers["set-cookie"].startswith("__Host-")


@every_host
@pytest.mark.parametrize(
    "cookie",
    [
        {"path": "/shop"},
        {"domain": "example.com", "secure": True},
        {"secure": True, "partitioned": True, "same_site": "none"},
        {"http_only": False, "same_site": "strict", "name": "sid"},
    ],
)
def test_a_deletion_has_the_cookies_attributes(host: str, file: str, cookie: dict[str, Any]) -> None:
    """All of them, and the cookie has all that the settings say."""
    with serving(host, {"store": file, "cookie": cookie}) as client:
        response = client.get("/write/a")
        given = response.headers["set-cookie"]
        token = given.split(";")[0]
        deletion = client.get("/clear", headers={"Cookie": token}).headers["set-cookie"]
    assert attributes(deletion) == attributes(given)
    assert ("partitioned" in attributes(given)) == cookie.get("partitioned", False)
    assert ("secure" in attributes(given)) == cookie.get("secure", False)
    assert ("httponly" in attributes(given)) == cookie.get("http_only", True)
    assert attributes(given).get("domain") == cookie.get("domain")
    assert attributes(given)["path"] == cookie.get("path", "/")
    assert attributes(given).get("samesite", "lax").lower() == cookie.get("same_site", "lax")


def lasts(response: httpx.Response) -> bool | None:
    header = response.headers.get("set-cookie")
    return None if header is None else bool(re.search("max-age=|expires=", header, re.IGNORECASE))


@every_host
@pytest.mark.parametrize("setting", [True, False, None])
def test_a_session_may_choose_whether_its_cookie_outlives_the_browser(
    host: str, file: str, setting: bool | None
) -> None:
    """The choice is kept over requests, and wins over the setting; without one the setting decides."""
    with serving(host, {"store": file, "cookie": {"permanent": setting}}) as client:
        if host != "flask":
            assert lasts(client.get("/write/a")) == (setting is not False)
        for choice in ("no", "yes", "no"):
            assert lasts(client.get(f"/permanent/{choice}")) in ((choice == "yes"), None)
            assert lasts(client.get("/rotate")) == (choice == "yes")
            assert lasts(client.get("/rotate")) == (choice == "yes")


@pytest.mark.parametrize("host", ["starlette", "wsgi"])
def test_a_session_that_stops_being_permanent_is_told_at_once(host: str, file: str) -> None:
    """A cookie with a Max-Age that the browser has must be replaced by one without, and the other way."""
    with serving(host, {"store": file}) as client:
        assert lasts(client.get("/write/a")) is True
        assert lasts(client.get("/permanent/no")) is False
        assert lasts(client.get("/permanent/yes")) is True


@every_host
def test_it_is_told_though_the_app_has_saved_it_before(host: str, file: str) -> None:
    """The cookie goes out with the headers, whoever wrote the session."""
    with serving(host, {"store": file}) as client:
        client.get("/write/a")
        assert lasts(client.get("/permanent/no/saved")) is False
        assert lasts(client.get("/permanent/yes/saved")) is True


@every_host
def test_a_login_that_was_saved_survives_an_answer_of_ours(host: str, file: str) -> None:
    """The old token ended with it, so the 503 brings the new one."""
    with serving(host, {"store": file}) as client:
        before = client.get("/write/a").headers["set-cookie"]
        failed = client.get("/fail/ann")
        assert failed.status_code == 503
        assert failed.headers["set-cookie"] != before
        assert failed.headers["cache-control"] == "no-store"
        assert client.get("/read").json() == {"a": 1}


# The header -----------------------------------------------------------------------------------------------------------


@every_host
def test_the_token_in_a_header(host: str, url: str) -> None:
    """For programs: no cookie, `Vary` on that header, and an empty one at the end."""
    with serving(host, {"store": url, "transport": "header", "header": "X-Basket"}) as client:
        given = client.get("/write/a")
        token = {"x-basket": given.headers["x-basket"]}
        assert given.headers["vary"] == "X-Basket"
        assert given.headers["cache-control"] == "no-store"
        read = client.get("/read", headers=token)
        assert read.json() == {"a": 1}
        assert read.headers["vary"] == "X-Basket"
        assert "x-basket" not in read.headers
        assert client.get("/read").json() == {}
        assert client.get("/read", headers={"Cookie": f"session={token['x-basket']}"}).json() == {}
        rotated = client.get("/rotate", headers=token).headers["x-basket"]
        assert rotated != token["x-basket"]
        ended = client.get("/clear", headers={"X-BASKET": rotated})
        assert ended.headers["x-basket"] == ""
        assert client.get("/read", headers=token).json() == {}
        plain = client.get("/plain", headers=token)
        assert "vary" not in plain.headers
        for response in (given, read, ended, plain):
            assert "set-cookie" not in response.headers


# When the store is asked ----------------------------------------------------------------------------------------------


async def loads(request: Request) -> Response:
    await request.session.load()
    request.session["n"] = request.session.get("n", 0) + 1
    return JSONResponse(dict(request.session))


async def names(request: Request) -> Response:
    assert request.session is not None
    return PlainTextResponse("named")


@contextmanager
def lazily(server: Valkey, **options: Any) -> Iterator[TestClient]:
    routes = [Route("/loads", loads), Route("/api/loads", loads), Route("/api/names", names), Route("/names", names)]
    settings = {"store": server.url, "store_timeout": "2s", **options}
    with TestClient(starlette_app(settings, *routes)) as client:
        yield client


def commands(server: Valkey) -> int:
    with server.client() as client:
        stats = client.info("commandstats")
    names = ("get", "hgetall", "evalsha", "eval", "fcall", "fcall_ro", "hmget", "evalsha_ro")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)


@pytest.mark.parametrize(("options", "prefix"), [({"lazy": True}, ""), ({"exclude": ["/api/"]}, "/api")])
def test_a_lazy_session_is_loaded_when_the_app_says_so(options: dict[str, Any], prefix: str) -> None:
    """Not asked of a networked store before; used too early it says what is missing; without a token it just works."""
    with running() as server, lazily(server, **options) as client:
        asked = commands(server)
        assert client.get(f"{prefix}/read").json() == {}
        assert client.get(f"{prefix}/names").text == "named"
        assert client.get("/plain").text == "plain"
        assert commands(server) == asked
        assert client.get(f"{prefix}/loads").json() == {"n": 1}
        asked = commands(server)
        assert client.get(f"{prefix}/names").text == "named"
        for path in ("read", "write/a", "clear", "append/a", "rotate", "login/ann"):
            with pytest.raises(SessionNotLoaded, match=r"await request\.session\.load\(\)"):
                client.get(f"{prefix}/{path}")
        assert commands(server) == asked
        assert client.get(f"{prefix}/loads").json() == {"n": 2}


def test_what_is_not_excluded_is_loaded_before_the_app(valkey: Valkey) -> None:  # noqa: F811
    """`exclude` is about the paths that begin with one of its texts."""
    with lazily(valkey, exclude=["/api/"]) as client:
        client.get("/loads")
        assert client.get("/read").json() == {"n": 1}
        with pytest.raises(SessionNotLoaded):
            client.get("/api/read")


# Limits ---------------------------------------------------------------------------------------------------------------


@every_host
def test_sizes_have_limits_that_say_what_to_change(host: str, url: str) -> None:
    """Of one key, and of the session; what was there stays."""
    sizes = {"maximum_value_size": 1000, "maximum_session_size": 1500}
    with serving(host, {"store": url, **sizes}) as client:
        client.get("/big/900")
        with pytest.raises(SessionValueError) as caught:
            client.get("/big/1200")
        assert str(caught.value) == (
            "session['big']: takes 1,203 bytes; a key may take 1,000 (session.maximum_value_size)"
        )
        for key in "abc":
            client.get(f"/write/{key * 150}")
        with pytest.raises(SessionValueError, match=r"session: takes 1,\d+ bytes; it may take 1,500 \(session\.max"):
            client.get(f"/write/{'d' * 150}")
        assert client.get("/read").json()["big"] == "x" * 900


@every_host
def test_a_login_beyond_the_limit_is_409(host: str, url: str) -> None:
    """With its own text, and no cookie; the sessions that are there go on."""
    settings = {"store": url, "maximum_sessions": 1, "at_limit": "refuse"}
    user = f"user-{host}"
    with serving(host, settings) as client:
        client.get(f"/login/{user}")
        token = dict(client.cookies)
        client.cookies.clear()
        refused = client.get(f"/login/{user}")
        assert refused.status_code == 409
        assert refused.text.startswith("You are logged in on as many devices as are allowed")
        assert "set-cookie" not in refused.headers
        assert refused.headers["cache-control"] == "no-store"
        saved = client.get(f"/save/{user}")
        assert (saved.status_code, "set-cookie" in saved.headers) == (409, False)
        client.cookies.update(token)
        assert client.get("/read").json() == {"user": user}
        client.get("/clear")
        assert client.get(f"/login/{user}").status_code == 200


@every_host
def test_the_list_of_devices_knows_no_more_than_it_should(host: str, url: str) -> None:
    """The User-Agent, cut; the network, not the address. Only if `metadata` is set."""
    user = f"device-{host}"
    for metadata in (True, False):
        with serving(host, {"store": url, "metadata": metadata}) as client:
            client.get(f"/login/{user}-{metadata}", headers={"User-Agent": "Lynx/2.9 " + "x" * 300})
        sessions = Sessions(_options(url))
        [info] = sessions.list(f"{user}-{metadata}")
        sessions.close()
        assert info.user_agent == (("Lynx/2.9 " + "x" * 300)[:256] if metadata else "")
        assert info.network in (("127.0.0.0/24", "") if metadata else ("",))  # the test client has no address


def _options(url: str, **options: Any) -> Any:
    from unsticky import settings

    return settings.load({"session": {"store": url, "store_timeout": "2s", **options}}).session


# Saving now -----------------------------------------------------------------------------------------------------------


def test_save_and_reload_in_flask(url: str) -> None:
    """What is saved is there for others before the response; the cookie comes with the response."""
    app = flask_app({"store": url, "store_timeout": "2s"})
    seen: list[Any] = []

    @app.get("/saves")
    def saves() -> str:
        flask.session["a"] = 1
        flask.session.save()  # type: ignore[attr-defined]
        sessions = app.extensions["unsticky"].sessions
        seen.append(sessions.find(flask.session.id))  # type: ignore[attr-defined]
        flask.session["b"] = 1
        flask.session.reload()  # type: ignore[attr-defined]
        return ",".join(flask.session)

    client = app.test_client()
    first = client.get("/saves")
    assert first.text == "a"
    assert seen[0].keys == 1
    assert "Set-Cookie" in first.headers
    assert client.get("/read").json == {"a": 1}
    app.extensions["unsticky"].close()


async def saves(request: Request) -> Response:
    request.session["a"] = 1
    await request.session.save()
    info = await request.state.unsticky.sessions.find_async(request.session.id)
    request.session["b"] = 1
    await request.session.reload()
    return JSONResponse([info.keys, *request.session])


async def talk(websocket: WebSocket) -> None:
    if websocket.query_params:
        websocket.session.update(websocket.query_params)
    await websocket.accept()
    async for word in websocket.iter_text():
        match word.split():
            case ["set", name]:
                websocket.session[name] = 1
            case [verb]:
                await getattr(websocket.session, verb)()
        await websocket.send_json(dict(websocket.session))


@pytest.fixture
def socket_client(url: str) -> Iterator[TestClient]:
    routes = [Route("/saves", saves), WebSocketRoute("/talk", talk)]
    with TestClient(starlette_app({"store": url, "store_timeout": "2s"}, *routes)) as client:
        yield client


def test_save_and_reload_in_starlette(socket_client: TestClient) -> None:
    """What is saved is there for others before the response; the cookie comes with the response."""
    first = socket_client.get("/saves")
    assert first.json() == [1, "a"]
    assert "set-cookie" in first.headers
    assert socket_client.get("/read").json() == {"a": 1}


def test_a_websocket_may_begin_a_session(socket_client: TestClient) -> None:
    """Before it is accepted: the cookie goes out with that."""
    with socket_client.websocket_connect("/talk?user=ann") as socket:
        headers = {name.decode(): value.decode() for name, value in socket.extra_headers or []}
        assert headers["set-cookie"].startswith("session=")
    cookie = {"Cookie": headers["set-cookie"].split(";")[0]}
    assert socket_client.get("/read", headers=cookie).json() == {"user": "ann"}


def test_a_websocket_saves_reloads_and_commits_at_its_end(socket_client: TestClient) -> None:
    """While requests of the same session come and go."""
    socket_client.get("/write/first")
    with socket_client.websocket_connect("/talk") as socket:

        def say(text: str) -> Any:
            socket.send_text(text)
            return socket.receive_json()

        say("set one")
        assert socket_client.get("/read").json() == {"first": 1}
        say("save")
        assert socket_client.get("/read").json() == {"first": 1, "one": 1}
        socket_client.get("/write/two")
        assert "two" not in say("set lost")
        assert say("reload") == {"first": 1, "one": 1, "two": 1}
        say("set last")
    assert socket_client.get("/read").json() == {"first": 1, "one": 1, "two": 1, "last": 1}


def test_a_websocket_does_not_undo_a_logout(socket_client: TestClient) -> None:
    """It goes on, and what it writes is dropped."""
    socket_client.get("/write/first")
    with socket_client.websocket_connect("/talk") as socket:
        socket.send_text("set one")
        socket.receive_json()
        kept = dict(socket_client.cookies)
        socket_client.get("/clear")
    socket_client.cookies.update(kept)
    assert socket_client.get("/read").json() == {}


# Outages --------------------------------------------------------------------------------------------------------------


@every_host
def test_with_read_only_outages_pages_are_shown_and_writes_refused(host: str) -> None:
    """The session is empty, not ended: no cookie is touched, and it is back with its store."""
    with running(save="") as server:
        settings = {"store": server.url, "on_outage": "read_only", "store_timeout": "300ms", "breaker_failures": 0}
        with serving(host, settings) as client:
            client.get("/write/a")
            cookies = dict(client.cookies)
            with server.paused():
                read = client.get("/read")
                assert (read.status_code, read.json()) == (200, {})
                for path in ("/write/b", "/clear", "/append/a", "/login/ann"):
                    refused = client.get(path)
                    assert refused.status_code == 503
                    assert int(refused.headers["retry-after"]) > 0
                    assert "set-cookie" not in refused.headers
                assert "set-cookie" not in read.headers
            assert dict(client.cookies) == cookies
            assert client.get("/read").json() == {"a": 1}


# Encryption -----------------------------------------------------------------------------------------------------------

OLD, NEW = "an encryption key of long ago", "an encryption key of today"


@every_host
def test_encrypted_sessions_say_nothing_in_the_store(host: str) -> None:
    """But for the owner, who is looked for. What was moved to another field or session is refused."""
    with running() as server, serving(host, {"store": server.url, "encryption_keys": [NEW]}) as client:
        client.get("/login/ann-the-user")
        first = dict(client.cookies)
        client.cookies.clear()
        client.get("/login/eve-the-user")
        client.get("/write/user2")
        values = [value for fields in server.records().values() for value in fields.values()]
        assert client.get("/read").json()["user"] == "eve-the-user"
        sessions = {key: fields for key, fields in server.records().items() if "v1:" in key}
        assert len(sessions) == 2
        assert values
        assert not any(b"the-user" in value for value in values)
        anns, eves = sorted(sessions, key=lambda key: len(sessions[key]))
        field, other = "user", "user2"
        server.plant(anns, sessions[anns] | {field: sessions[eves][field]})
        assert client.get("/read", headers=_cookie(first)).json() == {}
        server.plant(anns, sessions[anns])
        assert client.get("/read", headers=_cookie(first)).json() == {"user": "ann-the-user"}
        server.plant(eves, sessions[eves] | {field: sessions[eves][other]})
        assert client.get("/read").json() == {}


def _cookie(cookies: dict[str, str]) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}


@every_host
def test_encryption_keys_rotate(host: str, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The newest encrypts, all decrypt. Without the old key: 503, and no logout; with it again all is there."""
    with serving(host, {"store": url, "encryption_keys": [OLD]}) as client:
        client.get("/write/a")
        cookies = dict(client.cookies)
    with serving(host, {"store": url, "encryption_keys": [NEW]}) as client:
        refused = client.get("/read", headers=_cookie(cookies))
        assert refused.status_code == 503
        assert "set-cookie" not in refused.headers
        assert client.get("/plain", headers=_cookie(cookies)).status_code == 200
        assert "not among `encryption_keys`" in caplog.text
    with serving(host, {"store": url, "encryption_keys": [NEW, OLD]}) as client:
        assert client.get("/write/b", headers=_cookie(cookies)).json() == {"a": 1, "b": 1}
        assert client.get("/write/a2", headers=_cookie(cookies)).status_code == 200


@every_host
def test_a_record_that_is_not_encrypted_is_refused(host: str, url: str) -> None:
    """There is no fallback to plain values: who can write to the store can't make up a session."""
    with serving(host, {"store": url}) as client:
        client.get("/write/admin")
        cookies = dict(client.cookies)
    with serving(host, {"store": url, "encryption_keys": [NEW]}) as client:
        response = client.get("/read", headers=_cookie(cookies))
        assert (response.status_code, response.json()) == (200, {})
        assert "set-cookie" not in response.headers
