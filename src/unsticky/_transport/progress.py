"""How far an attempt came, and the means to stop one that nobody waits for any more.

On asyncio httpx's requests must not be cancelled, so that an attempt that is late, or whose caller is gone, goes on by
itself. It may end what it began, but must not begin to send, and not read the caller's body, which the next attempt
reads from its start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import lru_cache
from types import ModuleType
from typing import Any

_ORDER = {"pool": 1, "connect": 2, "write": 3, "read": 4}
_UNLIMITED: dict[str, Any] = dict.fromkeys(("connect", "read", "write", "pool"))


class Progress(dict[str, Any]):
    """An attempt's `extensions["timeout"]`. The transport below asks it at each phase how long that may take.

    This tells the phases apart also where a timer of our own ends the attempt. Unlike the `trace` extension it tells
    of waiting for a connection, and leaves the caller's own `trace` alone.
    """

    __slots__ = ("_body", "_stop", "phase")

    def __init__(self, timeouts: dict[str, Any]) -> None:
        super().__init__(timeouts)
        self.phase = ""  # the furthest: a proxy is asked for a connection after it was written to
        self._stop: Exception | None = None
        self._body: Any = None

    def get(self, name: str, default: Any = None) -> Any:
        reached = _ORDER.get(self.phase, 0)
        asked = _ORDER.get(name, 0)
        if self._stop is not None and reached < 3 and asked > 1:
            raise self._stop  # nothing was sent: the next attempt may be under way with a POST
        if asked > reached:
            self.phase = name
        return super().get(name, default)

    def bound(self, seconds: float) -> None:
        """No phase takes longer."""
        for name in _UNLIMITED:
            own = dict.get(self, name)
            if own is None or own > seconds:
                self[name] = seconds

    def restore(self, timeouts: dict[str, Any]) -> None:
        """Phases that were bounded take what they do in `timeouts`."""
        self.update(_UNLIMITED)
        self.update(timeouts)

    def guarded(self, names: ModuleType, stream: Any) -> Any:
        """The caller's body, until `abandon`. Bytes are as they are."""
        if isinstance(stream, names.ByteStream):
            return stream
        self._body = _body_of(names)(stream)
        return self._body

    def abandon(self, error: Exception) -> None:
        """From now on, whoever begins to connect or to send, or reads the body, gets `error`."""
        self._stop = error
        if self._body is not None:
            self._body.abandon(error)


def sooner(seconds: float | None, other: float) -> float:
    return other if seconds is None or seconds > other else seconds


class _Body:
    """A request body that can be taken away from its reader, a task of asyncio."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._stop: Exception | None = None
        self._reader: asyncio.Task[Any] | None = None  # while it awaits the caller's body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        while (chunk := await self._next(chunks)) is not None:
            yield chunk

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        if self._stop is not None:
            raise self._stop
        self._reader = asyncio.current_task()
        try:
            return await anext(chunks, None)
        finally:
            self._reader = None

    def abandon(self, error: Exception) -> None:
        self._stop = error
        if self._reader is not None:
            self._reader.cancel()


@lru_cache(maxsize=8)
def _body_of(names: ModuleType) -> type[Any]:
    return type("Body", (_Body, names.AsyncByteStream), {})
