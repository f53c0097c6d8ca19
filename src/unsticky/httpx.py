"""Pools for httpx: `httpx.Client(transport=PoolTransport(pools))`, or in `mounts=`."""

from __future__ import annotations

import httpx

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


class NoHealthyEndpoint(errors.NoHealthyEndpoint, httpx.ConnectError):
    """Nothing was sent: the pool has no endpoint."""


class PoolOverflow(errors.PoolOverflow, httpx.PoolTimeout):
    """Nothing was sent: the limits of the pool are reached."""


class CallTimeout(errors.CallTimeout, httpx.TimeoutException):
    """The time for the whole call passed."""


class DeadlineExceeded(CallTimeout, errors.DeadlineExceeded):
    """It was the deadline of the request that is being served."""


class ClientDisconnected(errors.ClientDisconnected, httpx.TransportError):
    """Who sent the request that is being served went away."""


class AttemptsFailed(errors.AttemptsFailed, httpx.TransportError):
    """Every attempt failed. One of the two below, where the last attempt was a matter of connecting or of time."""


class AttemptsFailedToConnect(AttemptsFailed, httpx.ConnectError):
    """Every attempt failed, the last one before there was a connection."""


class AttemptsTimedOut(AttemptsFailed, httpx.TimeoutException):
    """Every attempt failed, the last one because its time passed."""


class _Stream(LeasedStream, httpx.SyncByteStream): ...


class _AsyncStream(AsyncLeasedStream, httpx.AsyncByteStream): ...


_HTTPX = Library(
    httpx, _Stream, _AsyncStream, NoHealthyEndpoint, PoolOverflow, CallTimeout,
    AttemptsFailed, AttemptsFailedToConnect, AttemptsTimedOut, DeadlineExceeded, ClientDisconnected,
    cancels_cleanly=False,
)  # fmt: skip


class PoolTransport(SyncDriver, httpx.BaseTransport):
    """Calls to a pool's name or `match` origin go to its endpoints; all others straight to `transport`."""

    library = _HTTPX

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = self.handle(request)
        return response


class AsyncPoolTransport(AsyncDriver, httpx.AsyncBaseTransport):
    """The same for `httpx.AsyncClient`."""

    library = _HTTPX

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response: httpx.Response = await self.handle(request)
        return response
