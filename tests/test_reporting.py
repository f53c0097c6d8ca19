"""Load reports in the responses of Flask, Starlette and WSGI apps: who gets one, and what is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import flask
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from unsticky.flask import Unsticky
from unsticky.load import Meter
from unsticky.routing.load_report import parse
from unsticky.starlette import UnstickyMiddleware
from unsticky.wsgi import UnstickyMiddleware as WsgiMiddleware

Get = Callable[..., httpx.Response]
Made = tuple[Get, Meter]
ASKS = {"endpoint-load-metrics-format": "text"}
OWN = "TEXT application_utilization=0.5"


def settings(path: Path, load_report: Any) -> dict[str, Any]:
    return {"session": {"store": f"sqlite:///{path}/sessions.db"}, "load_report": load_report}


def make_flask(path: Path, load_report: Any) -> Made:
    app = flask.Flask("app")
    app.secret_key = "secret"
    unsticky = Unsticky(app, settings=settings(path, load_report))

    @app.get("/<what>")
    def view(what: str) -> Any:
        if what == "raise":
            raise RuntimeError
        if what == "stream":
            return flask.Response(_chunks())
        if what == "own":
            return "own", {"Endpoint-Load-Metrics": OWN}
        return what, int(what)

    client = httpx.Client(transport=httpx.WSGITransport(app, raise_app_exceptions=False), base_url="http://app")
    return client.get, unsticky.load


def make_wsgi(path: Path, load_report: Any) -> Made:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        what = environ["PATH_INFO"][1:]
        if what == "raise":
            raise RuntimeError
        headers = [("Endpoint-Load-Metrics", OWN)] if what == "own" else []
        status = what if what.isdigit() else "200"
        start_response(f"{status} Said", [("Content-Type", "text/plain"), *headers])
        return _chunks() if what == "stream" else [what.encode()]

    made = WsgiMiddleware(app, settings(path, load_report))

    def get(path: str, **arguments: Any) -> httpx.Response:
        with httpx.Client(
            transport=httpx.WSGITransport(validator(made), raise_app_exceptions=True), base_url="http://app"
        ) as client:
            try:
                return client.get(path, **arguments)
            except RuntimeError:
                return httpx.Response(500)

    return get, made.load


def make_starlette(path: Path, load_report: Any) -> Made:
    found: list[Meter] = []

    async def view(request: Request) -> Response:
        what = request.path_params["what"]
        found.append(request.state.unsticky.load)
        if what == "raise":
            raise RuntimeError
        if what == "stream":
            return StreamingResponse(_async_chunks())
        if what == "own":
            return PlainTextResponse("own", headers={"Endpoint-Load-Metrics": OWN})
        return PlainTextResponse(what, int(what))

    given = settings(path, load_report)
    app = Starlette(routes=[Route("/{what}", view)], middleware=[Middleware(UnstickyMiddleware, settings=given)])
    client = TestClient(app, raise_server_exceptions=False)
    client.get("/200")
    return client.get, found[0]


def _chunks() -> Iterator[bytes]:
    yield b"one"
    yield b"two"


async def _async_chunks() -> AsyncIterator[bytes]:
    for chunk in _chunks():
        yield chunk


every = pytest.mark.parametrize("make", [make_flask, make_wsgi, make_starlette])


@every
def test_off_by_default(make: Callable[..., Made], tmp_path: Path) -> None:
    """Who can reach the app must not learn how busy it is, unless that is meant."""
    get, meter = make(tmp_path, {})
    assert "endpoint-load-metrics" not in get("/200", headers=ASKS).headers
    assert not meter.on


@every
@pytest.mark.parametrize(("asked", "begins"), [("text", "TEXT "), ("JSON", "JSON {"), ("bin", "BIN ")])
def test_on_request(make: Callable[..., Made], asked: str, begins: str, tmp_path: Path) -> None:
    """To those who ask, as they ask."""
    get, _ = make(tmp_path, {"emit": "on_request"})
    assert "endpoint-load-metrics" not in get("/200").headers
    value = get("/200", headers={"Endpoint-Load-Metrics-Format": asked}).headers["endpoint-load-metrics"]
    assert value.startswith(begins)
    assert parse(value).named_metrics.keys() == {"in_flight"}
    assert "endpoint-load-metrics" not in get("/200", headers={"Endpoint-Load-Metrics-Format": "x"}).headers


@every
def test_always(make: Callable[..., Made], tmp_path: Path) -> None:
    """Each response, streamed ones and errors too; an app's own report stays the only one."""
    get, meter = make(tmp_path, {"emit": "always", "format": "json"})
    meter.say("named_metrics.queue", 7)
    for path in ("/200", "/404", "/503", "/stream"):
        assert get(path).headers["endpoint-load-metrics"].startswith("JSON {")
    assert get("/own").headers.get_list("endpoint-load-metrics") == [OWN]
    assert get("/stream").text == "onetwo"


@every
def test_what_is_counted(make: Callable[..., Made], tmp_path: Path) -> None:
    """Each response once, when its body is done; 5xx and exceptions as errors; none stays in flight."""
    get, meter = make(tmp_path, {"emit": "always"})
    before = meter._ended
    for path in ("/200", "/404", "/stream", "/500", "/503", "/raise"):
        get(path)
    assert (meter._ended - before, meter._errors, meter._in_flight) == (6, 3, 0)


def test_a_streamed_body_is_in_flight_until_it_is_closed(tmp_path: Path) -> None:
    """As for a server that reads a body slowly."""
    made = WsgiMiddleware(_streams, settings(tmp_path, {"emit": "always"}))
    body: Any = made({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: lambda _: None)
    assert next(iter(body)) == b"one"
    assert made.load._in_flight == 1
    body.close()
    body.close()
    assert (made.load._in_flight, made.load._ended) == (0, 1)
    made.close()


def _streams(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    return _chunks()


def test_file_wrappers_still_reach_the_server(tmp_path: Path) -> None:
    """A server sends its own file wrapper without copying, if it recognises it."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](BytesIO(b"file"))

    made = WsgiMiddleware(app, settings(tmp_path, {"emit": "always"}))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.file_wrapper": FileWrapper}
    assert isinstance(made(environ, lambda *_: lambda _: None), FileWrapper)
    assert made.load._in_flight == 0
    made.close()
