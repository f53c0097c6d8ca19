"""Pools for requests: `requests.Session().mount("http://catalog", PoolAdapter(pools))`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from io import BytesIO
from math import isinf
from typing import Any
from urllib.parse import urlsplit

import httpx
import requests
import requests.adapters
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict, HTTPResponse, Timeout
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, ProtocolError, ReadTimeoutError
from urllib3.exceptions import SSLError as HandshakeError

from . import errors
from ._transport import Library, SyncDriver
from ._transport.call_options import CallOptions
from ._transport.exchange import Exchange
from ._transport.streams import OpenBody
from .pools import Pools
from .routing.call import Failure, Outcome, Read
from .routing.failover_options import FallbackOptions
from .worker import in_forked_children

__all__ = [
    "AttemptsFailed",
    "AttemptsFailedToConnect",
    "AttemptsTimedOut",
    "CallTimeout",
    "ClientDisconnected",
    "DeadlineExceeded",
    "NoHealthyEndpoint",
    "PoolAdapter",
    "PoolOverflow",
    "call_options",
]

_PORTS = {"http": 80, "https": 443}
_options: ContextVar[Mapping[str, Any]] = ContextVar("unsticky.requests.call_options", default={})  # noqa: B039


class NoHealthyEndpoint(errors.NoHealthyEndpoint, requests.ConnectionError):
    """Nothing was sent: the pool has no endpoint."""


class PoolOverflow(errors.PoolOverflow, requests.ConnectionError):
    """Nothing was sent: the limits of the pool are reached."""


class CallTimeout(errors.CallTimeout, requests.Timeout):
    """The time for the whole call passed."""


class AttemptsFailed(errors.AttemptsFailed, requests.ConnectionError):
    """Every attempt failed. One of the two below, where the last attempt was a matter of connecting or of time."""


class AttemptsFailedToConnect(AttemptsFailed):
    """Every attempt failed, the last one before there was a connection."""


class AttemptsTimedOut(AttemptsFailed, requests.Timeout):
    """Every attempt failed, the last one because its time passed."""


class DeadlineExceeded(CallTimeout, errors.DeadlineExceeded):
    """It was the deadline of the request that is being served."""


class ClientDisconnected(errors.ClientDisconnected, requests.ConnectionError):
    """Who sent the request that is being served went away."""


def call_options(**options: Any) -> AbstractContextManager[None]:
    """What the calls inside want otherwise: `timeout` (seconds, of a whole call), `retry`, `hash_key`, `idempotent`.

    with call_options(timeout=1.0, retry=False):
        session.get("http://catalog/items")

    For this thread, or task, alone. Raises ValueError when they can't be meant.
    """
    CallOptions.checked(options, "call_options", "({}=...)")
    return _with_options(options)


@contextmanager
def _with_options(options: Mapping[str, Any]) -> Generator[None]:
    token = _options.set({**_options.get(), **options})
    try:
        yield
    finally:
        _options.reset(token)


class PoolAdapter(requests.adapters.BaseAdapter):
    """Calls to a pool's name or `match` origin go to its endpoints; all others straight where they should.

    `options` hold for all calls, as those of `call_options` for some. `response.unsticky` says which pool and endpoint
    answered, and after how many attempts. For any thread; survives a fork. Raises ValueError for options that can't be
    meant.
    """

    def __init__(self, pools: Pools, **options: Any) -> None:
        super().__init__()
        CallOptions.checked(options, "PoolAdapter", "({}=...)")
        self._pools = pools
        self._call_options = options
        self._below = _Below()
        self._driver = _Driver(pools, self._below)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        kwargs = {"verify": verify, "cert": cert, "proxies": proxies}
        if not self._serves(request):
            return self._below.adapter.send(request, stream, timeout, **kwargs)
        call = _Call(request, kwargs)
        extensions: dict[str, Any] = {
            "timeout": _phases(timeout),
            "unsticky": {**self._call_options, **_options.get()},
            _CALL: call,
        }
        answer = self._driver.handle(_as_httpx(request, call, extensions))
        _wait_for_body(answer.stream.connection, extensions["timeout"]["read"])
        return _finished(answer, request, self)

    def _serves(self, request: requests.PreparedRequest) -> bool:
        parts = urlsplit(request.url or "")
        port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
        return self._pools.find(parts.scheme, parts.hostname or "", port) is not None

    def close(self) -> None:
        self._driver.close()


_CALL = "unsticky.requests"


class _Call:
    """A request of requests on its way: the body, and what `send` was given."""

    def __init__(self, request: requests.PreparedRequest, kwargs: dict[str, Any]) -> None:
        self.request = request
        self.kwargs = kwargs
        self._sent = False
        body: Any = request.body
        self._start = _position(body)
        self.replayable = body is None or isinstance(body, (bytes, str)) or self._start is not None

    def hop(self, hop: httpx.Request) -> requests.PreparedRequest:
        """What to send to an endpoint, with the body from its start."""
        body: Any = self.request.body
        if self._sent and self._start is not None:
            body.seek(self._start)
        self._sent = True
        found = self.request.copy()
        found.url = f"{hop.url.scheme}://{hop.url.netloc.decode()}{self.request.path_url}"
        found.headers.clear()
        for name, value in hop.headers.raw:
            found.headers[name.decode("latin-1")] = value.decode("latin-1")
        found.server_name = hop.extensions.get("sni_hostname")  # type: ignore[attr-defined]
        return found


def _position(body: Any) -> int | None:
    """Where a file's content begins, if it can be read twice."""
    try:
        position: int = body.tell()
        body.seek(position)
    except (AttributeError, OSError):
        return None
    return position


def _as_httpx(request: requests.PreparedRequest, call: _Call, extensions: dict[str, Any]) -> httpx.Request:
    """As the flow sees it: pools read its URL, method and headers."""
    url = httpx.URL(request.url or "")
    headers = [(_encoded(name), _encoded(value)) for name, value in (request.headers or {}).items()]
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.append((b"Host", url.netloc))
    return httpx.Request(request.method or "GET", url, headers=headers, stream=call, extensions=extensions)  # type: ignore[arg-type]


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1", "replace")


def _phases(timeout: Any) -> dict[str, float | None]:
    """The timeouts of requests: seconds, (connect, read), or urllib3's own."""
    if isinstance(timeout, Timeout):
        connect, read = timeout.connect_timeout, timeout.read_timeout
    else:
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return {"connect": connect, "read": read}  # type: ignore[dict-item]


def _wait_for_body(connection: Any, seconds: float | None) -> None:
    """An attempt's time ends at the headers: the body is read with the caller's timeout."""
    if connection is not None and connection.sock is not None:
        connection.sock.settimeout(seconds)


def _finished(answer: Any, request: requests.PreparedRequest, adapter: PoolAdapter) -> requests.Response:
    """The endpoint's response as one to the caller's request: of its URL, and with cookies of its host."""
    response: requests.Response = answer.response
    response.raw = answer.stream
    response.request, response.url = request, str(request.url)
    response.connection = adapter  # type: ignore[assignment]
    response.cookies = RequestsCookieJar()
    extract_cookies_to_jar(response.cookies, request, response.raw)  # type: ignore[no-untyped-call]
    response.unsticky = answer.extensions["unsticky"]  # type: ignore[attr-defined]
    return response


class _Answer:
    """A response of requests with what the driver asks a response for."""

    __slots__ = ("extensions", "headers", "is_closed", "response", "status_code", "stream")

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        self.status_code = response.status_code
        self.headers = response.headers
        self.stream: Any = response.raw
        self.is_closed = False
        self.extensions: dict[str, Any] = {"http_version": b"HTTP/1.0" if response.raw.version == 10 else b"HTTP/1.1"}

    def close(self) -> None:
        self.response.close()


class _Below:
    """The innermost hop: requests' own adapter, one connection pool per endpoint and TLS name, without its retries."""

    def __init__(self) -> None:
        self._of_parents: list[Any] = []
        self._forget()
        in_forked_children(self._forget)

    def _forget(self) -> None:
        """Connections are not shared with a parent process; its own are kept and never used."""
        self._of_parents.append(vars(self).get("adapter"))
        self.adapter = _Adapter(pool_connections=1024, pool_maxsize=256, max_retries=0)

    def handle_request(self, hop: httpx.Request) -> _Answer:
        call: _Call = hop.extensions[_CALL]
        timeouts = hop.extensions["timeout"]
        waits: Any = _finite(timeouts.get("connect")), _finite(timeouts.get("read"))
        return _Answer(self.adapter.send(call.hop(hop), True, waits, **call.kwargs))

    def close(self) -> None:
        self.adapter.close()


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or isinf(seconds) else seconds


class _Adapter(requests.adapters.HTTPAdapter):
    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """With the name that the certificate must be for, where it is not the endpoint's."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        name = getattr(request, "server_name", None)
        if name is not None and host["scheme"] == "https":
            pool = {**pool, "server_hostname": name, "assert_hostname": name}  # type: ignore[typeddict-unknown-key]
        return host, pool


class _Raw:
    """urllib3's response, as `response.raw`: it gives its lease back at its end, when closed, or when dropped."""

    def __init__(self, body: OpenBody, dropped: Callable[[OpenBody], None]) -> None:
        self._body = body
        self._dropped = dropped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body.stream, name)

    def __iter__(self) -> Iterator[bytes]:
        return self.stream()

    def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Generator[bytes]:
        with self._reading():
            yield from self._body.stream.stream(amt, decode_content=decode_content)
        self._body.end()

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        with self._reading():
            data: bytes = self._body.stream.read(*args, **kwargs)
        if self._body.stream.closed:
            self._body.end()
        return data

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except Exception:
            self._body.lease.body_failed()
            self.close()
            raise

    def close(self) -> None:
        if self._body.end():
            self._body.stream.close()

    def release_conn(self) -> None:
        self._body.stream.release_conn()
        self._body.end()

    def __del__(self) -> None:
        if not self._body.closed:
            self._body.lease.release()
            self._dropped(self._body)


class _Requests(Library):
    """What requests calls things."""

    def failure(self, error: BaseException) -> Failure:
        if isinstance(error, requests.ConnectTimeout):
            return Failure.CONNECT
        if isinstance(error, requests.Timeout):
            return Failure.TIMEOUT
        if isinstance(error, requests.ConnectionError):
            return Failure.CONNECT if _unsent(error) else Failure.BROKEN
        if isinstance(error, HTTPError):  # of a body
            return Failure.TIMEOUT if isinstance(error, ReadTimeoutError) else Failure.BROKEN
        return Failure.LOCAL

    def raised(self, error: errors.RoutingError, last: Failure | None, request: Any) -> errors.RoutingError:
        return super().raised(error, last, request.extensions[_CALL].request)

    def late(self, text: str, request: Any) -> Exception:
        return requests.ReadTimeout(text, request=request.extensions[_CALL].request)

    def replayable(self, stream: Any) -> bool:
        return bool(stream.replayable)

    def made_up(self, failure: Failure, text: str, request: Any) -> Exception:
        kind = requests.ReadTimeout if failure is Failure.TIMEOUT else requests.ConnectionError
        nobody: Any = None
        cause = NewConnectionError(nobody, text) if failure is Failure.CONNECT else text
        return kind(cause, request=request.extensions[_CALL].request)

    def answer(self, options: FallbackOptions, method: str) -> Any:
        made = super().answer(options, method)
        raw = HTTPResponse(
            BytesIO(made.content), made.headers, made.status_code, 11, reason=made.reason_phrase, preload_content=False
        )
        response = requests.Response()
        response.status_code, response.reason = made.status_code, made.reason_phrase
        response.headers.update(raw.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = raw
        return _Answer(response)


def _unsent(error: requests.ConnectionError) -> bool:
    """Whether there was no connection to send on: no answer to connecting, no such name, no good certificate."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    return isinstance(cause, (NewConnectionError, HandshakeError))


class _Undecoded:
    """The body of urllib3's response as it comes: the driver reads its beginning."""

    def __init__(self, raw: HTTPResponse) -> None:
        self._raw = raw
        self.close = raw.close

    def __iter__(self) -> Iterator[bytes]:
        yield from self._raw.stream(2**16, decode_content=False)


def _of_requests(error: BaseException | None) -> BaseException | None:
    """What requests raises for an error of urllib3's in a body."""
    if isinstance(error, ReadTimeoutError):
        return requests.ReadTimeout(error)
    if isinstance(error, ProtocolError):
        return requests.exceptions.ChunkedEncodingError(error)
    return requests.ConnectionError(error) if isinstance(error, HTTPError) else error


class _Begun:
    """A file of what is iterated over, as urllib3 reads one."""

    def __init__(self, stream: Any) -> None:
        self._parts = iter(stream)
        self._close = getattr(stream, "close", lambda: None)
        self._rest = b""
        self.closed = False

    def read(self, amount: int | None = None) -> bytes:
        wanted, found = float("inf") if amount is None else amount, bytearray(self._rest)
        while len(found) < wanted and (part := next(self._parts, None)) is not None:
            found += part
        self._rest = b"" if amount is None else bytes(found[amount:])
        return bytes(found if amount is None else found[:amount])

    def close(self) -> None:
        self.closed = True
        self._close()


class _Driver(SyncDriver):
    library = _Requests(
        httpx, _Raw, None, NoHealthyEndpoint, PoolOverflow, CallTimeout,
        AttemptsFailed, AttemptsFailedToConnect, AttemptsTimedOut, DeadlineExceeded, ClientDisconnected,
        cancels_cleanly=True,
    )  # fmt: skip

    def _read(self, exchange: Exchange, command: Read) -> Outcome:
        """As for httpx, whose bodies are iterated over; what was read is again a response of urllib3's."""
        answer: Any = command.outcome.response
        raw, seconds = answer.stream, exchange.seconds_left(command.outcome.attempt)
        allowed = exchange.request.extensions["timeout"]["read"]
        _wait_for_body(raw.connection, seconds if allowed is None or (seconds or allowed) < allowed else allowed)
        answer.stream = unread = _Undecoded(raw)
        outcome = super()._read(exchange, command)
        if answer.stream is unread:  # not worth reading
            answer.stream = raw
        elif outcome.failure is None:
            answer.stream = answer.response.raw = _again(raw, answer.stream, exchange.request.method)
            _wait_for_body(raw.connection, allowed)
        else:
            outcome = Outcome(outcome.attempt, failure=outcome.failure, error=_of_requests(outcome.error))
        return outcome


def _again(raw: HTTPResponse, stream: Any, method: str) -> HTTPResponse:
    """The same response of urllib3's, with the body from its beginning."""
    headers = HTTPHeaderDict(raw.headers)
    headers.discard("transfer-encoding")  # that is done
    body: Any = _Begun(stream)
    return HTTPResponse(
        body, headers, raw.status, raw.version, reason=raw.reason, preload_content=False,
        decode_content=raw.decode_content, original_response=raw._original_response, request_method=method,
    )  # fmt: skip
