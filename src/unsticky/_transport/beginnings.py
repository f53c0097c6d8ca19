"""Response bodies whose beginning is read before they are handed out: one that breaks off can be tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from .streams import end


def worth_reading(response: Any, limit: int) -> bool:
    """Not what says that it is longer than `limit`, nor streams of events, whose reader waits for the first of them."""
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > limit:
        return False
    return not response.headers.get("content-type", "").lower().startswith("text/event-stream")


class Beginning:
    """A body of threads, and what was read of it so far."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.iterator: Iterator[bytes] = iter(stream)
        self.chunks: list[bytes] = []

    def read(self, limit: int) -> Iterator[bool]:
        """After each chunk, whether there may be more that belongs into `limit` bytes; nothing when that is all."""
        size = 0
        for chunk in self.iterator:
            self.chunks.append(chunk)
            size += len(chunk)
            yield size <= limit

    def __iter__(self) -> Iterator[bytes]:
        """All of it: what was read, and what was not."""
        yield from self.chunks
        self.chunks.clear()
        yield from self.iterator

    def close(self) -> None:
        self.stream.close()


class AsyncBeginning:
    """A body of an event loop, and what was read of it so far."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.iterator: AsyncIterator[bytes] = aiter(stream)
        self.chunks: list[bytes] = []

    async def read(self, limit: int) -> bool:
        """True: that is all of it. False: there is more than `limit` bytes."""
        size = 0
        async for chunk in self.iterator:
            self.chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                return False
        return True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        self.chunks.clear()
        async for chunk in self.iterator:
            yield chunk

    async def aclose(self) -> None:
        await end(self)
