"""The same small app on every host, behind a real client with a real cookie jar."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from flask import Flask, session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.testclient import TestClient

from unsticky.errors import SessionUnavailable
from unsticky.flask import Unsticky
from unsticky.starlette import UnstickyMiddleware
from unsticky.wsgi import UnstickyMiddleware as WsgiMiddleware

HOSTS = ["flask", "starlette", "wsgi"]


def act(session: Any, path: str) -> Any:
    """What a request to `path` does with its session; on an event loop, something to wait for."""
    match path.strip("/").split("/"):
        case ["write", key]:
            session[key] = 1
        case ["append", key]:
            session.setdefault(key, []).append(1)
        case ["clear"]:
            session.clear()
        case ["rotate"]:
            session.rotate()
        case ["permanent", choice]:
            session.permanent = choice == "yes"
            session["a"] = 1
        case ["permanent", choice, "saved"]:
            session.permanent = choice == "yes"
            return session.save()
        case ["login", user]:
            session.clear()
            session.owner = user
            session["user"] = user
        case ["save", user]:
            session.owner = user
            return session.save()
        case ["fail", user]:
            return _saved_and_failed(session, user)
        case ["big", size]:
            session["big"] = "x" * int(size)
        case _:
            pass
    return None


def _saved_and_failed(session: Any, user: str) -> Any:
    session.owner = user
    waits = session.save()
    if waits is None:
        raise SessionUnavailable()
    return _failed(waits)


async def _failed(waits: Awaitable[None]) -> None:
    await waits
    raise SessionUnavailable()


def flask_app(settings: dict[str, Any], **config: Any) -> Flask:
    app = Flask("shop")
    app.config.update(SECRET_KEY="a key of flask", PROPAGATE_EXCEPTIONS=True, **config)
    Unsticky(app, settings={"session": settings})

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    @app.get("/<path:path>")
    def view(path: str) -> Any:
        act(session, path)
        return dict(session)

    return app


def starlette_app(settings: dict[str, Any], *routes: BaseRoute) -> Starlette:
    async def plain(request: Request) -> Response:
        return PlainTextResponse("plain")

    async def view(request: Request) -> Response:
        waits = act(request.session, request.url.path)
        if waits is not None:
            await waits
        return JSONResponse(dict(request.session))

    middleware = Middleware(UnstickyMiddleware, settings={"session": settings})
    return Starlette(routes=[*routes, Route("/plain", plain), Route("/{path:path}", view)], middleware=[middleware])


def wsgi_app(settings: dict[str, Any]) -> WsgiMiddleware:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        session, path = environ["unsticky.session"], environ["PATH_INFO"]
        if path == "/plain":
            start_response("200 OK", [])
            return [b"plain"]
        act(session, path)
        body = json.dumps(dict(session)).encode()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [body]

    return WsgiMiddleware(app, settings={"session": settings})


@contextmanager
def serving(host: str, settings: dict[str, Any], **config: Any) -> Iterator[httpx.Client]:
    """A client of the app, over https. `config`: of Flask. The store is given 2 s: the machine may be busy."""
    settings = {"store_timeout": "2s", **settings}
    if host == "starlette":
        with TestClient(starlette_app(settings), base_url="https://localhost") as client:
            yield client
        return
    app: Any = flask_app(settings, **config) if host == "flask" else wsgi_app(settings)
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="https://localhost") as client:
        yield client
    (app.extensions["unsticky"] if host == "flask" else app).close()
