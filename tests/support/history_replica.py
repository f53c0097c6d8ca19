"""A replica for the history check: `python -m support.history_replica flask|starlette PORT`.

One endpoint does to the session what the request's JSON asks for, if the session is the one that the client means.
Settings come from the environment, as in production.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import MutableMapping
from typing import Any

import flask
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from werkzeug.serving import WSGIRequestHandler, make_server

from support.history_check import IDENTITY
from unsticky.flask import Unsticky
from unsticky.starlette import UnstickyMiddleware

SECRET_KEY = "shared by all replicas"

Order = dict[str, Any]  # sid, writes, does, pause (seconds between load and commit)


def act(session: MutableMapping[str, Any], order: Order) -> None:
    """Change the session as ordered. One that is not the client's stays as it is, as a login check does."""
    does = order["does"]
    if does != "begin" and session.get(IDENTITY) != order["sid"]:
        return
    if does == "clear":
        session.clear()
    for key, value in order["writes"].items():
        if value is None:
            session.pop(key, None)
        else:
            session[key] = value
    if does in ("rotate", "strict"):
        session.rotate(strict=does == "strict")  # type: ignore[attr-defined]
    if does == "owner":
        session.owner = order["owner"]  # type: ignore[attr-defined]


def make_flask() -> flask.Flask:
    app = flask.Flask("replica")
    app.secret_key = SECRET_KEY
    Unsticky(app)

    @app.post("/")
    def do() -> dict[str, Any]:
        order = flask.request.get_json()
        seen = dict(flask.session)
        time.sleep(order["pause"])
        act(flask.session, order)
        return seen

    return app


async def do(request: Request) -> JSONResponse:
    order = await request.json()
    seen = dict(request.session)
    await asyncio.sleep(order["pause"])
    act(request.session, order)
    return JSONResponse(seen)


def make_starlette() -> Starlette:
    return Starlette(routes=[Route("/", do, methods=["POST"])], middleware=[Middleware(UnstickyMiddleware)])


class Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "flask":
        make_server("127.0.0.1", port, make_flask(), threaded=True, request_handler=Quiet).serve_forever()
    else:
        uvicorn.run(make_starlette(), host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
