"""The same apps for servers in processes of their own: STACK, STORE and REDIS_PORT in the environment say which."""

from __future__ import annotations

import os
from typing import Any

import redis
import redis.asyncio
import starsessions
from flask import Flask
from starlette.middleware.sessions import SessionMiddleware as SignedCookie
from starlette.types import ASGIApp, Receive, Scope, Send
from starsessions.stores.redis import RedisStore

from session_costs import asgi, wsgi
from unsticky.starlette import SessionMiddleware


def make_asgi() -> ASGIApp:
    app = asgi.app
    match os.environ["STACK"]:
        case "none":
            return _by_path(asgi.with_plain_session(app))
        case "cookie":
            return _by_path(SignedCookie(app, asgi.SECRET))
        case "peer":
            client = redis.asyncio.Redis(port=int(os.environ["REDIS_PORT"]))
            autoload = starsessions.SessionAutoloadMiddleware(app)
            return _by_path(starsessions.SessionMiddleware(autoload, RedisStore(connection=client), 86400))
        case _:
            return _by_path(SessionMiddleware(app, asgi.SECRET, store=os.environ["STORE"]))


def make_flask() -> Flask:
    match os.environ["STACK"]:
        case "none":
            app = wsgi.make_app()
            app.session_interface = wsgi.NoInterface()
            return app
        case "cookie":
            return wsgi.make_app()
        case "peer":
            return _peer()
        case "peer quiet":
            return _peer(SESSION_REFRESH_EACH_REQUEST=False)
        case _:
            return wsgi.our_app(os.environ["STORE"])


def _peer(**config: Any) -> Flask:
    import tempfile
    from pathlib import Path

    client = redis.Redis(port=int(os.environ["REDIS_PORT"]))
    return wsgi.peer_app("redis", Path(tempfile.gettempdir()), client, **config)


def _by_path(app: ASGIApp) -> ASGIApp:
    """The request's path says what the app does with its session; a server's lifespan ends here."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["mode"] = scope["path"][1:]
            await app(scope, receive, send)

    return served
