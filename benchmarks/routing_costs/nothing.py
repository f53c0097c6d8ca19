"""The library's own transports, made to answer at once: what is left is what the layers above them cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

BODY = b'{"name": "catalog"}' + b" " * 82
HEADERS = [(b"Server", b"upstream"), (b"Content-Type", b"application/json"), (b"Content-Length", b"101")]


class _AsyncBody(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield BODY


class _Body(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield BODY


def _answer(stream: Any) -> httpx.Response:
    extensions = {"http_version": b"HTTP/1.1", "reason_phrase": b"OK"}
    return httpx.Response(200, headers=HEADERS, stream=stream, extensions=extensions)


async def _async(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
    return _answer(_AsyncBody())


def _sync(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
    return _answer(_Body())


@contextmanager
def answered_at_once() -> Generator[None]:
    """No connection is made inside."""
    kinds = httpx.AsyncHTTPTransport, httpx.HTTPTransport
    kept = httpx.AsyncHTTPTransport.handle_async_request, httpx.HTTPTransport.handle_request
    setattr(kinds[0], "handle_async_request", _async)  # noqa: B010 - as mocks do it
    setattr(kinds[1], "handle_request", _sync)  # noqa: B010
    try:
        yield
    finally:
        setattr(kinds[0], "handle_async_request", kept[0])  # noqa: B010
        setattr(kinds[1], "handle_request", kept[1])  # noqa: B010
