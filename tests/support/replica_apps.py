"""The same small app for Flask and for Starlette, for replicas in processes of their own.

Its settings come from the environment, as in production: UNSTICKY_SESSION__STORE.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import flask
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from unsticky.flask import Unsticky
from unsticky.starlette import UnstickyMiddleware


def wait_for(gate: str) -> None:
    """Until the test makes the file: a slow request, exactly as slow as the test wants."""
    Path(f"{gate}.reached").touch()
    deadline = time.monotonic() + 20
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.002)


def make_flask() -> flask.Flask:
    app = flask.Flask("replica")
    app.secret_key = "shared by all replicas"
    Unsticky(app)

    @app.get("/read")
    def read() -> dict[str, Any]:
        return {"pid": os.getpid(), "data": dict(flask.session)}

    @app.get("/write/<key>")
    def write(key: str) -> dict[str, Any]:
        flask.session[key] = 1
        if gate := flask.request.args.get("gate"):
            wait_for(gate)
        return {"pid": os.getpid()}

    @app.get("/slow")
    def slow() -> dict[str, Any]:
        data = dict(flask.session)
        wait_for(flask.request.args["gate"])
        return {"data": data}

    @app.get("/logout")
    def logout() -> dict[str, Any]:
        flask.session.clear()
        return {}

    return app


async def read(request: Request) -> JSONResponse:
    return JSONResponse({"pid": os.getpid(), "data": dict(request.session)})


async def write(request: Request) -> JSONResponse:
    request.session[request.path_params["key"]] = 1
    if gate := request.query_params.get("gate"):
        await run_in_threadpool(wait_for, gate)
    return JSONResponse({"pid": os.getpid()})


async def slow(request: Request) -> JSONResponse:
    data = dict(request.session)
    await run_in_threadpool(wait_for, request.query_params["gate"])
    return JSONResponse({"data": data})


async def logout(request: Request) -> JSONResponse:
    request.session.clear()
    return JSONResponse({})


def make_starlette() -> Starlette:
    routes = [Route("/read", read), Route("/write/{key}", write), Route("/slow", slow), Route("/logout", logout)]
    return Starlette(routes=routes, middleware=[Middleware(UnstickyMiddleware)])
