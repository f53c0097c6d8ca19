"""Any WSGI app: `app = UnstickyMiddleware(app)` gives it `environ["unsticky.session"]` and `["unsticky.client"]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from . import settings as settings_module
from .context import RequestState, current
from .errors import SessionUnavailable
from .pools import Pools
from .session.cookie import CookieFormat, Headers, InboundCookies, cookie_values, set_cookie, with_session_headers
from .session.session import Session
from .session.token import Token
from .sessions import UNAVAILABLE_BODY, Sessions
from .settings import Source

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class UnstickyMiddleware:
    """Sessions and routed outbound calls for any WSGI app.

    `settings`: a path, a mapping with the file's shape, or Settings; None searches as the documentation says.
    Raises SettingsError at once if they are wrong.
    """

    def __init__(self, app: WSGIApplication, settings: Source | None = None) -> None:
        self.settings = settings_module.load(settings)
        self.sessions = Sessions(self.settings.session)
        self.pools = Pools(self.settings)
        self.client = self.pools.client()
        self.cookie = CookieFormat.of(self.settings.session.cookie, self.sessions.lifetime)
        self._app = InContext(_WithSession(app, self))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._app(environ, start_response)

    def close(self) -> None:
        """Close the client, the pools and the store."""
        self.client.close()
        self.pools.close()
        self.sessions.close()


class InContext:
    """Runs a WSGI app's call, its body and its close in one copied Context, so that request state never leaks."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        context = copy_context()
        context.run(current.set, _request_state(environ))
        body = context.run(self.app, environ, start_response)
        return body if _is_ready(body, environ) else _Body(body, context)


def _is_ready(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Nothing of the app runs in it; and servers want to recognise their own file wrapper (uWSGI's is no class)."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, (list, tuple, wrapper) if isinstance(wrapper, type) else (list, tuple))


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


class _Body:
    def __init__(self, body: Iterable[bytes], context: Context) -> None:
        self._body = body
        self._context = context
        self._next: Callable[[], bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._next is None:
            self._next = self._context.run(iter, self._body).__next__
        return self._context.run(self._next)

    def close(self) -> None:
        self._context.run(_close, self._body)


def _request_state(environ: WSGIEnvironment) -> RequestState:
    def header(name: str) -> str | None:
        key = name.upper().replace("-", "_")
        return environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")

    return RequestState(cookies=InboundCookies(lambda: [environ.get("HTTP_COOKIE", "")]), header=header)


class _WithSession:
    """Runs inside of the request's Context: opens the session, commits it, answers 503 when its store is away."""

    def __init__(self, app: WSGIApplication, unsticky: UnstickyMiddleware) -> None:
        self._app = app
        self._unsticky = unsticky

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        unsticky = self._unsticky

        def presented() -> Token | None:
            values = cookie_values([environ.get("HTTP_COOKIE", "")], unsticky.cookie.name)
            return unsticky.sessions.signer.choose(values)

        session = unsticky.sessions.bind(presented, Session)
        environ["unsticky.session"] = session
        environ["unsticky.client"] = unsticky.client
        tell_session_key(session)
        response = _Response(session, unsticky, start_response)
        try:
            body = self._app(environ, response.start)
        except SessionUnavailable as error:
            return response.unavailable(error)
        return response.body(body, environ)


def tell_session_key(session: Session) -> None:
    """Let outbound calls of this request hash by its session."""
    state = current.get()
    if state is not None:
        state.session_key = session.store_key


class _Response:
    """`start_response`, with the commit in front of it. From an outage on, 503 replaces what the app sends."""

    def __init__(self, session: Session, unsticky: UnstickyMiddleware, start_response: StartResponse) -> None:
        self._session = session
        self._unsticky = unsticky
        self._start_response = start_response
        self._started = False
        self._cookie: str | None = None
        self._replaced = False

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
        """The app may call it again with `exc_info`, to replace headers that are not sent: the cookie stays."""
        if not self._started:
            try:
                self._commit()
            except SessionUnavailable as error:
                self._answer_unavailable(error, exc_info)
        if self._replaced:
            return _ignore
        headers = with_session_headers(headers, self._cookie, accessed=self._session.accessed)
        self._started = True
        return self._start_response(status, headers, *([exc_info] if exc_info else []))

    def _commit(self) -> None:
        unsticky = self._unsticky
        committed = unsticky.sessions.commit(self._session)
        self._session.seal()
        self._cookie = set_cookie(committed, unsticky.cookie, unsticky.sessions.signer)

    def body(self, body: Iterable[bytes], environ: WSGIEnvironment) -> Iterable[bytes]:
        """The app's body, unless 503 was answered; what a streamed one changes in the session is written too."""
        if not _is_ready(body, environ):
            return _Streamed(self, body)
        if self._replaced:
            _close(body)
            return [UNAVAILABLE_BODY]
        self.finish()
        return body

    def chunks(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The app may start its response, or use its session, only now."""
        sent = False
        try:
            for chunk in body:
                if self._replaced:
                    break
                yield chunk
                sent = True
        except SessionUnavailable as error:
            if sent:
                raise
            self._answer_unavailable(error, sys.exc_info())
        if self._replaced:
            yield UNAVAILABLE_BODY

    def finish(self) -> None:
        if self._started and not self._replaced:
            self._unsticky.sessions.commit_late(self._session)

    def unavailable(self, error: SessionUnavailable) -> list[bytes]:
        self._answer_unavailable(error, sys.exc_info())
        return [UNAVAILABLE_BODY]

    def _answer_unavailable(self, error: SessionUnavailable, exc_info: Any) -> None:
        self._replaced = True
        replaces = [exc_info] if exc_info and self._started else []
        self._start_response(*_unavailable_head(error), *replaces)


def _ignore(data: bytes) -> None:
    """In place of the server's `write`, once 503 was answered."""


class _Streamed:
    """A body that is made while it is sent."""

    def __init__(self, response: _Response, body: Iterable[bytes]) -> None:
        self._response = response
        self._body = body
        self._chunks = response.chunks(body)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        try:
            _close(self._body)
        finally:
            self._response.finish()


def _unavailable_head(error: SessionUnavailable) -> tuple[str, Headers]:
    return "503 Service Unavailable", [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(UNAVAILABLE_BODY))),
        ("Retry-After", str(error.retry_after)),
        ("Cache-Control", "no-store"),
    ]
