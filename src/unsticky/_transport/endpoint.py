"""The transport to one endpoint: a request takes one of the library's from a stock, its response gives it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, Protocol

import anyio

from .connections import Stock
from .unobserved import to_the_end


class Done(Protocol):
    def __call__(self, *, whole: bool) -> None: ...


class EndpointTransport:
    """For threads."""

    def __init__(self, names: ModuleType, stock: Stock) -> None:
        self._body = _body_of(names)
        self._stock = stock

    def handle_request(self, request: Any) -> Any:
        transport = self._stock.take()
        try:
            response = transport.handle_request(request)
        except BaseException:
            self._done(transport, whole=False)
            raise
        if response.is_closed:  # a mock's
            self._done(transport, whole=True)
        else:
            response.stream = self._body(response.stream, partial(self._done, transport))
        return response

    def _done(self, transport: Any, *, whole: bool) -> None:
        if not self._stock.give_back(transport, whole=whole):
            transport.close()


class _Body:
    """A response's body. A connection is used again only if all of it was read."""

    def __init__(self, stream: Any, done: Done) -> None:
        self._stream = stream
        self._done: Done | None = done
        self.whole = False

    def __iter__(self) -> Iterator[bytes]:
        return _Chunks(self, iter(self._stream))

    def close(self) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        try:
            self._stream.close()
        except BaseException:
            done(whole=False)
            raise
        done(whole=self.whole)


class _Chunks:
    """Is iterated over twice where the beginning is read first: the library's generator is one, and ends if dropped."""

    __slots__ = ("_body", "_chunks")

    def __init__(self, body: _Body, chunks: Iterator[bytes]) -> None:
        self._body = body
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            self._body.whole = True
            raise


class AsyncEndpointTransport:
    """For event loops."""

    def __init__(self, names: ModuleType, stock: Stock) -> None:
        self._body = _async_body_of(names)
        self._stock = stock

    async def handle_async_request(self, request: Any) -> Any:
        stock = self._stock
        transport = stock.take()
        try:
            response = await transport.handle_async_request(request)
        except BaseException:
            await _give_back(stock, transport, whole=False)
            raise
        if response.is_closed:
            await _give_back(stock, transport, whole=True)
        else:
            response.stream = self._body(response.stream, stock, transport)
        return response


async def _give_back(stock: Stock, transport: Any, *, whole: bool) -> None:
    if not stock.give_back(transport, whole=whole):
        await close_whatever_happens(transport)


class AsyncBody:
    """A response's body. Whoever reads `chunks` instead of the body itself says when that is `whole`."""

    def __init__(self, stream: Any, stock: Stock, transport: Any) -> None:
        self._stream = stream
        self._stock = stock
        self._transport = transport
        self.whole = False

    def chunks(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _AsyncChunks(self)

    async def aclose(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        try:
            await self._stream.aclose()
        except BaseException:
            await _give_back(self._stock, transport, whole=False)
            raise
        if not self._stock.give_back(transport, whole=self.whole):
            await close_whatever_happens(transport)


class _AsyncChunks:
    """No generator: it would have to be closed, and costs more."""

    __slots__ = ("_body", "_chunks")

    def __init__(self, body: AsyncBody) -> None:
        self._body = body
        self._chunks: Any = body.chunks()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk: bytes = await anext(self._chunks)
        except StopAsyncIteration:
            self._body.whole = True
            raise
        return chunk

    async def aclose(self) -> None:
        if hasattr(self._chunks, "aclose"):
            await self._chunks.aclose()


async def close_whatever_happens(transport: Any) -> None:
    """Close to the end, also when the caller is being cancelled."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio
        with anyio.CancelScope(shield=True):
            await transport.aclose()
    else:
        await to_the_end(transport.aclose())


@lru_cache(maxsize=8)
def _body_of(names: ModuleType) -> type[Any]:
    return type("Body", (_Body, names.SyncByteStream), {})


@lru_cache(maxsize=8)
def _async_body_of(names: ModuleType) -> type[Any]:
    return type("AsyncBody", (AsyncBody, names.AsyncByteStream), {})
