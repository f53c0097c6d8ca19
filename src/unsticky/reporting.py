"""Puts the load report into responses, and counts them: for WSGI and for ASGI."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from .load import Meter
from .routing.load_report import FORMAT_HEADER, HEADER
from .wsgi_body import close, is_ready

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ASKED = FORMAT_HEADER.encode("ascii")
_ENVIRON = f"HTTP_{FORMAT_HEADER.upper().replace('-', '_')}"
_NAME = HEADER.encode("ascii")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


async def run(
    meter: Meter, app: Callable[[Any, Any, Send], Awaitable[None]], scope: Any, receive: Any, send: Send
) -> None:
    """Run an ASGI app for one HTTP request. An app's own report is left as it is."""
    asked = next((value for name, value in scope["headers"] if name == _ASKED), None)
    form = meter.form(None if asked is None else asked.decode("latin-1"))
    failed = False

    async def reporting(message: Message) -> None:
        nonlocal failed
        if message["type"] == "http.response.start":
            failed = message["status"] >= 500
            headers = message.get("headers", ())
            if form is not None and not any(name.lower() == _NAME for name, _ in headers):
                message["headers"] = [*headers, (_NAME, meter.header(form).encode("ascii"))]
        await send(message)

    meter.began()
    try:
        await app(scope, receive, reporting)
    except CancelledError:  # the client went away
        raise
    except BaseException:
        failed = True
        raise
    finally:
        meter.ended(error=failed)


class ReportingApp:
    """A WSGI app whose responses are counted and carry the report."""

    def __init__(self, app: WSGIApplication, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = _Call(self._meter, environ.get(_ENVIRON), start_response)
        try:
            body = self._app(environ, call.start)
        except BaseException:
            call.failed = True
            call.end()
            raise
        if is_ready(body, environ):
            call.end()
            return body
        return _Counted(body, call)


class _Call:
    """One request."""

    def __init__(self, meter: Meter, asked: str | None, start_response: StartResponse) -> None:
        self._meter = meter
        self._form = meter.form(asked)
        self._start_response = start_response
        self._over = False
        self.failed = False
        meter.began()

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        self.failed = status.startswith("5")
        if self._form is not None and not any(name.lower() == HEADER for name, _ in headers):
            headers = [*headers, (HEADER, self._meter.header(self._form))]
        return self._start_response(status, headers, *([exc_info] if exc_info else []))

    def end(self) -> None:
        if not self._over:
            self._over = True
            self._meter.ended(error=self.failed)


class _Counted:
    """A body that is made while it is sent."""

    def __init__(self, body: Iterable[bytes], call: _Call) -> None:
        self._body = body
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception:
            self._call.failed = True
            raise

    def close(self) -> None:
        try:
            close(self._body)
        finally:
            self._call.end()
