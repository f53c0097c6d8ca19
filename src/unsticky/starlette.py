"""Starlette, FastAPI and any ASGI app: sessions in a shared store, and a client over the pools.

    from unsticky.starlette import UnstickyMiddleware

    app = Starlette(routes=..., middleware=[Middleware(UnstickyMiddleware, settings="unsticky.toml")])
    request.session["cart"] = [...]                                      # unchanged
    await request.state.unsticky.client.get("http://catalog/items")      # "catalog" is a pool of unsticky.toml

Those who want the session alone change one import: `SessionMiddleware` takes Starlette's own arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Literal

from anyio import move_on_after
from starlette.datastructures import Secret
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import settings as settings_module
from .context import RequestState, current
from .errors import SessionUnavailable, SessionValueError
from .pools import Pools
from .scalars import Secret as HiddenText
from .scalars import StoreURL
from .session.cookie import CookieFormat, InboundCookies, cookie_values, set_cookie, with_session_headers
from .session.options import SessionOptions
from .session.session import Session
from .session.token import Token
from .sessions import UNAVAILABLE_BODY, Sessions
from .settings import Settings, Source

__all__ = ["Session", "SessionMiddleware", "UnstickyMiddleware"]

log = logging.getLogger("unsticky.session")

_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
TWO_WEEKS = 14 * 24 * 60 * 60  # seconds


class SessionMiddleware:
    """Starlette's session middleware over a shared store: the same arguments, and `store`.

    `secret_key` may be None: the token is 256 random bits, and its signature only spares the store forged ones.
    """

    def __init__(
        self,
        app: ASGIApp,
        secret_key: str | Secret | None = None,
        session_cookie: str = "session",
        max_age: int | None = TWO_WEEKS,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool = False,
        domain: str | None = None,
        partitioned: bool = False,
        *,
        store: str = "sqlite:///sessions.db",
    ) -> None:
        keys = () if secret_key is None else (HiddenText(secret_key),)
        self.sessions = Sessions(SessionOptions(store=StoreURL(store), secret_keys=keys), framework_idle=max_age)
        form = CookieFormat(
            name=session_cookie,
            path=path,
            domain=domain,
            secure=https_only,
            same_site=same_site,
            partitioned=partitioned,
            max_age=max_age,
        )
        self._app = _WithSession(app, self.sessions, form, self.sessions.aclose)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class UnstickyMiddleware:
    """Sessions and routed outbound calls: `request.session`, `request.state.unsticky.client`.

    `settings`: a path, a mapping with the file's shape, or Settings. None: the file that the environment variable
    UNSTICKY_SETTINGS names, then ./unsticky.toml, then the defaults. Raises SettingsError if they are wrong.
    """

    def __init__(self, app: ASGIApp, settings: Source | None = None) -> None:
        loaded = settings_module.load(settings)
        self.sessions = Sessions(loaded.session)
        self.state = AppState(loaded)
        form = CookieFormat.of(loaded.session.cookie, self.sessions.lifetime)
        self._app = _WithSession(app, self.sessions, form, self.aclose)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope.setdefault("state", {})["unsticky"] = self.state
        await self._app(scope, receive, send)

    async def aclose(self) -> None:
        """Close the client, the pools and the store. They open again when they are used."""
        await self.state.aclose()
        await self.sessions.aclose()


class AppState:
    """What one app has of unsticky: `request.state.unsticky`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pools = Pools(settings)

    @cached_property
    def client(self) -> Any:
        """The client over the pools: an httpx.AsyncClient, or httpx2.AsyncClient where the settings say so."""
        return self.pools.async_client()

    async def aclose(self) -> None:
        """Close the client and the pools."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            await client.aclose()
        self.pools.close()


def _request_state(scope: Scope, session: Session) -> RequestState:
    def header(name: str) -> str | None:
        wanted = name.lower().encode("latin-1")
        values = [value for key, value in scope["headers"] if key == wanted]
        return b", ".join(values).decode("latin-1") if values else None

    cookies = InboundCookies(lambda: _cookie_headers(scope))
    return RequestState(cookies=cookies, header=header, session_key=session.store_key)


def _cookie_headers(scope: Scope) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == b"cookie"]


def _closing(send: Send, close: Callable[[], Awaitable[None]]) -> Send:
    """Close what is ours when the app's own shutdown is done."""

    async def closing(message: Message) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await close()
        await send(message)

    return closing


class _WithSession:
    """Opens the session of a connection, commits it before the headers and after the body, answers outages."""

    def __init__(
        self, app: ASGIApp, sessions: Sessions, form: CookieFormat, close: Callable[[], Awaitable[None]]
    ) -> None:
        self.app = app
        self.sessions = sessions
        self.form = form
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await self._serve(scope, receive, send)
        else:
            await self.app(scope, receive, _closing(send, self._close))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        def presented() -> Token | None:
            return self.sessions.signer.choose(cookie_values(_cookie_headers(scope), self.form.name))

        session = await self.sessions.bind_async(presented, Session)
        scope["session"] = session
        current.set(_request_state(scope, session))
        response = _Response(self, session, send)
        try:
            await self.app(scope, receive, response.send)
        except SessionUnavailable as error:
            if scope["type"] != "http" or response.started:
                raise
            await response.answer_unavailable(error)
        except BaseException:
            await response.finish_failed()
            raise
        else:
            await response.finish()


class _Response:
    """`send`, with the commit in front of the headers."""

    def __init__(self, host: _WithSession, session: Session, send: Send) -> None:
        self._host = host
        self._session = session
        self._send = send
        self.started = False
        self._replaced = False  # 503 was sent in place of what the app sends

    async def send(self, message: Message) -> None:
        if not self.started and message["type"] in _STARTS:
            await self._start(message)
        elif not self.started and message["type"] == "websocket.close":
            self._session.seal()  # refused before it began: no header can carry a cookie
            self.started = True
            await self._host.sessions.commit_late_async(self._session)
            await self._send(message)
        elif not self._replaced:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        try:
            committed = await self._host.sessions.commit_async(self._session)
        except SessionUnavailable as error:
            if message["type"] != "http.response.start":
                raise
            await self.answer_unavailable(error)
            return
        self.started = True
        self._session.seal()
        cookie = set_cookie(committed, self._host.form, self._host.sessions.signer)
        if cookie is not None or self._session.accessed:
            message["headers"] = _encoded(
                with_session_headers(
                    [(key.decode("latin-1"), value.decode("latin-1")) for key, value in message.get("headers", [])],
                    cookie,
                    accessed=self._session.accessed,
                )
            )
        await self._send(message)

    async def finish(self) -> None:
        """What a streamed body or a WebSocket changed in an existing session is written too."""
        if self.started and not self._replaced:
            await self._host.sessions.commit_late_async(self._session)

    async def finish_failed(self) -> None:
        """The same where the app ended with an error or was cancelled: a logout counts all the same."""
        with move_on_after(2 * self._host.sessions.options.store_timeout, shield=True):
            try:
                await self.finish()
            except SessionValueError as error:
                log.error("A change that was made to a session is lost: %s", error)

    async def answer_unavailable(self, error: SessionUnavailable) -> None:
        self.started = self._replaced = True
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(UNAVAILABLE_BODY)).encode()),
            (b"retry-after", str(error.retry_after).encode()),
            (b"cache-control", b"no-store"),
        ]
        await self._send({"type": "http.response.start", "status": 503, "headers": headers})
        await self._send({"type": "http.response.body", "body": UNAVAILABLE_BODY})


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in headers]
