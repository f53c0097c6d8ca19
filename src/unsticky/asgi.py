"""The session of a connection, for any ASGI app: opened before the app runs, committed before its headers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import cached_property
from typing import Any, Protocol

from anyio import move_on_after

from .arrivals import LATE_BODY, Arrivals
from .context import Arrival, RequestState, current
from .disconnects import listening
from .errors import ClientDisconnected, DeadlineExceeded, SessionLimitReached, SessionUnavailable, SessionValueError
from .session.commit import Committed, is_settled, untold
from .session.cookie import (
    Carrier,
    CookieFormat,
    Header,
    InboundCookies,
    cookie_values,
    token_header,
    uncached,
    vary_on,
)
from .session.inbound import Device, Inbound, OldSession, client_of
from .session.old_cookies import OldCookies
from .session.token import Token
from .session.verbs import LoopSession as Session
from .sessions import LIMIT_BODY, UNAVAILABLE_BODY, Sessions

log = logging.getLogger("unsticky.session")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ByteHeaders = list[tuple[bytes, bytes]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))


class State(Protocol):
    """What the app finds as `scope["state"]["unsticky"]`."""

    async def aclose(self) -> None: ...


class WithSession:
    """Opens the session of a connection, commits it before the headers and after the body, answers outages."""

    def __init__(
        self,
        app: ASGIApp,
        sessions: Sessions,
        form: Carrier,
        state: State | None = None,
        arrivals: Arrivals | None = None,
        *,
        old_age: float | None,
    ) -> None:
        """`old_age`: seconds that a cookie of Starlette's own is good for; None: for ever."""
        self.app = app
        self.sessions = sessions
        self.form = form
        self._vary = (b"vary", form.varies_on.encode("latin-1"))
        self.inbound_name = form.varies_on.lower().encode("latin-1")  # of the header with the token
        self.old_cookies = OldCookies.of(sessions.options, form, old_age)
        self._state = state
        self._arrivals = arrivals
        self._lazy = sessions.options.lazy
        self._excluded = sessions.options.exclude

    def varied(self, headers: Iterable[tuple[bytes, bytes]]) -> ByteHeaders:
        """`headers` of a response that depends on its session."""
        kept = [*headers]
        if b"vary" in _names(kept):
            _rewrite(kept, b"vary", lambda vary: vary_on(vary, self.form.varies_on))
        else:
            kept.append(self._vary)
        return kept

    @cached_property
    def _at_once(self) -> bool:
        return self.sessions.access.answers_at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, _closing(send, self.aclose))
            return
        if self._state is not None:
            scope.setdefault("state", {})["unsticky"] = self._state
        if "session" in scope and _has_session(scope, self.form):
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, send)
        if self._arrivals is not None and scope["type"] == "http":
            exchange.arrival = arrival = self._arrivals.of_asgi(scope["headers"])
            if arrival is not None and self._arrivals.expired(arrival):
                await exchange.answer_late()
                return
            if arrival is not None and self._arrivals.listens:
                receive = listening(arrival, receive)
        if self._at_once:
            session = self.sessions.bind_now(exchange, Session)
        elif self._lazy or (self._excluded and scope["path"].startswith(self._excluded)):
            session = self.sessions.bind_lazily(exchange, Session)
        else:
            session = await self.sessions.bind_loaded(exchange, Session)
        scope["session"] = exchange.session = session
        current.set(exchange)
        try:
            await self.app(scope, receive, exchange.send)
        except (SessionUnavailable, SessionLimitReached) as error:  # the second of `session.save()`
            if scope["type"] != "http" or exchange.started:
                await exchange.finish_failed()
                raise
            await exchange.answer_refused(error)
        except DeadlineExceeded:
            if scope["type"] != "http" or exchange.started:
                await exchange.finish_failed()
                raise
            await exchange.answer_late()
        except ClientDisconnected:  # nobody waits for an answer; this one is for the log of the server
            if exchange.started:
                await exchange.finish_failed()
            else:
                await exchange.answer_gone()
        except BaseException:
            await exchange.finish_failed()
            raise
        finally:
            if exchange.arrival is not None:
                exchange.end()
        if session.used and not is_settled(session):
            await exchange.finish()
        session.let_go()

    async def aclose(self) -> None:
        """Close the client, the pools and the store. They open again when they are used."""
        if self._state is not None:
            await self._state.aclose()
        await self.sessions.aclose()


def _has_session(scope: Scope, form: Carrier) -> bool:
    """Has this middleware been added twice, or a mounted app its own? Two sessions under one cookie end each other."""
    outer = current.get()
    return isinstance(outer, _Exchange) and outer.session is scope["session"] and outer.carrier == form


def _closing(send: Send, close: Callable[[], Awaitable[None]]) -> Send:
    """Close what is ours when the app's own shutdown is done."""

    async def closing(message: Message) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await close()
        await send(message)

    return closing


class _Exchange(Inbound, RequestState):
    """One request and its response: what the session asks of the one, and `send`, with the commit in front."""

    __slots__ = ("_host", "_replaced", "_scope", "_send", "arrival", "session", "started")

    session: Session

    def __init__(self, host: WithSession, scope: Scope, send: Send) -> None:
        self._host = host
        self._scope = scope
        self._send = send
        self.arrival: Arrival | None = None
        self.started = False
        self._replaced = False  # another answer was sent in place of what the app sends

    @property
    def carrier(self) -> Carrier:
        return self._host.form

    # What the session and outbound calls ask of the request.

    def token(self) -> Token | None:
        host = self._host
        wanted, texts = host.inbound_name, []
        for name, value in self._scope["headers"]:
            if name == wanted:
                texts.append(value.decode("latin-1"))
        return host.sessions.signer.choose(host.form.values(texts)) if texts else None

    def old_session(self) -> OldSession | None:
        old = self._host.old_cookies
        if old is None:
            return None
        return old.read(
            self._headers("cookie"), self._host.sessions.clock.time(), client_of(self.header, self._address)
        )

    def device(self) -> Device:
        return Device.of(self.header("user-agent"), self._address)

    @property
    def _address(self) -> str | None:
        client = self._scope.get("client")
        return client[0] if client else None

    @property
    def cookies(self) -> Mapping[str, str]:
        return InboundCookies(lambda: self._headers("cookie"))

    def header(self, name: str) -> str | None:
        values = self._headers(name.lower())
        return ", ".join(values) if values else None

    def session_key(self) -> str | None:
        return self.session.id

    def _headers(self, name: str) -> list[str]:
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for key, value in self._scope["headers"] if key == wanted]

    # The response.

    async def send(self, message: Message) -> None:
        if self.arrival and message["type"] == "http.response.body" and not message.get("more_body", False):
            self.end()  # before the server knows: it tells of a finished response as it tells of a client that left
        if self.started:
            if not self._replaced:
                await self._send(message)
        elif message["type"] in _STARTS:
            session = self.session
            if session.used and not is_settled(session):
                await self._commit(message)
                return
            self.started = True
            session.seal()
            if session.used:
                message["headers"] = self._host.varied(message.get("headers", ()))
            await self._send(message)
        else:
            if message["type"] == "websocket.close":  # refused before it began: no header can carry a cookie
                self.session.seal()
                self.started = True
                await self._host.sessions.commit_late_async(self.session)
            await self._send(message)

    async def _commit(self, message: Message) -> None:
        http = message["type"] == "http.response.start"
        try:
            committed = await self._host.sessions.write_async(self.session)
        except (SessionUnavailable, SessionLimitReached) as error:
            if not http:
                raise
            await self.answer_refused(error)
            return
        self.started = True
        self.session.seal()
        message["headers"] = self._told(self._host.varied(message.get("headers", ())), committed)
        await self._send(message)

    def _told(self, headers: ByteHeaders, committed: Committed) -> ByteHeaders:
        """`headers` with those that tell the client what became of its session."""
        host, session = self._host, self.session
        given = token_header(committed, host.form, host.sessions.signer, dict.get(session, "_permanent"))
        added = [] if given is None else [given]
        if committed.took_over and host.old_cookies is not None:
            presented = (name for name in host.old_cookies.names if cookie_values(self._headers("cookie"), name))
            added += [deletion for name in presented for deletion in _ended(name, host.form)]
        if added:
            if b"cache-control" in _names(headers):
                _rewrite(headers, b"cache-control", uncached)
            else:
                headers.append((b"cache-control", b"no-store"))
            for name, value in added:
                headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        return headers

    def _with_saved(self, headers: ByteHeaders) -> ByteHeaders:
        """With what the app has saved."""
        session: Session | None = getattr(self, "session", None)  # none: it came too late to have one
        saved = None if session is None else untold(session)
        return headers if saved is None else self._told(self._host.varied(headers), saved)

    def end(self) -> None:
        """The response is complete: outbound calls of background tasks are nobody's to wait for."""
        if self.arrival is not None:
            self.arrival.end()

    async def finish(self) -> None:
        """What a streamed body or a WebSocket changed in an existing session is written too."""
        if self.started and not self._replaced:
            await self._host.sessions.commit_late_async(self.session)

    async def finish_failed(self) -> None:
        """The same where the app ended with an error or was cancelled: a logout counts all the same."""
        with move_on_after(2 * self._host.sessions.options.store_timeout, shield=True):
            try:
                await self.finish()
            except SessionValueError as error:
                log.error("A change that was made to a session is lost: %s", error)

    async def answer_refused(self, error: SessionUnavailable | SessionLimitReached) -> None:
        if isinstance(error, SessionLimitReached):
            await self._answer(409, LIMIT_BODY, [])
        else:
            await self._answer(503, UNAVAILABLE_BODY, [(b"retry-after", str(error.retry_after).encode())])

    async def answer_late(self) -> None:
        await self._answer(504, LATE_BODY, [])

    async def answer_gone(self) -> None:
        await self._answer(499, b"", [])

    async def _answer(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = self._replaced = True
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            *headers,
            (b"cache-control", b"no-store"),
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": self._with_saved(headers)})
        await self._send({"type": "http.response.body", "body": body})


def _ended(name: str, form: Carrier) -> list[Header]:
    """The deletion of a cookie that was taken over, if ours does not replace it."""
    if isinstance(form, CookieFormat):
        return [] if form.name == name else [form.named(name).delete()]
    return [CookieFormat(name=name).delete()]


def _names(headers: ByteHeaders) -> set[bytes]:
    return {name.lower() for name, _ in headers}


def _rewrite(headers: ByteHeaders, name: bytes, rewrite: Callable[[str], str]) -> None:
    """Give the header `name`, which is there, another value, in place; several of that name become one."""
    values = [value for key, value in headers if key.lower() == name]
    headers[:] = [header for header in headers if header[0].lower() != name]
    headers.append((name, rewrite(b", ".join(values).decode("latin-1")).encode("latin-1")))
