"""Amnesia for a test suite: each request is served by a fork of the test's process, which ends with it.

What the request left in the process is gone; what it left in a store is there. A test that passes otherwise, and fails
so, relied on a replica's memory.
"""

from __future__ import annotations

import gc
import os
import random
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from .clients import Original, Patches, is_websocket, keeps_its_context, lives_on, response_like

_WITH = "in `with client:`"


class _Served(msgspec.Struct):
    """What the fork sends back: a response, or what the app raised."""

    status: str = ""
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    raised: tuple[str, str, list[Any]] | None = None  # module, name and arguments of an exception


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Served).decode


class Amnesia:
    """Goes between test clients and their apps."""

    def __init__(self) -> None:
        self._patches = Patches(self)
        self._forked = 0
        self._skipped: Counter[str] = Counter()  # requests that were served in the process, by the reason

    def install(self) -> None:
        self._patches.install()

    def uninstall(self) -> None:
        self._patches.uninstall()

    def wsgi(self, original: Original, app: Any, environ: dict[str, Any], buffered: bool) -> Any:
        def serve() -> _Served:
            body, status, headers = original(app, environ, buffered=True)
            return _Served(status, list(headers.to_wsgi_list()), b"".join(body))

        reason = _WITH if keeps_its_context(environ) else _threads()
        served = self._forget(serve, reason)
        if served is None:
            return original(app, environ, buffered=buffered)
        from werkzeug.datastructures import Headers

        return [served.body], served.status, Headers(served.headers)

    def asgi(self, original: Original, transport: Any, request: Any) -> Any:
        def serve() -> _Served:
            response = original(transport, request)
            return _Served(str(response.status_code), response.headers.multi_items(), response.read())

        reason = "WebSockets" if is_websocket(request) else _WITH if lives_on(transport) else _threads()
        served = self._forget(serve, reason)
        if served is None:
            return original(transport, request)
        # The body is as the app sent it, or decoded: then its old length and encoding would be wrong.
        headers = [(name, value) for name, value in served.headers if name != "content-encoding"]
        return response_like(request, int(served.status), headers, served.body)

    def summary(self, failed: bool) -> Iterator[str]:
        yield f"{self._forked} requests were served by forks that forgot everything afterwards."
        for reason, count in self._skipped.items():
            yield f"{count} could not be isolated, and were served by the test's process: {reason}."
        if failed and any(_in_memory(one) for one in gc.get_objects() if isinstance(one, sqlite3.Connection)):
            yield (
                "An SQLite database in memory is state of the process: in tests give it a file, "
                'such as f"sqlite:///{tmp_path}/test.db".'
            )
        if failed:
            yield "A test that fails only with --stateless-amnesia relies on what a replica remembers, or looks into"
            yield "the process itself: at a mock, an outbox, a variable of the app."

    def _forget(self, serve: Callable[[], _Served], reason: str) -> _Served | None:
        """What a fork answers; None if the process itself has to."""
        if reason:
            self._skipped[reason] += 1
            return None
        served = _in_a_fork(serve)
        self._forked += 1
        if served.raised is not None:
            raise _again(*served.raised)
        return served


def _in_a_fork(serve: Callable[[], _Served]) -> _Served:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _serve_and_end(serve, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return _decode(data) if data else _Served(raised=("builtins", "RuntimeError", ["the request's fork died"]))


def _again(module: str, name: str, arguments: list[Any]) -> BaseException:
    """The exception that the app raised in the fork, as far as one can be made of it."""
    kind = getattr(sys.modules.get(module), name, None)
    try:
        if isinstance(kind, type) and issubclass(kind, BaseException):
            error = kind.__new__(kind, *arguments)  # its __init__ may want others than it passed on
            error.args = tuple(arguments)
            return error
    except Exception:  # it wants other arguments
        pass
    return RuntimeError(f"{module}.{name}: {', '.join(map(str, arguments))}")


def _told(error: BaseException) -> _Served:
    plain = [one if isinstance(one, (str, int, float, bytes, bool, type(None))) else str(one) for one in error.args]
    return _Served(raised=(type(error).__module__, type(error).__qualname__, plain))


def _serve_and_end(serve: Callable[[], _Served], writing: int) -> None:
    """In the child: it never returns, for the tests after this one are its parent's."""
    try:
        random.seed()
        with open(writing, "wb") as pipe:
            try:
                served = serve()
            except Exception as error:
                served = _told(error)
            pipe.write(_encode(served))
    finally:
        os._exit(0)


def _threads() -> str:
    """Why not to fork, or ""."""
    if not hasattr(os, "fork"):
        return "this system can't fork"
    return "other threads run" if threading.active_count() > 1 else ""


def _in_memory(connection: sqlite3.Connection) -> bool:
    try:
        return not any(file for _, _, file in connection.execute("pragma database_list"))
    except sqlite3.Error:  # closed, or of another thread
        return False
