"""The wire `aiohttp`: async calls go over its connections, as requests and responses of httpx or httpx2.

Of aiohttp's client only the connections are wanted: no cookies, no redirects, no decoding, no environment, no headers
of its own, and no second try when a kept connection turns out to be closed, which is the flow's to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import lru_cache
from types import ModuleType
from typing import Any

import aiohttp
from aiohttp.hdrs import ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT
from multidict import CIMultiDict
from yarl import URL

from .connections import KEEP
from .library import Library

_OWN_HEADERS = (ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT)
_TLS = ("verify", "cert", "trust_env")


def check(options: dict[str, Any]) -> None:
    """Raises ValueError for what this wire can't do."""
    limits = options.get("limits")
    if limits is not None and (limits.max_connections, limits.max_keepalive_connections) != (None, None):
        raise ValueError('limits: wire = "aiohttp" has none of connections, use [pools.NAME.limits]')
    for name, value in options.items():
        if value not in (None, False) and name not in (*_TLS, "http1", "limits"):
            raise ValueError(f'{name}: not possible with wire = "aiohttp", use wire = "default"')


class _Sending:
    """A request on its way: what asks for its timeouts, and the connection that it got."""

    __slots__ = ("connected", "timeouts")

    def __init__(self, timeouts: Any) -> None:
        self.timeouts = timeouts
        self.connected: asyncio.Transport | None = None


_sending: ContextVar[_Sending] = ContextVar("unsticky.aiohttp_wire.sending")


class AiohttpTransport:
    """The innermost hop of one event loop, for all endpoints."""

    def __init__(self, library: Library, options: dict[str, Any]) -> None:
        self._names = library.module
        context = library.module.create_ssl_context(**{key: options[key] for key in _TLS if key in options})
        limits = options.get("limits")
        keep = KEEP if limits is None else limits.keepalive_expiry
        connector = _Connector(limit=0, ssl=context, keepalive_timeout=keep)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_OWN_HEADERS,
            trust_env=False,
        )
        self._session._retry_connection = False
        self._open: set[aiohttp.ClientResponse] = set()

    async def handle_async_request(self, request: Any) -> Any:
        timeouts = request.extensions.get("timeout") or {}
        body = _Upload(request.stream) if not isinstance(request.stream, self._names.ByteStream) else None
        sending = _Sending(timeouts)
        token = _sending.set(sending)
        try:
            response = await self._send(request, timeouts, b"".join(request.stream) if body is None else body.parts())
        except BaseException as error:
            _do_not_linger(sending.connected)
            if isinstance(error, Exception):
                raise _mapped(self._names, body.error if body and body.error else error) from error
            raise
        finally:
            _sending.reset(token)
        return self._response(response, sending)

    async def _send(self, request: Any, timeouts: Any, body: Any) -> aiohttp.ClientResponse:
        return await self._session.request(
            request.method,
            _url(str(request.url)),
            data=body or None,
            headers=_headers(request.headers.raw),
            allow_redirects=False,
            server_hostname=request.extensions.get("sni_hostname") if request.url.scheme == "https" else None,
            timeout=_timeout(timeouts),
        )

    def _response(self, response: aiohttp.ClientResponse, sending: _Sending) -> Any:
        self._open.add(response)
        version = response.version or aiohttp.HttpVersion11
        extensions = {
            "http_version": f"HTTP/{version.major}.{version.minor}".encode(),
            "reason_phrase": (response.reason or "").encode("ascii", "ignore"),
        }
        stream = _body_of(self._names)(self._names, response, sending, self._open)
        headers = list(response.raw_headers)
        return self._names.Response(response.status, headers=headers, stream=stream, extensions=extensions)

    def straight(self, request: Any) -> AiohttpTransport:
        """As `Inner` has it: aiohttp keeps connections by endpoint and TLS name itself."""
        return self

    def of(self, origin: str, request: Any) -> AiohttpTransport:
        return self

    def swept(self) -> list[Any]:
        return []

    def end(self) -> list[Any]:
        return [self]

    def busy(self) -> int:
        """How many responses are open."""
        return len(self._open)

    async def aclose(self) -> None:
        for response in list(self._open):
            response.close()
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """Says in which phase a request is: the time for a response begins when there is a connection."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's
        sending = _sending.get()
        timeouts = sending.timeouts
        timeouts.get("connect")
        connection = await super().connect(req, traces, timeout)
        sending.connected = connection.transport
        try:
            timeouts.get("write")
        except BaseException:  # nobody waits for this attempt any more: nothing is sent
            connection.release()
            raise
        return connection


class _Upload:
    """A request's body, and the exception of its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except Exception as error:
            self.error = error
            raise


class _Body:
    """A response's body."""

    def __init__(self, names: ModuleType, response: aiohttp.ClientResponse, sending: _Sending, kept: set[Any]) -> None:
        self._names = names
        self._response = response
        self._sending = sending
        self._kept = kept

    def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:  # else all of it is here
            connection.protocol.read_timeout = self._sending.timeouts.get("read")
            connection.protocol.start_timeout()
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._response.content.readany()
        except BaseException as error:
            self._close()  # as httpcore does: callers that let the error go do not close
            if isinstance(error, Exception):
                raise _mapped(self._names, error) from error
            raise
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._close()

    def _close(self) -> None:
        self._kept.discard(self._response)
        unread = self._response.connection is not None  # else it is given back already, and may be another's
        self._response.close()
        if unread:
            _do_not_linger(self._sending.connected)


def _do_not_linger(connected: asyncio.Transport | None) -> None:
    """A connection that is being closed sends what it has first: to a peer that reads no more, for ever."""
    if connected is not None and connected.is_closing() and connected.get_write_buffer_size():
        connected.abort()


@lru_cache(maxsize=8)
def _body_of(names: ModuleType) -> type[Any]:
    return type("Body", (_Body, names.AsyncByteStream), {})


@lru_cache(maxsize=1024)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


@lru_cache(maxsize=256)
def _timeout_of(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read)


def _timeout(timeouts: Any) -> aiohttp.ClientTimeout:
    found = dict(timeouts)  # a copy does not tell of phases
    return _timeout_of(found.get("connect"), found.get("read"))


def _headers(raw: list[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    """As they are; but aiohttp says itself that a body is chunked, and keeps doubles only if they are spelt alike."""
    found: CIMultiDict[str] = CIMultiDict()
    spelt: dict[bytes, str] = {}
    for name, value in raw:
        key = name.lower()
        if key != b"transfer-encoding":
            found.add(spelt.setdefault(key, name.decode("latin-1")), value.decode("latin-1"))
    return found


def _mapped(names: ModuleType, error: Exception) -> Exception:
    """The library's own exception for one of aiohttp's."""
    for kind, name in _ERRORS:
        if isinstance(error, kind):
            text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)  # without the URL
            found: Exception = getattr(names, name)(text or type(error).__name__)
            return found
    return error


_ERRORS: tuple[tuple[type[Exception], str], ...] = (  # the first that fits
    (aiohttp.ConnectionTimeoutError, "ConnectTimeout"),
    (aiohttp.ServerTimeoutError, "ReadTimeout"),
    (aiohttp.ClientConnectorError, "ConnectError"),
    (aiohttp.ServerDisconnectedError, "RemoteProtocolError"),
    (aiohttp.ClientOSError, "ReadError"),
    (aiohttp.ClientResponseError, "RemoteProtocolError"),
    (aiohttp.ClientPayloadError, "RemoteProtocolError"),
    (aiohttp.InvalidURL, "UnsupportedProtocol"),
    (aiohttp.ClientError, "ReadError"),
    (asyncio.TimeoutError, "ReadTimeout"),
    (ValueError, "LocalProtocolError"),
)
