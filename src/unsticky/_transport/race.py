"""Several attempts in flight: who answers first, and how the others end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from ..routing.call import Outcome
from .unobserved import give_up

Sending = Callable[[], Coroutine[Any, Any, Outcome]]
Discard = Callable[[Outcome], Awaitable[None]]


class Race(Protocol):
    """The attempts of one call."""

    def start(self, send: Sending) -> None:
        """One more."""

    async def outcome(self, seconds: float) -> Outcome | None:
        """The next one of any attempt, or None when `seconds` passed first."""

    def give_up(self) -> None:
        """Cancel those that are still running; what comes of them in spite of it is discarded."""


@asynccontextmanager
async def race_of_tasks(discard: Discard) -> AsyncGenerator[Race]:
    """Under asyncio attempts are tasks: the caller need not wait for the losers, nor can it cut their ending short."""
    race = _Tasks(discard)
    try:
        yield race
    finally:
        race.give_up()


class _Tasks:
    def __init__(self, discard: Discard) -> None:
        self._discard = discard
        self._running: set[asyncio.Task[Outcome]] = set()

    def start(self, send: Sending) -> None:
        self._running.add(asyncio.get_running_loop().create_task(send()))

    async def outcome(self, seconds: float) -> Outcome | None:
        if not self._running:
            await asyncio.sleep(seconds)
            return None
        timeout = None if seconds == inf else seconds
        done, _ = await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        first = done.pop()  # others that are done stay, for the next time
        self._running.discard(first)
        return first.result()

    def give_up(self) -> None:
        for task in self._running:
            give_up(task, self._discard)
        self._running.clear()


@asynccontextmanager
async def race_in_nursery(discard: Discard) -> AsyncGenerator[Race]:
    """Under trio no task outlives its nursery: losers are cancelled, which takes but a moment, before the call ends."""
    failed: Exception | None = None
    async with anyio.create_task_group() as group:
        race = _Nursery(group, discard)
        try:
            yield race
        except Exception as error:  # not to be wrapped in a group
            failed = error
        finally:
            await race.end()
    if failed is not None:
        raise failed


class _Nursery:
    def __init__(self, group: TaskGroup, discard: Discard) -> None:
        self._group = group
        self._discard = discard
        self._running: set[anyio.CancelScope] = set()
        self._ended: deque[Outcome | Exception] = deque()
        self._news = anyio.Event()

    def start(self, send: Sending) -> None:
        scope = anyio.CancelScope()
        self._running.add(scope)
        self._group.start_soon(self._run, send, scope)

    async def _run(self, send: Sending, scope: anyio.CancelScope) -> None:
        ended: Outcome | Exception | None = None
        with scope:
            try:
                ended = await send()
            except Exception as error:
                ended = error
        if scope in self._running and ended is not None:
            self._running.discard(scope)
            self._ended.append(ended)
            self._news.set()
        elif isinstance(ended, Outcome):
            await self._close(ended)

    async def outcome(self, seconds: float) -> Outcome | None:
        with anyio.move_on_after(None if seconds == inf else seconds):
            while not self._ended:
                self._news = anyio.Event()
                await self._news.wait()
        if not self._ended:
            return None
        ended = self._ended.popleft()
        if isinstance(ended, Exception):
            raise ended
        return ended

    def give_up(self) -> None:
        for scope in self._running:
            scope.cancel()
        self._running.clear()

    async def end(self) -> None:
        self.give_up()
        while self._ended:
            ended = self._ended.popleft()
            if isinstance(ended, Outcome):
                await self._close(ended)

    async def _close(self, outcome: Outcome) -> None:
        with anyio.CancelScope(shield=True):
            await self._discard(outcome)
