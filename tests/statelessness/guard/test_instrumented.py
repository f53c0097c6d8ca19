"""The guard beside OpenTelemetry's own instrumentation of Flask and Starlette, put on before it or after it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from starlette.testclient import TestClient

from support.otlp import SeenSpan, Telemetry
from unsticky.flask import Unsticky
from unsticky.starlette import UnstickyMiddleware

FLASK = """
from flask import Flask, session
app = Flask(__name__)
app.secret_key = "the same for all"
CART = []
@app.get("/clean/<name>")
def clean(name):
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])
@app.get("/broken")
def broken():
    raise KeyError("no")
@app.post("/add/<item>")
def add(item):
    CART.append(item)
    return str(len(CART))
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
CART = []
async def clean(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return PlainTextResponse(str(request.session["n"]))
async def add(request):
    CART.append(request.path_params["item"])
    return PlainTextResponse(str(len(CART)))
app = Starlette(routes=[Route("/clean/{name}", clean), Route("/add/{item}", add, methods=["POST"])])
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


@contextmanager
def module(name: str, text: str) -> Iterator[ModuleType]:
    made = ModuleType(name)
    sys.modules[name] = made
    try:
        exec(compile(text, f"{name}.py", "exec"), vars(made))
        yield made
    finally:
        del sys.modules[name]


def settings(home: Path) -> dict[str, Any]:
    return {
        "session": {"store": f"sqlite:///{home}/sessions.db"},
        "statelessness": {"guard": "enforce", "warm_up": 4, "sweep_every": 1},
    }


@contextmanager
def flask_client(home: Path, instrumented: str) -> Iterator[Any]:
    with module("instrumented_flask", FLASK) as shop:
        instrumentor = FlaskInstrumentor()
        if instrumented == "before":
            instrumentor.instrument_app(shop.app)
        unsticky = Unsticky(shop.app, settings=settings(home))
        if instrumented == "after":
            instrumentor.instrument_app(shop.app)
        try:
            yield shop.app.test_client()
        finally:
            instrumentor.uninstrument_app(shop.app)
            unsticky.state.close()


@contextmanager
def starlette_client(home: Path, instrumented: str) -> Iterator[Any]:
    with module("instrumented_starlette", STARLETTE) as shop:
        if instrumented == "before":
            StarletteInstrumentor.instrument_app(shop.app)
        shop.app.add_middleware(UnstickyMiddleware, settings=settings(home))
        if instrumented == "after":
            StarletteInstrumentor.instrument_app(shop.app)
        with TestClient(shop.app) as client:
            yield client
        StarletteInstrumentor.uninstrument_app(shop.app)


CLIENTS = {"flask": flask_client, "starlette": starlette_client}


def told(otlp: Telemetry) -> list[tuple[SeenSpan, dict[str, Any]]]:
    spans = otlp.spans(client=False)
    return [(span, given) for span in spans for name, given in span.events if name == "stateless.violation"]


@pytest.mark.parametrize("instrumented", ["before", "after"])
@pytest.mark.parametrize("framework", CLIENTS)
def test_a_clean_app_stays_clean(
    home: Path, otlp: Telemetry, caplog: pytest.LogCaptureFixture, framework: str, instrumented: str
) -> None:
    """What the instrumentation keeps, of requests and of metrics, is no state of the app's, and nothing is refused."""
    with CLIENTS[framework](home, instrumented) as client:
        for number in range(60):
            assert client.get(f"/clean/{number}").status_code == 200
            assert client.get("/nowhere").status_code == 404
            if framework == "flask":
                assert client.get("/broken").status_code == 500
    assert sum(span.kind == "SERVER" for span in otlp.spans(client=False)) >= 120
    assert told(otlp) == []
    assert [one.getMessage() for one in caplog.records if one.name == "unsticky.statelessness"] == []


@pytest.mark.parametrize("instrumented", ["before", "after"])
@pytest.mark.parametrize("framework", CLIENTS)
def test_a_leak_is_on_the_span_that_the_instrumentation_made(
    home: Path, otlp: Telemetry, framework: str, instrumented: str
) -> None:
    with CLIENTS[framework](home, instrumented) as client:
        for number in range(40):
            client.get(f"/clean/{number}")
            client.post(f"/add/secret-{number}")
    ((span, given),) = told(otlp)
    assert span.kind == "SERVER"
    assert span.attributes.get("http.route", span.attributes.get("http.target", "")).startswith("/add/")
    assert given["stateless.variable"] == f"instrumented_{framework}:CART"
    assert given["stateless.endpoint"].startswith("POST /add/")
    assert "secret" not in str(given)
