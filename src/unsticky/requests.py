"""Pools for requests: `requests.Session().mount("http://catalog", PoolAdapter(pools))`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import httpx
import requests
import requests.adapters
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, ProtocolError, ReadTimeoutError
from urllib3.exceptions import SSLError as HandshakeError

from . import errors
from ._transport import Library, SyncDriver
from ._transport.call_options import CallOptions
from ._transport.exchange import Exchange
from ._transport.requests_bodies import Raw, Undecoded, again
from ._transport.requests_wire import CALL, Answer, Below, Call, as_httpx, phases
from .pools import Pools
from .routing.call import Failure, Outcome, Read
from .routing.failover_options import FallbackOptions

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
        self._below = Below()
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
        call = Call(request, kwargs)
        extensions: dict[str, Any] = {
            "timeout": phases(timeout),
            "unsticky": {**self._call_options, **_options.get()},
            CALL: call,
        }
        answer = self._driver.handle(as_httpx(request, call, extensions))
        _wait_for_body(answer.stream.connection, extensions["timeout"]["read"])
        return _finished(answer, request, self)

    def _serves(self, request: requests.PreparedRequest) -> bool:
        parts = urlsplit(request.url or "")
        port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
        return self._pools.find(parts.scheme, parts.hostname or "", port) is not None

    def close(self) -> None:
        self._driver.close()


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
        return super().raised(error, last, request.extensions[CALL].request)

    def late(self, text: str, request: Any) -> Exception:
        return requests.ReadTimeout(text, request=request.extensions[CALL].request)

    def replayable(self, stream: Any) -> bool:
        return bool(stream.replayable)

    def made_up(self, failure: Failure, text: str, request: Any) -> Exception:
        kind = requests.ReadTimeout if failure is Failure.TIMEOUT else requests.ConnectionError
        nobody: Any = None
        cause = NewConnectionError(nobody, text) if failure is Failure.CONNECT else text
        return kind(cause, request=request.extensions[CALL].request)

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
        return Answer(response)


def _unsent(error: requests.ConnectionError) -> bool:
    """Whether there was no connection to send on: no answer to connecting, no such name, no good certificate."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    return isinstance(cause, (NewConnectionError, HandshakeError))


def _of_requests(error: BaseException | None) -> BaseException | None:
    """What requests raises for an error of urllib3's in a body."""
    if isinstance(error, ReadTimeoutError):
        return requests.ReadTimeout(error)
    if isinstance(error, ProtocolError):
        return requests.exceptions.ChunkedEncodingError(error)
    return requests.ConnectionError(error) if isinstance(error, HTTPError) else error


class _Driver(SyncDriver):
    library = _Requests(
        httpx, Raw, None, NoHealthyEndpoint, PoolOverflow, CallTimeout,
        AttemptsFailed, AttemptsFailedToConnect, AttemptsTimedOut, DeadlineExceeded, ClientDisconnected,
        cancels_cleanly=True,
    )  # fmt: skip

    def _read(self, exchange: Exchange, command: Read) -> Outcome:
        """As for httpx, whose bodies are iterated over; what was read is again a response of urllib3's."""
        answer: Any = command.outcome.response
        raw, seconds = answer.stream, exchange.seconds_left(command.outcome.attempt)
        allowed = exchange.request.extensions["timeout"]["read"]
        _wait_for_body(raw.connection, seconds if allowed is None or (seconds or allowed) < allowed else allowed)
        answer.stream = unread = Undecoded(raw)
        outcome = super()._read(exchange, command)
        if answer.stream is unread:  # not worth reading
            answer.stream = raw
        elif outcome.failure is None:
            answer.stream = answer.response.raw = again(raw, answer.stream, exchange.request.method)
            _wait_for_body(raw.connection, allowed)
        else:
            outcome = Outcome(outcome.attempt, failure=outcome.failure, error=_of_requests(outcome.error))
        return outcome
