"""Any WSGI app: `app = UnstickyMiddleware(app)` gives it `environ["unsticky.session"]` and `["unsticky.client"]`."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from . import settings as settings_module
from .arrivals import LATE_BODY, Arrivals
from .context import Arrival, RequestState, current, deadline_of
from .errors import DeadlineExceeded, SessionLimitReached, SessionUnavailable
from .load import Meter
from .pools import Pools
from .reporting import ReportingApp
from .session.cookie import Header, Headers, InboundCookies, carrier, token_header, with_session_headers
from .session.inbound import Device, Inbound
from .session.session import Session
from .session.token import Token
from .session.verbs import ThreadSession
from .sessions import LIMIT_BODY, UNAVAILABLE_BODY, Sessions
from .settings import Source
from .wsgi_body import close, is_ready

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_LATE = "504 Gateway Timeout"


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
        self.carrier = carrier(self.settings.session, self.sessions.terms.lifetime)
        self.load = Meter(self.settings.load_report)  # `load.say("named_metrics.queue", 3)`
        inside: WSGIApplication = _WithSession(app, self)
        if self.settings.statelessness.guard != "off":
            from .statelessness.guard import hosts  # not for those who do without

            inside = hosts.GuardedWsgi(inside, hosts.guard_of(self.settings), app)
        inner = InContext(inside, Arrivals(self.settings.inbound))
        self._app: WSGIApplication = ReportingApp(inner, self.load) if self.load.on else inner
        close_at_exit(self)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._app(environ, start_response)

    def close(self) -> None:
        """Close the client, the pools and the store."""
        self.client.close()
        self.pools.close()
        self.sessions.close()


class _Closable(Protocol):
    def close(self) -> None: ...


def close_at_exit(thing: _Closable) -> None:
    """Close it when the interpreter ends, if it is still there."""
    atexit.register(_close_if_alive, weakref.ref(thing))


def _close_if_alive(reference: weakref.ref[_Closable]) -> None:
    alive = reference()
    if alive is not None:
        alive.close()


class InContext:
    """Runs a WSGI app's call, and each step and the close of a streamed body, with the state of their request.

    Each of them ends with what was there before: nothing leaks into the server's thread, and requests inside of
    requests, or bodies that are sent in turns, each see their own.
    """

    def __init__(self, app: WSGIApplication, arrivals: Arrivals) -> None:
        self.app = app
        self._arrivals = arrivals

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        arrival = self._arrivals.of_wsgi(environ)
        if arrival is not None and self._arrivals.expired(arrival):
            start_response(_LATE, _plain(LATE_BODY))
            return [LATE_BODY]
        environ["unsticky.deadline"] = deadline_of(arrival)
        state, before = WsgiRequest(environ, arrival), current.get()
        current.set(state)
        try:
            body = self.app(environ, start_response)
        finally:
            current.set(before)
        if state.answered or is_ready(body, environ):
            state.end()
            return body
        return _Body(body, state)


def _plain(body: bytes, *more: Header) -> Headers:
    return [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        *more,
        ("Cache-Control", "no-store"),
    ]


class _Body:
    """A body that the app makes while it is sent."""

    __slots__ = ("_body", "_chunks", "_state")

    def __init__(self, body: Iterable[bytes], state: WsgiRequest) -> None:
        self._body = body
        self._state = state

    def __iter__(self) -> Iterator[bytes]:
        self._chunks = self._run(iter, self._body)
        return self

    def __next__(self) -> bytes:
        chunk: bytes = self._run(next, self._chunks)
        return chunk

    def close(self) -> None:
        self._state.end()
        self._run(close, self._body)

    def _run(self, step: Callable[[Any], Any], argument: Any) -> Any:
        before = current.get()
        current.set(self._state)
        try:
            return step(argument)
        finally:
            current.set(before)


class WsgiRequest(RequestState):
    """A request, as outbound calls see it."""

    __slots__ = ("_environ", "answered", "arrival", "session")

    def __init__(self, environ: WSGIEnvironment, arrival: Arrival | None) -> None:
        self._environ = environ
        self.arrival = arrival
        self.session: Session | None = None
        self.answered = False  # said by a host: the app has done all it has to, whatever its body looks like

    def end(self) -> None:
        """The response is complete, or as good as."""
        if self.arrival is not None:
            self.arrival.end()

    @property
    def cookies(self) -> Mapping[str, str]:
        return InboundCookies(lambda: header_values(self._environ, "cookie"))

    def header(self, name: str) -> str | None:
        return next(iter(header_values(self._environ, name)), None)

    def session_key(self) -> str | None:
        return None if self.session is None else self.session.id


def header_values(environ: WSGIEnvironment, name: str) -> list[str]:
    """A request header's value, if it is there."""
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")
    return [] if value is None else [value]


def device_of(environ: WSGIEnvironment) -> Device:
    """What a list of devices shows of the client."""
    return Device.of(environ.get("HTTP_USER_AGENT"), environ.get("REMOTE_ADDR"))


class _Inbound(Inbound):
    """What the session asks of the request."""

    __slots__ = ("_environ", "_unsticky")

    def __init__(self, environ: WSGIEnvironment, unsticky: UnstickyMiddleware) -> None:
        self._environ = environ
        self._unsticky = unsticky

    def token(self) -> Token | None:
        texts = self._unsticky.carrier.read(lambda name: header_values(self._environ, name))
        return self._unsticky.sessions.signer.choose(texts)

    def device(self) -> Device:
        return device_of(self._environ)


class _WithSession:
    """Runs inside of the request's Context: opens the session, commits it, answers 503 when its store is away."""

    def __init__(self, app: WSGIApplication, unsticky: UnstickyMiddleware) -> None:
        self._app = app
        self._unsticky = unsticky

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        unsticky = self._unsticky

        session = unsticky.sessions.bind(_Inbound(environ, unsticky), ThreadSession)
        environ["unsticky.session"] = session
        environ["unsticky.client"] = unsticky.client
        tell_session_key(session)
        response = _Response(session, unsticky, start_response)
        try:
            body = self._app(environ, response.start)
        except SessionUnavailable as error:
            return response.unavailable(error)
        except SessionLimitReached:  # of `session.save()`
            return response.limit_reached()
        except DeadlineExceeded:
            return response.late()
        return response.body(body, environ)


def tell_session_key(session: Session) -> None:
    """Let outbound calls of this request hash by its session."""
    state = current.get()
    if isinstance(state, WsgiRequest):
        state.session = session


class _Response:
    """`start_response`, with the commit in front of it. From an outage on, 503 replaces what the app sends."""

    def __init__(self, session: Session, unsticky: UnstickyMiddleware, start_response: StartResponse) -> None:
        self._session = session
        self._unsticky = unsticky
        self._start_response = start_response
        self._started = False
        self._added: list[Header] = []
        self._replaced: bytes | None = None  # the body that is sent instead of the app's

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
        """The app may call it again with `exc_info`, to replace headers that are not sent: the cookie stays."""
        if not self._started:
            try:
                self._commit()
            except SessionUnavailable as error:
                self._answer_unavailable(error, exc_info)
            except SessionLimitReached:
                self._answer_limit(exc_info)
        if self._replaced is not None:
            return _ignore
        accessed = self._session.accessed
        headers = with_session_headers(headers, self._unsticky.carrier, self._added, accessed=accessed)
        self._started = True
        return self._start_response(status, headers, *([exc_info] if exc_info else []))

    def _commit(self) -> None:
        unsticky = self._unsticky
        committed = unsticky.sessions.commit(self._session)
        self._session.seal()
        permanent = dict.get(self._session, "_permanent")
        given = token_header(committed, unsticky.carrier, unsticky.sessions.signer, permanent)
        self._added = [] if given is None else [given]

    def body(self, body: Iterable[bytes], environ: WSGIEnvironment) -> Iterable[bytes]:
        """The app's body, unless 503 was answered; what a streamed one changes in the session is written too."""
        if not is_ready(body, environ):
            return _Streamed(self, body)
        if self._replaced is not None:
            close(body)
            return [self._replaced]
        self.finish()
        return body

    def chunks(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The app may start its response, or use its session, only now."""
        sent = False
        try:
            for chunk in body:
                if self._replaced is not None:
                    break
                yield chunk
                sent = True
        except SessionUnavailable as error:
            if sent:
                raise
            self._answer_unavailable(error, sys.exc_info())
        except SessionLimitReached:
            if sent:
                raise
            self._answer_limit(sys.exc_info())
        except DeadlineExceeded:
            if sent:
                raise
            self._answer(_LATE, LATE_BODY, [], sys.exc_info())
        if self._replaced is not None:
            yield self._replaced

    def finish(self) -> None:
        if self._started and self._replaced is None:
            self._unsticky.sessions.commit_late(self._session)

    def unavailable(self, error: SessionUnavailable) -> list[bytes]:
        self._answer_unavailable(error, sys.exc_info())
        return [UNAVAILABLE_BODY]

    def limit_reached(self) -> list[bytes]:
        self._answer_limit(sys.exc_info())
        return [LIMIT_BODY]

    def late(self) -> list[bytes]:
        self._answer(_LATE, LATE_BODY, [], sys.exc_info())
        return [LATE_BODY]

    def _answer_limit(self, exc_info: Any) -> None:
        self._answer("409 Conflict", LIMIT_BODY, [], exc_info)

    def _answer_unavailable(self, error: SessionUnavailable, exc_info: Any) -> None:
        retry = ("Retry-After", str(error.retry_after))
        self._answer("503 Service Unavailable", UNAVAILABLE_BODY, [retry], exc_info)

    def _answer(self, status: str, body: bytes, headers: Headers, exc_info: Any) -> None:
        self._replaced = body
        replaces = [exc_info] if exc_info and self._started else []
        self._start_response(status, _plain(body, *headers), *replaces)


def _ignore(data: bytes) -> None:
    """In place of the server's `write`, once another answer was given."""


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
            close(self._body)
        finally:
            self._response.finish()
