"""Pools for httpx2: `httpx2.Client(transport=PoolTransport(pools))`, or in `mounts=`."""

from __future__ import annotations

import httpx2

from . import errors
from ._transport import AsyncDriver, AsyncLeasedStream, LeasedStream, Library, SyncDriver

__all__ = ["AsyncPoolTransport", "AttemptsFailed", "CallTimeout", "NoHealthyEndpoint", "PoolTransport"]


class NoHealthyEndpoint(errors.NoHealthyEndpoint, httpx2.ConnectError):
    """Nothing was sent: the pool has no endpoint."""


class CallTimeout(errors.CallTimeout, httpx2.TimeoutException):
    """The time for the whole call passed."""


class AttemptsFailed(errors.AttemptsFailed, httpx2.TransportError):
    """Every attempt failed. It is also a ConnectError or a TimeoutException, when the last one was."""


class _Connecting(AttemptsFailed, httpx2.ConnectError):
    __qualname__ = "AttemptsFailed"


class _InTime(AttemptsFailed, httpx2.TimeoutException):
    __qualname__ = "AttemptsFailed"


class _Stream(LeasedStream, httpx2.SyncByteStream): ...


class _AsyncStream(AsyncLeasedStream, httpx2.AsyncByteStream): ...


_HTTPX2 = Library(
    httpx2, _Stream, _AsyncStream, NoHealthyEndpoint, CallTimeout, AttemptsFailed, _Connecting, _InTime,
    cancels_cleanly=True,
)  # fmt: skip


class PoolTransport(SyncDriver, httpx2.BaseTransport):
    """Calls to a pool's name or `match` origin go to its endpoints; all others straight to `transport`."""

    library = _HTTPX2

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response: httpx2.Response = self.handle(request)
        return response


class AsyncPoolTransport(AsyncDriver, httpx2.AsyncBaseTransport):
    """The same for `httpx2.AsyncClient`."""

    library = _HTTPX2

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response: httpx2.Response = await self.handle(request)
        return response
