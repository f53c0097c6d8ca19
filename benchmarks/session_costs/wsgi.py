"""Flask, in-process: `app.wsgi_app` is called with an environ, as a server would."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import flask
import flask.sessions
import flask_session
import redis
from cachelib.file import FileSystemCache

from session_costs.measure import (
    COUNTED,
    MODES,
    SESSION,
    Effort,
    Figures,
    Work,
    counted_verbs,
    interleaved,
    monitored,
    numbers,
    over_bare,
    shown,
)
from unsticky.clock import SystemClock
from unsticky.flask import Unsticky
from unsticky.stores import open_store

BARE = "no session"
COOKIE, PERMANENT_COOKIE = "Flask's SecureCookie", "Flask's SecureCookie, permanent"
PEER, PEER_QUIET = "Flask-Session Redis", "Flask-Session Redis, refresh off"

Metered = tuple[Counter[str], flask.Flask | None]  # the calls so far, and the app to ask, if it is another one
Meter = Callable[[], AbstractContextManager[Metered]]
Environ = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stack:
    """An app with a session interface, the cookie of a session in it, and how its store's calls are counted."""

    name: str
    app: flask.Flask
    cookie: str
    meter: Meter


class PlainSession(dict[str, Any], flask.sessions.SessionMixin):  # type: ignore[misc]
    """Nobody loads or saves it."""


class NoInterface(flask.sessions.SessionInterface):
    """The bare app: a session object is there, and costs nothing."""

    session = PlainSession(SESSION)

    def open_session(self, app: flask.Flask, request: flask.Request) -> PlainSession:
        return self.session

    def save_session(self, *_: object) -> None:
        pass


def make_app(permanent: bool = False, **config: Any) -> flask.Flask:
    app = flask.Flask("benchmark")
    app.secret_key = "a benchmark's key"
    app.config.update(config)

    @app.get("/untouched")
    def untouched() -> str:
        return "ok"

    @app.get("/read")
    def read() -> str:
        flask.session["name"]
        return "ok"

    @app.get("/write")
    def write() -> str:
        flask.session["count"] = next(numbers)
        return "ok"

    @app.get("/new")
    def new() -> str:
        flask.session.update(SESSION)
        if permanent:
            flask.session.permanent = True
        return "ok"

    return app


def environ_of(mode: str, cookie: str | None) -> Environ:
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": f"/{mode}",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    return environ if cookie is None else environ | {"HTTP_COOKIE": cookie}


def ask(app: flask.Flask, environ: Environ) -> list[str]:
    """One request; the Set-Cookie headers of its response."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[..., None]:
        started.append((status, headers))
        return lambda data: None

    body = app.wsgi_app(environ, start_response)
    b"".join(body)
    if hasattr(body, "close"):
        body.close()
    status, headers = started[-1]
    assert status == "200 OK"
    return [value for name, value in headers if name == "Set-Cookie"]


def run(folder: Path, port: int, effort: Effort, figures: Figures) -> None:
    """Measure all stacks, in one thread."""
    with ExitStack() as closers:
        bare = make_app()
        bare.session_interface = NoInterface()
        nothing = Stack(BARE, bare, "session=none", lambda: nullcontext((Counter(), None)))
        stacks = [nothing, *_stacks(folder, port, closers)]
        works = [Work(stack.name, mode, _slice(stack, mode)) for stack in stacks for mode in MODES]
        for key, cost in over_bare(interleaved(works, effort, "flask"), BARE).items():
            figures.microseconds["flask", *key] = cost
        for stack in stacks[1:]:
            _count(stack, figures)


def _slice(stack: Stack, mode: str) -> Callable[[int], float]:
    environ = environ_of(mode, stack.cookie)

    def work(amount: int) -> float:
        started = perf_counter()
        for _ in range(amount):
            ask(stack.app, environ.copy())
        return perf_counter() - started

    return work


def _count(stack: Stack, figures: Figures) -> None:
    """After the times: a store whose verbs are counted costs more."""
    for mode in (*MODES, "new"):
        cookie = None if mode == "new" else stack.cookie
        with stack.meter() as (calls, app):
            headers = sum(len(ask(app or stack.app, environ_of(mode, cookie))) for _ in range(COUNTED))
        figures.trips["flask", stack.name, mode] = shown(calls.items(), COUNTED)
        figures.cookies["flask", stack.name, mode] = headers / COUNTED


def peer_app(kind: str, folder: Path, client: Any, **config: Any) -> flask.Flask:
    """An app with Flask-Session."""
    if kind == "redis":
        app = make_app(SESSION_TYPE="redis", SESSION_REDIS=client, **config)
    else:
        cache = FileSystemCache(str(folder / "cachelib"), threshold=500)
        app = make_app(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache, **config)
    flask_session.Session(app)
    return app


def our_app(store: str) -> flask.Flask:
    app = make_app()
    Unsticky(app, {"session": {"store": store}})
    return app


def _stacks(folder: Path, port: int, closers: ExitStack) -> Iterator[Stack]:
    def made(name: str, app: flask.Flask, meter: Meter) -> Stack:
        [header] = ask(app, environ_of("new", None))
        return Stack(name, app, header.split(";")[0], meter)

    @contextmanager
    def on_redis() -> Iterator[Metered]:
        with monitored(port) as calls:
            yield calls, None

    def nothing() -> AbstractContextManager[Metered]:
        return nullcontext((Counter(), None))

    client = closers.enter_context(closing(redis.Redis(port=port)))
    yield made(COOKIE, make_app(), nothing)
    yield made(PERMANENT_COOKIE, make_app(permanent=True), nothing)
    yield made(PEER, peer_app("redis", folder, client), on_redis)
    yield made(PEER_QUIET, peer_app("redis", folder, client, SESSION_REFRESH_EACH_REQUEST=False), on_redis)
    yield made("Flask-Session cachelib file", peer_app("file", folder, client), nothing)
    for name, url in (("SQLite", f"sqlite:///{folder}/flask.db"), ("Redis", f"redis://127.0.0.1:{port}")):
        app = our_app(url)
        closers.callback(app.extensions["unsticky"].close)
        yield made(f"unsticky {name}", app, on_redis if name == "Redis" else partial(_verbs, url))


@contextmanager
def _verbs(url: str) -> Iterator[Metered]:
    """The verbs that an app of its own uses."""
    with counted_verbs(type(open_store(url, clock=SystemClock(), timeout=1.0))) as calls:
        app = our_app(url)
        try:
            yield calls, app
        finally:
            app.extensions["unsticky"].close()
