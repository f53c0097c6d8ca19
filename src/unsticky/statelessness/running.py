"""One app in one process: how it is found, started, asked and ended. WSGI and ASGI, without a server."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import os
import socket
import sys
import traceback
from collections.abc import Iterable
from typing import Any, Literal, Protocol
from urllib.parse import unquote, unquote_to_bytes

from .wire import Answer, Asked

Kind = Literal["asgi", "wsgi"]
HOST = "unsticky.test"
_STARTUP = 30.0  # seconds for an app's lifespan


class NoApp(Exception):
    """The app can't be had; the message says why, for a person."""


class Running(Protocol):
    """An app that is ready for requests, one at a time."""

    state: dict[str, Any]  # what its lifespan made

    def ask(self, asked: Asked) -> Answer: ...
    def idle(self, connection: socket.socket) -> None:
        """Until there is something to read: what earlier requests left running goes on."""

    def close(self) -> None: ...


def find(target: str) -> Any:
    """The app that "module:attribute" names; the attribute may be dotted, or a factory with (). Raises NoApp."""
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise NoApp(f"{target!r} names no app; expected module:attribute, such as shop:app")
    if "/" in module_name or module_name.endswith(".py"):
        raise NoApp(_file_for_a_module(module_name, attribute))
    sys.path[:0] = [os.getcwd()]
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = f" in {os.getcwd()}" if error.name and module_name.startswith(error.name) else ""
        raise NoApp(f"can't import {module_name}: no module {error.name}{hint}") from error
    except BaseException as error:
        raise NoApp(f"can't import {module_name}: {_told(error)}") from error
    for name in attribute.removesuffix("()").split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise NoApp(_missing(sys.modules[module_name], attribute)) from error
    if attribute.endswith("()"):
        if _looks_like_app(found):
            raise NoApp(f"{target} is an app, and no factory: name it by {target.removesuffix('()')}")
        try:
            found = found()
        except BaseException as error:
            raise NoApp(f"{target} can't be made: {_told(error)}") from error
    elif _needs_nothing(found):
        raise NoApp(f"{target} is a function that needs no arguments, so no app; a factory is named by {target}()")
    return found


def kind_of(app: Any) -> Kind:
    """By what its call takes: (scope, receive, send) or (environ, start_response). Raises NoApp."""
    if not callable(app):
        raise NoApp(f"the app is {_article(type(app).__name__)}, which can't be called")
    call = app if inspect.isfunction(app) or inspect.ismethod(app) else type(app).__call__
    if inspect.iscoroutinefunction(call):
        return "asgi"
    try:
        names = list(inspect.signature(app).parameters)
    except (TypeError, ValueError):
        return "wsgi"
    return "asgi" if names[:3] == ["scope", "receive", "send"] or len(names) == 1 else "wsgi"


def _article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiouAEIOU' else 'a'} {noun}"


def running(app: Any, kind: Kind) -> Running:
    """Start it: an ASGI app's lifespan begins. Raises NoApp if that fails."""
    return _Asgi(app) if kind == "asgi" else _Wsgi(app)


class _Wsgi:
    """Calls in the main thread."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.state: dict[str, Any] = {}

    def ask(self, asked: Asked) -> Answer:
        started: list[Any] = []
        body = bytearray()

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started[:] = [status, headers]
            return body.extend

        try:
            chunks: Iterable[bytes] = self._app(_environ(asked), start_response)
            try:
                for chunk in chunks:
                    body += chunk
            finally:
                close = getattr(chunks, "close", None)
                if close is not None:
                    close()
        except Exception as error:
            return Answer(failure=f"the app raised {type(error).__name__}", trace=_trace(error))
        if not started:
            return Answer(failure="the app did not call start_response")
        headers = [(name.lower(), value) for name, value in started[1]]
        return Answer(int(started[0].split()[0]), headers, bytes(body))

    def idle(self, connection: socket.socket) -> None: ...
    def close(self) -> None: ...


def _environ(asked: Asked) -> dict[str, Any]:
    path, _, query = asked.path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": asked.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": HOST,
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": HOST,
        "CONTENT_LENGTH": str(len(asked.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(asked.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in asked.headers:
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return environ


class _Asgi:
    """Calls in one event loop, which also runs what the app left in the background while a request is served."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self.state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._lifespan: asyncio.Task[None] | None = None
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self._lifespan = asyncio.create_task(self._live())
        await self._to_app.put({"type": "lifespan.startup"})
        message = await self._said()
        if message is None or message["type"] == "lifespan.startup.complete":
            return
        raise NoApp(f"the app's start-up failed: {message.get('message') or 'no reason given'}")

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._app(scope, self._to_app.get, self._from_app.put)

    async def _said(self) -> dict[str, Any] | None:
        """The lifespan's next message; None if the app has no lifespan, which it says by raising or returning."""
        assert self._lifespan is not None
        getting = asyncio.create_task(self._from_app.get())
        await asyncio.wait({getting, self._lifespan}, timeout=_STARTUP, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        getting.cancel()
        if not self._lifespan.done():
            raise NoApp(f"the app's lifespan did not answer within {_STARTUP:.0f} s")
        self._lifespan.exception()  # seen
        return None

    def ask(self, asked: Asked) -> Answer:
        return self._loop.run_until_complete(self._asked(asked))

    def idle(self, connection: socket.socket) -> None:
        readable = asyncio.Event()
        self._loop.add_reader(connection, readable.set)
        try:
            self._loop.run_until_complete(readable.wait())
        finally:
            self._loop.remove_reader(connection)

    async def _asked(self, asked: Asked) -> Answer:
        start: dict[str, Any] = {}
        body = bytearray()
        sent, over = False, asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": asked.body, "more_body": False}
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    over.set()

        try:
            await self._app(self._scope(asked), receive, send)
        except Exception as error:
            if not start or not over.is_set():
                return Answer(failure=f"the app raised {type(error).__name__}", trace=_trace(error))
        if not start:
            return Answer(failure="the app sent no response")
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in start.get("headers", ())
        ]
        return Answer(start["status"], headers, bytes(body))

    def _scope(self, asked: Asked) -> dict[str, Any]:
        path, _, query = asked.path.partition("?")
        headers = [("host", HOST), *asked.headers]
        if asked.body and not any(name == "content-length" for name, _ in headers):
            headers.append(("content-length", str(len(asked.body))))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": asked.method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("latin-1", "replace"),
            "query_string": query.encode("latin-1", "replace"),
            "root_path": "",
            "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": (HOST, 80),
            "state": self.state.copy(),
        }

    def close(self) -> None:
        """The app's lifespan ends as it would at a server's end."""
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        if self._lifespan is not None and not self._lifespan.done():
            await self._to_app.put({"type": "lifespan.shutdown"})
            try:
                await self._said()
            except NoApp:
                pass
            self._lifespan.cancel()


def _told(error: BaseException) -> str:
    """The error, and where in the app it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-4000:]


def _file_for_a_module(path: str, attribute: str) -> str:
    """What to write instead, and where."""
    folder, _, file = path.rpartition("/")
    where = f", in {folder}" if folder not in ("", ".") else ""
    name = f"{file.removesuffix('.py')}:{attribute}"
    return f"{path!r} is a file; expected module:attribute, as Python imports it: unsticky check {name}{where}"


def _missing(module: Any, attribute: str) -> str:
    """Where it was looked for, and what else looks like an app there."""
    name, place = module.__name__, getattr(module, "__file__", None)
    apps = [
        f"{name}:{key}" for key, value in vars(module).items() if not key.startswith("_") and _looks_like_app(value)
    ]
    factories = [
        f"{name}:{key}()"
        for key, value in vars(module).items()
        if key.startswith(("create", "make", "get_app", "build")) and _needs_nothing(value)
    ]
    hint = (
        f"did you mean {' or '.join((apps + factories)[:3])}?" if apps + factories else "which variable holds the app?"
    )
    return (
        f"{name} ({os.path.relpath(place)}) has no {attribute}; {hint}"
        if place
        else f"{name} has no {attribute}; {hint}"
    )


def _needs_nothing(value: Any) -> bool:
    """A function of the app's that can be called as it is: a factory, and no app."""
    if not inspect.isfunction(value) or inspect.iscoroutinefunction(value):
        return False
    parameters = inspect.signature(value).parameters.values()
    return all(one.default is not one.empty or one.kind is one.VAR_KEYWORD for one in parameters)


def _looks_like_app(value: Any) -> bool:
    return not inspect.isclass(value) and any(hasattr(value, name) for name in ("wsgi_app", "build_middleware_stack"))
