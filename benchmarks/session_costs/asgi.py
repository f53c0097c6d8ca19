"""ASGI, in-process: the middleware is called as a server would, over an app that does nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import redis.asyncio
import starsessions
from starlette.middleware.sessions import Session
from starlette.middleware.sessions import SessionMiddleware as SignedCookie
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starsessions.stores.redis import RedisStore

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
from unsticky.starlette import SessionMiddleware, UnstickyMiddleware
from unsticky.stores import open_async_store, open_store

SECRET = "a benchmark's key"
BARE = "no session"
STAR_ON_USE, STAR_AUTOLOAD = "starsessions Redis, load on use", "starsessions Redis, autoload"

Metered = tuple[Counter[str], ASGIApp | None]  # the calls so far, and the app to ask, if it is another one
Meter = Callable[[], AbstractContextManager[Metered]]


@dataclass(frozen=True, slots=True)
class Stack:
    """A middleware around the app, the cookie of a session in it, and how its store's calls are counted."""

    name: str
    app: ASGIApp
    cookie: bytes
    meter: Meter


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """What it does with its session, the scope's `mode` says."""
    mode = scope["mode"]
    request = Request(scope)
    if mode in ("new", "seed"):
        request.session.update(SESSION)
    elif mode == "read":
        request.session["name"]
    elif mode == "write":
        request.session["count"] = next(numbers)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def loading_on_use(inner: ASGIApp) -> ASGIApp:
    """starsessions wants the app to load its session itself."""

    async def loading(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["mode"] != "untouched":
            await starsessions.load_session(Request(scope))
        await inner(scope, receive, send)

    return loading


def with_plain_session(inner: ASGIApp) -> ASGIApp:
    """The bare app: a session object is there, and nobody loads or saves it."""
    session = Session(SESSION)

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"] = session
        await inner(scope, receive, send)

    return plain


def scope_of(mode: str, cookie: bytes | None) -> Scope:
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")]
    if cookie is not None:
        headers.append((b"cookie", cookie))
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": headers,
        "mode": mode,
    }


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def ask(app: ASGIApp, mode: str, cookie: bytes | None) -> list[bytes]:
    """One request; the Set-Cookie headers of its response."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of(mode, cookie), receive, send)
    assert sent[0]["status"] == 200
    return [value for name, value in sent[0]["headers"] if name == b"set-cookie"]


async def ask_often(app: ASGIApp, mode: str, cookie: bytes, amount: int) -> float:
    async def send(message: Message) -> None:
        pass

    started = perf_counter()
    for _ in range(amount):
        await app(scope_of(mode, cookie), receive, send)
    return perf_counter() - started


def run(folder: Path, port: int, effort: Effort, figures: Figures) -> None:
    """Measure all stacks, on one event loop."""
    with asyncio.Runner() as runner, ExitStack() as closing:
        stacks = all_stacks(folder, port, runner, closing)
        works = [Work(stack.name, mode, _slice(runner, stack, mode)) for stack in stacks for mode in MODES]
        for key, cost in over_bare(interleaved(works, effort, "asgi"), BARE).items():
            figures.microseconds["asgi", *key] = cost
        for stack in stacks[1:]:
            _count(runner, stack, figures)


def all_stacks(folder: Path, port: int, runner: asyncio.Runner, closing: ExitStack) -> list[Stack]:
    """The bare app, ours and the peers'."""
    bare = Stack(BARE, with_plain_session(app), b"session=none", lambda: nullcontext((Counter(), None)))
    return [bare, *_stacks(folder, port, runner, closing)]


def _slice(runner: asyncio.Runner, stack: Stack, mode: str) -> Callable[[int], float]:
    return lambda amount: runner.run(ask_often(stack.app, mode, stack.cookie, amount))


def _count(runner: asyncio.Runner, stack: Stack, figures: Figures) -> None:
    """After the times: a store whose verbs are counted costs more."""
    for mode in (*MODES, "new"):
        cookie = None if mode == "new" else stack.cookie
        headers = 0
        with stack.meter() as (calls, app):
            for _ in range(COUNTED):
                headers += len(runner.run(ask(app or stack.app, mode, cookie)))
        figures.trips["asgi", stack.name, mode] = shown(calls.items(), COUNTED)
        figures.cookies["asgi", stack.name, mode] = headers / COUNTED


def _stacks(folder: Path, port: int, runner: asyncio.Runner, closing: ExitStack) -> Iterator[Stack]:
    def made(name: str, app: ASGIApp, meter: Meter) -> Stack:
        [header] = runner.run(ask(app, "seed", None))
        return Stack(name, app, header.split(b";")[0], meter)

    @contextmanager
    def on_redis() -> Iterator[Metered]:
        with monitored(port) as calls:
            yield calls, None

    def close(middleware: Any) -> None:
        closing.callback(lambda: runner.run(middleware.sessions.aclose()))

    yield made("Starlette's signed cookie", SignedCookie(app, SECRET), lambda: nullcontext((Counter(), None)))
    client = redis.asyncio.Redis(port=port)
    closing.callback(lambda: runner.run(client.aclose()))
    store = RedisStore(connection=client)
    autoload = starsessions.SessionAutoloadMiddleware(app)
    week = 7 * 86400
    yield made(STAR_ON_USE, starsessions.SessionMiddleware(loading_on_use(app), store, week), on_redis)
    yield made(STAR_AUTOLOAD, starsessions.SessionMiddleware(autoload, store, week), on_redis)
    sqlite = f"sqlite:///{folder}/asgi.db"
    for name, url in (("SQLite", sqlite), ("memory", "memory://asgi"), ("Redis", f"redis://127.0.0.1:{port}")):
        make = partial(SessionMiddleware, app, SECRET, store=url)
        ours = make()
        close(ours)
        yield made(f"unsticky {name}", ours, on_redis if name == "Redis" else partial(_verbs, url, make, runner))
    make_whole = partial(UnstickyMiddleware, app, {"session": {"store": sqlite, "secret_keys": [SECRET]}})
    whole = make_whole()
    close(whole)
    yield made("UnstickyMiddleware SQLite", whole, partial(_verbs, sqlite, make_whole, runner))


@contextmanager
def _verbs(url: str, make: Callable[[], Any], runner: asyncio.Runner) -> Iterator[Metered]:
    """The verbs that a middleware of its own uses."""
    opening = open_store if url.startswith("memory:") else open_async_store  # that one passes on to the blocking one
    with counted_verbs(type(opening(url, clock=SystemClock(), timeout=1.0))) as calls:
        middleware = make()
        try:
            yield calls, middleware
        finally:
            runner.run(middleware.sessions.aclose())
