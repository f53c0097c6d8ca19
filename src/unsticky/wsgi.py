"""Any WSGI app: `app = UnstickyMiddleware(app)` gives it `environ["unsticky.session"]` and `["unsticky.client"]`."""

from __future__ import annotations

import atexit
import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from . import settings as settings_module
from .arrivals import LATE_BODY, Arrivals
from .errors import DeadlineExceeded, SessionLimitReached, SessionUnavailable, SessionValueError
from .load import Meter
from .pools import Pools
from .reporting import ReportingApp
from .session.commit import Committed, untold
from .session.cookie import Header, Headers, carrier, token_header, with_session_headers
from .session.inbound import Device, Inbound
from .session.session import Session
from .session.token import Token
from .session.verbs import ThreadSession
from .sessions import LIMIT_BODY, UNAVAILABLE_BODY, Sessions
from .settings import Source
from .wsgi_body import close, is_ready
from .wsgi_context import LATE, InContext, device_of, header_values, plain_headers, tell_session_key

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("unsticky.session")


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


class _Inbound(Inbound):
    """What the session asks of the request."""

    __slots__ = ("_environ", "_unsticky")

    def __init__(self, environ: WSGIEnvironment, unsticky: UnstickyMiddleware) -> None:
        self._environ = environ
        self._unsticky = unsticky

    def token(self) -> Token | None:
        form = self._unsticky.carrier
        headers = header_values(self._environ, form.varies_on)
        return self._unsticky.sessions.signer.choose(form.values(headers)) if headers else None

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
        except BaseException:
            response.finish_failed()
            raise
        return response.body(body, environ)


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
        committed = self._unsticky.sessions.commit(self._session)
        self._session.seal()
        self._added = self._telling(committed)

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
            self._answer(LATE, LATE_BODY, [], sys.exc_info())
        if self._replaced is not None:
            yield self._replaced

    def finish(self) -> None:
        if self._started and self._replaced is None:
            self._unsticky.sessions.commit_late(self._session)

    def finish_failed(self) -> None:
        """The same where the app ended with an error after `start_response`: a logout counts all the same."""
        try:
            self.finish()
        except SessionValueError as error:
            log.error("A change that was made to a session is lost: %s", error)

    def unavailable(self, error: SessionUnavailable) -> list[bytes]:
        self._answer_unavailable(error, sys.exc_info())
        return [UNAVAILABLE_BODY]

    def limit_reached(self) -> list[bytes]:
        self._answer_limit(sys.exc_info())
        return [LIMIT_BODY]

    def late(self) -> list[bytes]:
        self._answer(LATE, LATE_BODY, [], sys.exc_info())
        return [LATE_BODY]

    def _answer_limit(self, exc_info: Any) -> None:
        self._answer("409 Conflict", LIMIT_BODY, [], exc_info)

    def _answer_unavailable(self, error: SessionUnavailable, exc_info: Any) -> None:
        retry = ("Retry-After", str(error.retry_after))
        self._answer("503 Service Unavailable", UNAVAILABLE_BODY, [retry], exc_info)

    def _answer(self, status: str, body: bytes, headers: Headers, exc_info: Any) -> None:
        self._replaced = body
        replaces = [exc_info] if exc_info and self._started else []
        # What was committed or saved stays: without its new token the client would be logged out.
        saved = untold(self._session)
        added = self._added if self._started or saved is None else self._telling(saved)
        self._start_response(status, plain_headers(body, *headers, *added), *replaces)

    def _telling(self, committed: Committed) -> list[Header]:
        unsticky, permanent = self._unsticky, dict.get(self._session, "_permanent")
        given = token_header(committed, unsticky.carrier, unsticky.sessions.signer, permanent)
        return [] if given is None else [given]


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
