"""What httpx and httpx2 call things."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..errors import (
    AttemptsFailed,
    CallTimeout,
    ClientDisconnected,
    DeadlineExceeded,
    NoHealthyEndpoint,
    PoolOverflow,
    RoutingError,
)
from ..routing.call import Failure
from ..routing.failover_options import FallbackOptions


@dataclass(frozen=True, slots=True)
class Library:
    """One client library. The errors are its own as well as ours."""

    module: ModuleType
    stream: Any  # LeasedStream and the library's SyncByteStream
    async_stream: Any
    no_healthy_endpoint: type[NoHealthyEndpoint]
    pool_overflow: type[PoolOverflow]
    call_timeout: type[CallTimeout]
    attempts_failed: type[AttemptsFailed]
    attempts_failed_connecting: type[AttemptsFailed]
    attempts_failed_in_time: type[AttemptsFailed]
    deadline_exceeded: type[DeadlineExceeded]
    client_disconnected: type[ClientDisconnected]
    # httpcore 1.0.9 loses connections when asyncio cancels a request at the wrong moment (httpcore #1110, #1111).
    cancels_cleanly: bool

    def failure(self, error: BaseException) -> Failure:
        """What an exception of the transport below says about the attempt."""
        names = self.module
        if isinstance(error, (names.ConnectError, names.ConnectTimeout)):
            return Failure.CONNECT
        if isinstance(error, (names.PoolTimeout, names.UnsupportedProtocol, names.LocalProtocolError)):
            return Failure.LOCAL
        if isinstance(error, names.TimeoutException):
            return Failure.TIMEOUT
        return Failure.BROKEN if isinstance(error, names.TransportError) else Failure.LOCAL

    def raised(self, error: RoutingError, last: Failure | None, request: Any) -> RoutingError:
        """`error` as the library's users expect it: caught by its own classes, with `.request`."""
        kind = self._kind(error, last)
        raised = kind(str(error), pool=error.pool, attempts=error.attempts)
        raised.request = request  # type: ignore[attr-defined]
        return raised

    def _kind(self, error: RoutingError, last: Failure | None) -> type[RoutingError]:
        if isinstance(error, NoHealthyEndpoint):
            return self.no_healthy_endpoint
        if isinstance(error, PoolOverflow):
            return self.pool_overflow
        if isinstance(error, DeadlineExceeded):
            return self.deadline_exceeded
        if isinstance(error, ClientDisconnected):
            return self.client_disconnected
        if isinstance(error, CallTimeout):
            return self.call_timeout
        if last is Failure.CONNECT:
            return self.attempts_failed_connecting
        return self.attempts_failed_in_time if last is Failure.TIMEOUT else self.attempts_failed

    def late(self, text: str, request: Any) -> Exception:
        """What did not come in time."""
        found: Exception = self.module.ReadTimeout(text, request=request)
        return found

    def made_up(self, failure: Failure, text: str, request: Any) -> Exception:
        """An exception that `failure` takes for this one."""
        names = self.module
        kinds = {
            Failure.CONNECT: names.ConnectError,
            Failure.TIMEOUT: names.ReadTimeout,
            Failure.BROKEN: names.ReadError,
        }
        error: Exception = kinds[failure](text, request=request)
        return error

    def answer(self, options: FallbackOptions, method: str) -> Any:
        """The response that a fallback consists of; to HEAD without its body."""
        text, kind = (options.body or "", "text/plain; charset=utf-8")
        if options.json is not None:
            text, kind = options.json, "application/json"
        headers = {name.encode(): value.encode("latin-1") for name, value in options.headers.items()}
        if text and b"content-type" not in {name.lower() for name in headers}:
            headers[b"Content-Type"] = kind.encode()
        content = b"" if method == "HEAD" else text.encode()
        return self.module.Response(options.status, headers=headers, content=content)

    def shareable(self, stream: Any) -> bool:
        """Whether two attempts may send a request's body at the same time: a form's files have one position each."""
        return isinstance(stream, self.module.ByteStream)

    def replayable(self, stream: Any) -> bool:
        """Whether a request's body can be sent twice: bytes, and forms whose files can be rewound."""
        if isinstance(stream, self.module.ByteStream):
            return True
        fields = getattr(stream, "fields", None)  # of a multipart form, which rewinds its files itself
        return fields is not None and all(_rewinds(getattr(field, "file", None)) for field in fields)


def _rewinds(file: Any) -> bool:
    return file is None or isinstance(file, (str, bytes)) or (hasattr(file, "seekable") and bool(file.seekable()))
