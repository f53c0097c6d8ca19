"""The state of a WSGI request, which is there while its app runs and its body is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .arrivals import LATE_BODY, Arrivals
from .context import NO_DEADLINE, Arrival, RequestState, current, deadline_of
from .session.cookie import Header, Headers, InboundCookies
from .session.inbound import Device
from .session.session import Session
from .wsgi_body import BodyOf, close, is_ready

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


LATE = "504 Gateway Timeout"


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
            start_response(LATE, plain_headers(LATE_BODY))
            return [LATE_BODY]
        environ["unsticky.deadline"] = NO_DEADLINE if arrival is None else deadline_of(arrival)
        state, before = WsgiRequest(environ, arrival), current.get()
        current.set(state)
        try:
            body = self.app(environ, start_response)
        finally:
            current.set(before)
        if state.answered or is_ready(body, environ):
            if arrival is not None:
                arrival.end()
            return body
        return _Body(body, current, state)


def plain_headers(body: bytes, *more: Header) -> Headers:
    return [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        *more,
        ("Cache-Control", "no-store"),
    ]


class _Body(BodyOf):
    """The request ends with it."""

    __slots__ = ()

    def close(self) -> None:
        self._seen.end()
        self._run(close, self._body)


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


def tell_session_key(session: Session) -> None:
    """Let outbound calls of this request hash by its session."""
    state = current.get()
    if isinstance(state, WsgiRequest):
        state.session = session
