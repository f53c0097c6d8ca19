"""One small app for Flask, Starlette and WSGI that calls the next hop, the pool "next".

    /see            what came: headers, and the seconds that are left
    /next/PATH      the answer of http://next/PATH
    /thread/PATH    the same, through a sync client in a thread (Starlette)
    /detached/PATH  the same, whatever the inbound request's deadline is
    /record/PATH    the same; /outcomes says how these ended, as names of exceptions, "" for none (Starlette)
    /later/PATH     answers at once, and calls http://next/PATH after that

As a program of its own it takes its settings from the environment: `make_flask()`, `make_starlette()`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import flask
import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from support.pools import in_flight
from unsticky.flask import Unsticky
from unsticky.pools import Pools
from unsticky.starlette import UnstickyMiddleware
from unsticky.wsgi import UnstickyMiddleware as WsgiMiddleware

DETACHED = {"unsticky": {"inbound": False}}


def _seen(headers: Any, deadline: Any, pools: Pools) -> dict[str, Any]:
    return {
        "headers": {name.lower(): value for name, value in headers},
        "remaining": deadline.remaining(),
        "in_flight": in_flight(pools),
    }


def make_flask(settings: Any = None) -> flask.Flask:
    app = flask.Flask("hop")
    app.secret_key = "shared by all hops"
    unsticky = Unsticky(app, settings=settings)

    def answer(path: str, **options: Any) -> Any:
        got = unsticky.client.get(f"http://next/{path}", **options)
        return flask.Response(got.content, got.status_code, mimetype="application/json")

    @app.get("/see")
    def see() -> Any:
        return _seen(flask.request.headers.items(), unsticky.deadline, unsticky.pools)

    @app.get("/next/<path:path>")
    def following(path: str) -> Any:
        return answer(path)

    @app.get("/detached/<path:path>")
    def detached(path: str) -> Any:
        return answer(path, extensions=DETACHED)

    @app.get("/later/<path:path>")
    def later(path: str) -> Any:
        response = flask.Response(iter([b"later"]))
        response.call_on_close(lambda: answer(path))
        return response

    return app


def make_wsgi(settings: Any = None) -> WsgiMiddleware:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        _, what, *rest = environ["PATH_INFO"].split("/", 2)
        if what == "see":
            names = ((key[5:].replace("_", "-"), value) for key, value in environ.items() if key[:5] == "HTTP_")
            start_response("200 OK", [])
            return [json.dumps(_seen(names, environ["unsticky.deadline"], made.pools)).encode()]

        def call() -> httpx.Response:
            options = {"extensions": DETACHED} if what == "detached" else {}
            got: httpx.Response = environ["unsticky.client"].get(f"http://next/{rest[0]}", **options)
            return got

        if what == "later":
            start_response("200 OK", [])
            return _Later(call)
        got = call()
        start_response(f"{got.status_code} {got.reason_phrase}", [])
        return [got.content]

    made = WsgiMiddleware(app, settings)
    return made


class _Later:
    """A body that calls on when it is closed."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._chunks = iter([b"later"])
        self._call = call

    def __iter__(self) -> Any:
        return self._chunks

    def close(self) -> None:
        self._call()


async def _see(request: Request) -> Response:
    unsticky = request.state.unsticky
    return JSONResponse(_seen(request.headers.items(), unsticky.deadline, unsticky.pools))


async def _next(request: Request, **options: Any) -> Response:
    got = await request.state.unsticky.client.get(f"http://next/{request.path_params['path']}", **options)
    return Response(got.content, got.status_code, media_type="application/json")


async def _detached(request: Request) -> Response:
    return await _next(request, extensions=DETACHED)


async def _record(request: Request) -> Response:
    outcome = "CancelledError"
    try:
        response = await _next(request)
        outcome = ""
    except Exception as error:
        outcome = type(error).__name__
        raise
    finally:
        request.app.state.outcomes.append(outcome)
    return response


async def _outcomes(request: Request) -> Response:
    return JSONResponse(request.app.state.outcomes)


async def _thread(request: Request) -> Response:
    with request.state.unsticky.pools.client() as client:
        got = await run_in_threadpool(client.get, f"http://next/{request.path_params['path']}")
    return Response(got.content, got.status_code)


async def _later(request: Request) -> Response:
    return Response("later", background=BackgroundTask(_record, request))


async def _tasks(request: Request) -> Response:
    return JSONResponse(len(asyncio.all_tasks()))


def make_starlette(settings: Any = None) -> Starlette:
    views = {"next": _next, "detached": _detached, "record": _record, "thread": _thread, "later": _later}
    routes = [Route(f"/{name}/{{path:path}}", view) for name, view in views.items()]
    app = Starlette(
        routes=[Route("/see", _see), Route("/tasks", _tasks), Route("/outcomes", _outcomes), *routes],
        middleware=[Middleware(UnstickyMiddleware, settings=settings)],
    )
    app.state.outcomes = []
    return app
