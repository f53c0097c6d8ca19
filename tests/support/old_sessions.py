"""Sessions that other libraries really made: their cookie, and what an app needs to take them over."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import redis
from flask import Flask, session
from flask_session import Session
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

PLAIN: dict[str, Any] = {"user": "ann", "cart": ["tea"], "count": 3}
TAGGED: dict[str, Any] = {
    "tuple": (1, 2), "uuid": UUID(int=7), "when": datetime(2026, 1, 1, tzinfo=UTC),
    "markup": Markup("<b>"), "bytes": b"\xff",
}  # fmt: skip
KEY = "an old secret"


@dataclass
class Old:
    """A session as its client and its server have it."""

    cookie: str  # its value
    values: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)  # of the Flask app
    options: dict[str, Any] = field(default_factory=dict)  # of our [session]


def _from(app: Flask, values: dict[str, Any], **config: Any) -> Old:
    """Let the app begin a session with `values`."""

    @app.get("/")
    def begin() -> str:
        session.update(values)
        return ""

    client = app.test_client()
    assert client.get("/").status_code == 200
    cookie = client.get_cookie("session")
    assert cookie is not None
    return Old(cookie.value, dict(values), {"SECRET_KEY": KEY} | config)


def flask(key: str = KEY, values: dict[str, Any] | None = None) -> Old:
    """Stock Flask's signed cookie."""
    app = Flask("stock")
    app.secret_key = key
    return _from(app, PLAIN | TAGGED | {"nonce": str(uuid4())} if values is None else values)


@contextmanager
def flask_session(port: int, **config: Any) -> Iterator[Old]:
    """A record of Flask-Session in the Valkey at `port`."""
    app = Flask("flask-session")
    app.secret_key = KEY
    with redis.Redis(port=port) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its own
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client, **config)
        Session(app)
        old = _from(app, PLAIN | {"nonce": str(uuid4())}, **config)
    old.values["_permanent"] = True
    old.options["migrate_flask_session"] = f"redis://127.0.0.1:{port}/0"
    yield old


def starlette(name: str = "session", key: str = KEY, values: dict[str, Any] | None = None) -> Old:
    """The signed cookie of Starlette's own middleware."""
    values = PLAIN | {"nonce": str(uuid4())} if values is None else values

    async def begin(request: Request) -> Response:
        request.session.update(values)
        return PlainTextResponse("")

    middleware = Middleware(SessionMiddleware, secret_key=key, session_cookie=name)
    client = TestClient(Starlette(routes=[Route("/", begin)], middleware=[middleware]))
    client.get("/")
    return Old(client.cookies[name], dict(values), options={"migrate_keys": [key]})


def respelled(text: str) -> str:
    """The same signature, in other letters: nobody reads the last bits of the last one."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) ^ 1]


def tampered(text: str) -> str:
    """With another first letter."""
    return ("A" if text[0] != "A" else "B") + text[1:]
