"""What others build on sessions works on top of ours, on any replica: logins, permissions, OAuth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Any

import flask
import flask_login
import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from flask import Flask
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from support.valkey import Valkey, valkey  # noqa: F401 - a fixture
from unsticky.flask import Unsticky
from unsticky.starlette import SessionMiddleware, UnstickyMiddleware


@pytest.fixture(params=["sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store on the event loop's thread, and one across a socket."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db"
    server: Valkey = request.getfixturevalue("valkey")
    return server.url


Get = Callable[..., httpx.Response]


@pytest.fixture
def replicas() -> Iterator[Callable[[list[httpx.Client]], Get]]:
    """Makes one browser of clients of several replicas: each request goes to the next one."""
    opened: list[httpx.Client] = []

    def browser(clients: list[httpx.Client]) -> Get:
        opened.extend(clients)
        for client in clients:
            client.cookies = clients[0].cookies
        turns = cycle(clients)

        def get(path: str, **options: Any) -> httpx.Response:
            client = next(turns)
            response = client.get(path, **options)
            for other in clients:  # httpx copies the jar that it is given
                other.cookies = client.cookies
            return response

        return get

    yield browser
    for client in opened:
        client.close()


# Flask-Login ----------------------------------------------------------------------------------------------------------


class User(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, id_: str) -> None:
        self.id = id_


def login_app(url: str, protection: str) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY="key", PROPAGATE_EXCEPTIONS=True)
    Unsticky(app, settings={"session": {"store": url, "store_timeout": "2s"}})
    manager = flask_login.LoginManager(app)
    manager.session_protection = protection
    manager.user_loader(User)

    @app.get("/login/<name>")
    def login(name: str) -> str:
        flask.session.owner = name  # type: ignore[attr-defined]
        flask_login.login_user(User(name))
        return "hello"

    @app.get("/me")
    @flask_login.login_required
    def me() -> str:
        return str(flask_login.current_user.id)

    @app.get("/fresh")
    @flask_login.fresh_login_required
    def fresh() -> str:
        return "fresh"

    @app.get("/logout")
    def logout() -> str:
        flask_login.logout_user()
        flask.session.clear()
        return "bye"

    @app.get("/basket")
    def basket() -> str:
        flask.session.setdefault("basket", []).append("tea")
        return str(len(flask.session["basket"]))

    return app


def flask_client(app: Flask) -> httpx.Client:
    return httpx.Client(transport=httpx.WSGITransport(app), base_url="http://localhost")


@pytest.mark.parametrize("protection", ["strong", "basic"])
def test_flask_login(url: str, replicas: Callable[[list[httpx.Client]], Get], protection: str) -> None:
    """Log in on one replica, be known on the other, log out: a cookie that was kept is worth nothing then."""
    apps = [login_app(url, protection) for _ in range(2)]
    clients = [flask_client(app) for app in apps]
    get = replicas(clients)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flask-Login's own use of datetime.utcnow
        assert get("/me").status_code == 401
        assert [get("/basket").text for _ in range(3)] == ["1", "2", "3"]
        before = dict(clients[0].cookies)
        assert get("/login/ann").text == "hello"
        assert dict(clients[0].cookies) != before
        assert [get("/me").text for _ in range(4)] == ["ann"] * 4
        assert get("/fresh").text == "fresh"
        assert get("/basket").text == "4"

        other_agent = {"User-Agent": "stolen/1.0"}
        kept = clients[0].cookies
        thief = get("/me", headers=other_agent)
        assert thief.status_code == (401 if protection == "strong" else 200)
        assert get("/fresh").status_code == 401
        clients[0].cookies = clients[1].cookies = kept

        get("/login/ann")
        kept = dict(clients[0].cookies)
        assert get("/logout").text == "bye"
        assert get("/me").status_code == 401
        assert get("/me", headers={"Cookie": f"session={kept['session']}"}).status_code == 401
    for app in apps:
        app.extensions["unsticky"].close()


# Starlette's AuthenticationMiddleware ---------------------------------------------------------------------------------


class SessionBackend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        if "user" not in conn.session:
            return None
        return AuthCredentials(["authenticated", *conn.session.get("scopes", [])]), SimpleUser(conn.session["user"])


async def log_in(request: Request) -> Response:
    request.session.update(user=request.path_params["name"], scopes=["admin"] * ("admin" in request.query_params))
    request.session.owner = request.path_params["name"]
    return PlainTextResponse("hello")


async def log_out(request: Request) -> Response:
    request.session.clear()
    return PlainTextResponse("bye")


@requires("authenticated", status_code=401)
async def whoami(request: Request) -> Response:
    return PlainTextResponse(request.user.display_name)


@requires("admin", status_code=403)
async def administer(request: Request) -> Response:
    return PlainTextResponse("done")


@requires("authenticated")
async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.display_name)
    await websocket.close()


def authenticating(url: str, session: type) -> Starlette:
    ours = (
        Middleware(UnstickyMiddleware, settings={"session": {"store": url, "store_timeout": "2s"}})
        if session is UnstickyMiddleware
        else Middleware(SessionMiddleware, secret_key="key", store=url)
    )
    routes = [
        Route("/login/{name}", log_in),
        Route("/logout", log_out),
        Route("/me", whoami),
        Route("/admin", administer),
        WebSocketRoute("/talk", talk),
    ]
    return Starlette(routes=routes, middleware=[ours, Middleware(AuthenticationMiddleware, backend=SessionBackend())])


@pytest.mark.parametrize("session", [UnstickyMiddleware, SessionMiddleware])
def test_starlettes_authentication(url: str, session: type) -> None:
    """`requires` on views and WebSockets, over two replicas."""
    with TestClient(authenticating(url, session)) as one, TestClient(authenticating(url, session)) as two:
        assert one.get("/me").status_code == 401
        assert one.get("/login/ann").text == "hello"
        two.cookies = one.cookies
        assert two.get("/me").text == "ann"
        assert two.get("/admin").status_code == 403
        with two.websocket_connect("/talk") as socket:
            assert socket.receive_text() == "ann"
        assert two.get("/login/bob?admin=1").text == "hello"
        kept = {"Cookie": f"session={two.cookies['session']}"}
        assert one.get("/admin", headers=kept).text == "done"
        one.get("/logout", headers=kept)
        assert two.get("/admin").status_code == 403
        with pytest.raises(WebSocketDisconnect), two.websocket_connect("/talk"):
            pass


# FastAPI --------------------------------------------------------------------------------------------------------------


def current_user(request: Request) -> str:
    user = request.session.get("user")
    if user is None:
        raise HTTPException(401)
    return str(user)


def fastapi_app(url: str) -> FastAPI:
    app = FastAPI()
    app.add_middleware(UnstickyMiddleware, settings={"session": {"store": url, "store_timeout": "2s"}})

    @app.post("/login/{name}")
    async def login(request: Request, name: str) -> dict[str, str]:
        request.session["user"] = name
        return {"hello": name}

    @app.get("/me")
    def me(user: Annotated[str, Depends(current_user)]) -> dict[str, str]:  # FastAPI runs it in a thread
        return {"user": user}

    @app.post("/basket/{item}")
    def add(request: Request, item: str, user: Annotated[str, Depends(current_user)]) -> list[str]:
        request.session.setdefault("basket", []).append(item)
        return list(request.session["basket"])

    return app


def test_a_fastapi_dependency(url: str) -> None:
    """In coroutines and in plain functions, which run in threads; errors of dependencies too."""
    with TestClient(fastapi_app(url)) as one, TestClient(fastapi_app(url)) as two:
        assert one.get("/me").status_code == 401
        assert one.post("/login/ann").json() == {"hello": "ann"}
        two.cookies = one.cookies
        assert two.get("/me").json() == {"user": "ann"}
        assert two.post("/basket/tea").json() == ["tea"]
        assert one.post("/basket/milk").json() == ["tea", "milk"]


# OAuth ----------------------------------------------------------------------------------------------------------------


async def authorize(request: Request) -> Response:
    """As Authlib does it: the state's name is the key, what belongs to it the value."""
    state = token_urlsafe(16)
    request.session[f"_state_idp_{state}"] = {"data": {"nonce": token_urlsafe(8), "next": "/basket"}, "exp": 1.5}
    return RedirectResponse(f"https://idp.example/authorize?state={state}")


async def callback(request: Request) -> Response:
    kept = request.session.pop(f"_state_idp_{request.query_params['state']}", None)
    if kept is None:
        return PlainTextResponse("mismatching state", 400)
    request.session["user"] = "ann"
    request.session.rotate()
    return PlainTextResponse(kept["data"]["next"])


def test_an_oauth_login_begins_on_one_replica_and_ends_on_another(url: str) -> None:
    """Two tabs at once: neither overwrites the other's state; each is good once."""

    def app() -> Starlette:
        middleware = Middleware(UnstickyMiddleware, settings={"session": {"store": url, "store_timeout": "2s"}})
        routes = [Route("/authorize", authorize), Route("/callback", callback)]
        return Starlette(routes=routes, middleware=[middleware])

    with TestClient(app(), follow_redirects=False) as one, TestClient(app(), follow_redirects=False) as two:
        first = one.get("/authorize").headers["location"].partition("state=")[2]
        two.cookies = one.cookies
        second = two.get("/authorize").headers["location"].partition("state=")[2]
        before = dict(two.cookies)
        assert two.get("/callback", params={"state": first}).text == "/basket"
        assert dict(two.cookies) != before
        one.cookies = two.cookies
        assert one.get("/callback", params={"state": second}).text == "/basket"
        assert one.get("/callback", params={"state": second}).status_code == 400
        assert one.get("/callback", params={"state": "forged"}).status_code == 400
