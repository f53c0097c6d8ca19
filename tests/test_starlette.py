"""The ASGI middleware: request.session unchanged, commits before the headers and after the body, outages as 503."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from support.valkey import Valkey, running, valkey  # noqa: F401 - a fixture
from support.waiting import eventually
from unsticky.errors import SessionHeadersSent, SessionUnavailable, SettingsError
from unsticky.starlette import SessionMiddleware, UnstickyMiddleware


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain", headers={"Vary": "Accept"})


async def read(request: Request) -> Response:
    return JSONResponse(dict(request.session), headers={"Vary": "Accept"})


async def write(request: Request) -> Response:
    request.session[request.path_params["key"]] = 1
    return PlainTextResponse("written", headers={"Cache-Control": "public, max-age=60"})


async def append(request: Request) -> Response:
    request.scope["session"].setdefault("items", []).append(len(request.session["items"]))
    return JSONResponse(request.session["items"])


async def clear(request: Request) -> Response:
    request.session.clear()
    return PlainTextResponse("cleared")


async def stream(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        yield "one"
        request.session["streamed"] = True

    return StreamingResponse(body())


async def background(request: Request) -> Response:
    def later() -> None:
        request.session["later"] = True

    return PlainTextResponse("soon", background=BackgroundTask(later))


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    websocket.session["talked"] = await websocket.receive_text()
    await websocket.send_json(dict(websocket.session))
    await websocket.close()


async def fails_late(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        yield "one"
        request.session.clear()
        raise RuntimeError("in the middle")

    return StreamingResponse(body())


async def refusing(websocket: WebSocket) -> None:
    websocket.session.clear()
    await websocket.close(4401)


async def endless(websocket: WebSocket) -> None:
    await websocket.accept()
    websocket.session["talked"] = True
    while True:
        await websocket.receive_text()


async def out_of_store(websocket: WebSocket) -> None:
    await websocket.accept()
    websocket.session.clear()
    raise SessionUnavailable()  # of `sessions.list_async`, say


async def which(request: Request) -> Response:
    return PlainTextResponse(type(request.state.unsticky.client).__module__)


ROUTES = [
    Route("/", plain),
    Route("/read", read),
    Route("/write/{key}", write),
    Route("/append", append),
    Route("/clear", clear),
    Route("/stream", stream),
    Route("/background", background),
    Route("/which", which),
    Route("/fails-late", fails_late),
    WebSocketRoute("/socket", socket),
    WebSocketRoute("/refusing", refusing),
    WebSocketRoute("/endless", endless),
    WebSocketRoute("/out-of-store", out_of_store),
]


@pytest.fixture(params=["sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store on the event loop's thread, and one across a socket."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db"
    server: Valkey = request.getfixturevalue("valkey")
    return server.url


def make(url: str, **session: Any) -> Starlette:
    settings = {"session": {"store": url, "store_timeout": "2s", **session}}
    return Starlette(routes=ROUTES, middleware=[Middleware(UnstickyMiddleware, settings=settings)])


@pytest.fixture
def client(url: str) -> Iterator[TestClient]:
    with TestClient(make(url)) as client:
        yield client


def test_the_session_is_in_the_store_and_not_in_the_cookie(client: TestClient) -> None:
    """And what is inside of values is kept too."""
    response = client.get("/write/user")
    assert response.headers["set-cookie"].startswith("session=")
    assert "user" not in response.headers["set-cookie"]
    assert client.get("/append").json() == [0]
    assert client.get("/append").json() == [0, 1]
    assert client.get("/read").json() == {"user": 1, "items": [0, 1]}


def test_headers_for_caches(client: TestClient) -> None:
    """Vary beside what the app has there; a public response with a cookie is no longer public."""
    written = client.get("/write/user")
    assert written.headers["vary"] == "Cookie"
    assert written.headers["cache-control"] == "no-store"
    assert client.get("/read").headers["vary"] == "Accept, Cookie"
    untouched = client.get("/")
    assert untouched.headers["vary"] == "Accept"
    assert "set-cookie" not in untouched.headers


def test_clear_ends_it_in_the_store_and_at_the_client(client: TestClient) -> None:
    """The old cookie is worth nothing any more, even if somebody kept it."""
    client.get("/write/user")
    kept = dict(client.cookies)
    deletion = client.get("/clear").headers["set-cookie"]
    assert deletion == "session=null; path=/; expires=Thu, 01 Jan 1970 00:00:00 GMT; httponly; samesite=lax"
    client.cookies.update(kept)
    assert client.get("/read").json() == {}


def test_a_streamed_body_and_a_background_task_still_write(client: TestClient) -> None:
    """An existing session's later changes are committed after the body."""
    client.get("/write/user")
    client.get("/stream")
    client.get("/background")
    assert client.get("/read").json() == {"user": 1, "streamed": True, "later": True}


def test_a_session_that_would_begin_after_the_headers_is_refused(client: TestClient) -> None:
    """Nobody could ever find it: its cookie can't be set."""
    with pytest.raises(SessionHeadersSent):
        client.get("/stream")


def test_websockets_read_and_write(client: TestClient) -> None:
    """An existing session's changes are committed when the socket closes."""
    client.get("/write/user")
    with client.websocket_connect("/socket") as socket:
        socket.send_text("hello")
        assert socket.receive_json() == {"user": 1, "talked": "hello"}
    assert client.get("/read").json() == {"user": 1, "talked": "hello"}


def test_a_logout_counts_even_if_the_app_fails_afterwards(client: TestClient) -> None:
    """The response is broken, the session is not alive any more."""
    client.get("/write/user")
    with pytest.raises(RuntimeError, match="in the middle"):
        client.get("/fails-late")
    assert client.get("/read").json() == {}


def test_a_websocket_that_is_refused_may_end_the_session(client: TestClient) -> None:
    """There is no header for a cookie, and the store is told."""
    client.get("/write/user")
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/refusing"):
        pass
    assert client.get("/read").json() == {}


def test_a_websocket_that_the_client_leaves_has_written(client: TestClient) -> None:
    """The usual end of a socket is an exception in the app."""
    client.get("/write/user")
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/endless"):
        pass
    assert client.get("/read").json() == {"user": 1, "talked": True}


def test_a_logout_counts_even_if_the_store_fails_afterwards(client: TestClient) -> None:
    """As with any other error: by the end of the connection it may be back."""
    client.get("/write/user")
    with pytest.raises(SessionUnavailable), client.websocket_connect("/out-of-store") as socket:
        socket.receive_text()
    assert client.get("/read").json() == {}


@pytest.mark.parametrize("cookie", ["junk", "x" * 5000, "", f"{'h' * 22}.{'s' * 43}", '"', "a=b=c;;=;session"])
def test_bad_cookies_begin_a_new_session(client: TestClient, cookie: str) -> None:
    """And nothing is said about them to the client."""
    response = client.get("/read", headers={"Cookie": f"session={cookie}"})
    assert response.json() == {}
    assert "set-cookie" not in response.headers


def test_a_cookie_that_lives_is_refreshed_with_a_write(client: TestClient) -> None:
    """Max-Age counts from the last write or touch."""
    first = client.get("/write/a").headers["set-cookie"]
    second = client.get("/write/b").headers["set-cookie"]
    assert first == second
    assert f"Max-Age={14 * 86400 + 60}; " in first
    assert "set-cookie" not in client.get("/read").headers


def test_cookie_settings(url: str) -> None:
    """All of them, and the secret keys sign."""
    cookie = {"name": "sid", "path": "/shop", "domain": "example.com", "secure": True, "same_site": "strict"}
    app = make(url, cookie=cookie | {"partitioned": True, "http_only": False}, secret_keys=["key"], idle_timeout="1h")
    with TestClient(app) as client:
        header = client.get("/write/a").headers["set-cookie"]
    name, *attributes = header.split("; ")
    assert name.startswith("sid=")
    assert name.count(".") == 2
    assert attributes == [
        "path=/shop",
        "Max-Age=3660",
        "samesite=strict",
        "secure",
        "domain=example.com",
        "partitioned",
    ]


def test_the_client_is_there_and_closed_at_shutdown(client: TestClient) -> None:
    """`request.state.unsticky.client`."""
    assert client.get("/which").text == "httpx"


@pytest.mark.parametrize(
    ("session", "problem"),
    [
        ({"cookie": {"same_site": "none"}}, "session.cookie.secure: must be true"),
        ({"cookie": {"partitioned": True}}, "session.cookie.secure: must be true"),
        ({"migrate_until": "2999-01-01"}, "session.migrate_until: needs `migrate_keys`"),
    ],
    ids=str,
)
def test_what_could_never_work_stops_the_app_at_start_up(session: dict[str, Any], problem: str) -> None:
    """A cookie that browsers refuse, old cookies that nobody can verify."""
    with pytest.raises(SettingsError, match=problem), TestClient(make("memory://", **session)):
        pass


def test_wrong_settings_stop_the_app_at_start_up() -> None:
    """When the middleware is made, before the first request."""
    app = make("sqlit:///x.db")
    with pytest.raises(SettingsError, match=r"session\.store: "), TestClient(app):
        pass


def test_an_outage_is_503_where_the_session_is_needed_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    """A real server, killed; and back again without a restart of the app."""
    with running() as server, TestClient(make(server.url, store_timeout="300ms")) as client:
        client.get("/write/user")
        caplog.clear()
        server.kill()
        for path in ("/read", "/write/more", "/clear", "/append"):
            response = client.get(path)
            assert (path, response.status_code) == (path, 503)
            assert int(response.headers["retry-after"]) > 0
            assert response.headers["cache-control"] == "no-store"
            assert "set-cookie" not in response.headers
        assert client.get("/").status_code == 200
        assert {record.levelno for record in caplog.records if record.name == "unsticky.session"} == {logging.ERROR}
        assert not any(part in caplog.text for part in client.cookies["session"].split("."))
        server.start()
        eventually(lambda: client.get("/write/again").status_code == 200)  # the breaker lets one try after a second
        assert client.get("/read").json() == {"again": 1}


def test_a_new_session_can_not_be_promised_while_the_store_is_away() -> None:
    """The commit fails before the headers, so the answer is 503 and not the app's."""
    with running() as server, TestClient(make(server.url, store_timeout="300ms")) as client:
        server.kill()
        response = client.get("/write/user")
        assert response.status_code == 503
        assert "written" not in response.text


def test_the_session_middleware_alone(tmp_path: Path) -> None:
    """Starlette's arguments, one changed import."""
    middleware = Middleware(SessionMiddleware, secret_key="key", max_age=None, store=f"sqlite:///{tmp_path}/s.db")
    with TestClient(Starlette(routes=ROUTES, middleware=[middleware])) as client:
        assert "Max-Age" not in client.get("/write/a").headers["set-cookie"]
        assert client.get("/read").json() == {"a": 1}


@pytest.mark.parametrize("own_cookie", [False, True])
def test_the_middleware_added_twice_is_one_session(tmp_path: Path, own_cookie: bool) -> None:
    """By mistake, or by a mounted app: under one cookie there is one session; another cookie is another session."""
    store = f"sqlite:///{tmp_path}/sessions.db"
    inner = Starlette(
        routes=[Route("/write/{key}", write), Route("/read", read)],
        middleware=[Middleware(SessionMiddleware, session_cookie="inner" if own_cookie else "session", store=store)],
    )
    app = Starlette(
        routes=[Route("/write/{key}", write), Route("/read", read), Mount("/inner", inner)],
        middleware=[Middleware(SessionMiddleware, store=store)],
    )
    with TestClient(app) as client:
        client.get("/write/outer")
        response = client.get("/inner/write/mine")
        assert len(response.headers.get_list("set-cookie")) == 1
        assert sorted(client.get("/inner/read").json()) == (["mine"] if own_cookie else ["mine", "outer"])
        assert sorted(client.get("/read").json()) == (["outer"] if own_cookie else ["mine", "outer"])
