"""Response bodies that give their lease back: when closed, when they break off, or when they are dropped unread.

What is below a body (the library's stream, and its iterator) is kept in its transport's set until it is closed.
A garbage collector that finds a dropped response therefore never finalizes the library's own generators, which would
take the connection pool's lock, perhaps in a thread that holds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol

from ..errors import ClientDisconnected
from ..routing.call import Lease
from .endpoint import AsyncBody

Guard = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]


class OpenBody:
    """What a response body holds: the stream below, its iterator once it is read, and the lease."""

    __slots__ = ("_open", "closed", "iterator", "lease", "stream")

    def __init__(self, stream: Any, lease: Lease, open_bodies: set[OpenBody]) -> None:
        self.stream = stream
        self.lease = lease
        self.iterator: Any = None
        self.closed = False
        self._open = open_bodies
        open_bodies.add(self)

    def end(self) -> bool:
        """Give the lease back. True the first time: the stream below is then the caller's to close."""
        self.lease.release()
        if self.closed:
            return False
        self.closed = True
        self._open.discard(self)
        return True


class LeasedStream:
    """A response body. A subclass makes it a stream of its library."""

    def __init__(self, body: OpenBody, dropped: Callable[[OpenBody], None]) -> None:
        self._body = body
        self._dropped = dropped

    def __iter__(self) -> Iterator[bytes]:
        body = self._body
        body.iterator = iter(body.stream)
        try:
            for chunk in body.iterator:  # noqa: UP028 - `yield from` would close it with this generator
                yield chunk
        except Exception:
            body.lease.body_failed()
            self.close()  # a caller that lets the error go does not, and an error may hold all that is here
            raise

    def close(self) -> None:
        if self._body.end():
            self._body.stream.close()

    def __del__(self) -> None:
        if not self._body.closed:
            self._body.lease.release()
            self._dropped(self._body)


class AsyncLeasedStream:
    """The same for event loops. `reading` and `closing` await what a cancellation must not cut in two."""

    def __init__(self, body: OpenBody, dropped: Callable[[OpenBody], None], reading: Guard, closing: Guard) -> None:
        self._body = body
        self._dropped = dropped
        self.reading = reading
        self._closing = closing

    def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._body
        below = body.stream if isinstance(body.stream, AsyncBody) else None
        body.iterator = iterator = aiter(body.stream) if below is None else below.chunks()
        return _LeasedChunks(self, body.lease, iterator, below)

    async def aclose(self) -> None:
        if self._body.end():
            closing = end(self._body)
            await (closing if self._closing is directly else self._closing(closing))

    def __del__(self) -> None:
        if not self._body.closed:
            self._body.lease.release()
            self._dropped(self._body)


class _LeasedChunks:
    """Reads a body; when it breaks off its lease is told. No generator: it costs more, and would have to be closed."""

    __slots__ = ("_below", "_iterator", "_lease", "_reading", "_stream")

    def __init__(
        self, stream: AsyncLeasedStream, lease: Lease, iterator: AsyncIterator[bytes], below: AsyncBody | None
    ) -> None:
        """`below`: whose chunks they are."""
        self._stream = stream  # which is not dropped while it is read
        self._lease = lease
        self._iterator = iterator
        self._reading = stream.reading
        self._below = below

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            if self._reading is directly:
                return await anext(self._iterator)
            chunk: bytes | None = await self._reading(_read(self._iterator))
        except StopAsyncIteration:
            chunk = None
        except ClientDisconnected:  # says nothing about the endpoint
            raise
        except Exception:
            self._lease.body_failed()
            await self._stream.aclose()  # a caller that lets the error go does not
            raise
        if chunk is not None:
            return chunk
        if self._below is not None:
            self._below.whole = True
        raise StopAsyncIteration


class Opened(Protocol):
    """A stream, and its iterator once it is read."""

    stream: Any
    iterator: Any


async def end(body: Opened) -> None:
    """Close what is below: the iterator by its name, so that no garbage collector needs to."""
    if body.iterator is not None and hasattr(body.iterator, "aclose"):
        try:
            await body.iterator.aclose()
        except RuntimeError:  # it is being read, by a task that is about to end
            pass
    await body.stream.aclose()


async def directly(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The Guard of what may be cut anywhere."""
    return await coroutine


async def _read(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)
