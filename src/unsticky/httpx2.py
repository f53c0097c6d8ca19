"""Pools for httpx2: `httpx2.Client(transport=PoolTransport(pools))`, or in `mounts=`."""

from __future__ import annotations

import httpx2

from . import errors
from ._transport import AsyncDriver, AsyncLeasedStream, LeasedStream, Library, SyncDriver

__all__ = [
    "AsyncPoolTransport",
    "AttemptsFailed",
    "AttemptsFailedToConnect",
    "AttemptsTimedOut",
    "CallTimeout",
    "ClientDisconnected",
    "DeadlineExceeded",
    "NoHealthyEndpoint",
    "PoolOverflow",
    "PoolTransport",
]


class NoHealthyEndpoint(errors.NoHealthyEndpoint, httpx2.ConnectError):
    """Nothing was sent: the pool has no endpoint."""


class PoolOverflow(errors.PoolOverflow, httpx2.PoolTimeout):
    """Nothing was sent: the limits of the pool are reached."""


class CallTimeout(errors.CallTimeout, httpx2.TimeoutException):
    """The time for the whole call passed."""


class DeadlineExceeded(CallTimeout, errors.DeadlineExceeded):
    """It was the deadline of the request that is being served."""


class ClientDisconnected(errors.ClientDisconnected, httpx2.TransportError):
    """Who sent the request that is being served went away."""


class AttemptsFailed(errors.AttemptsFailed, httpx2.TransportError):
    """Every attempt failed. One of the two below, where the last attempt was a matter of connecting or of time."""


class AttemptsFailedToConnect(AttemptsFailed, httpx2.ConnectError):
    """Every attempt failed, the last one before there was a connection."""


class AttemptsTimedOut(AttemptsFailed, httpx2.TimeoutException):
    """Every attempt failed, the last one because its time passed."""


class _Stream(LeasedStream, httpx2.SyncByteStream): ...


class _AsyncStream(AsyncLeasedStream, httpx2.AsyncByteStream): ...


_HTTPX2 = Library(
    httpx2, _Stream, _AsyncStream, NoHealthyEndpoint, PoolOverflow, CallTimeout,
    AttemptsFailed, AttemptsFailedToConnect, AttemptsTimedOut, DeadlineExceeded, ClientDisconnected,
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
