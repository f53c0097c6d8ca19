"""Awaiting, under asyncio, what must not be cancelled in the middle."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")
GRACE = 5.0  # seconds that an abandoned coroutine may take when nothing else limits it: httpx's own default timeout

_abandoned: set[asyncio.Task[Any]] = set()  # event loops keep weak references only


async def to_the_end(
    coroutine: Coroutine[Any, Any, T],
    *,
    seconds: float | None = None,
    patience: float = GRACE,
    unwanted: Callable[[T], Awaitable[None]] | None = None,
) -> T | None:
    """The coroutine's result, or None when `seconds` passed first.

    When they pass, or the caller is cancelled, the coroutine goes on by itself for `patience` seconds, and is cancelled
    then: once, and by nobody else. A result that comes in spite of all is given to `unwanted`.
    """
    task = _started(coroutine)
    if task.done():
        return task.result()
    try:
        await asyncio.wait((task,), timeout=seconds)
    except asyncio.CancelledError:
        _abandon(_finish(task, patience, unwanted))
        raise
    if task.done():
        return task.result()
    _abandon(_finish(task, patience, unwanted))
    return None


def give_up(task: asyncio.Task[T], unwanted: Callable[[T], Awaitable[None]]) -> None:
    """Cancel a task that nobody awaits any more, once, and see it to its end. Its result, if any, is `unwanted`."""
    task.cancel()
    _abandon(_finish(task, None, unwanted))


async def in_time(coroutine: Coroutine[Any, Any, T], seconds: float | None) -> T | None:
    """The coroutine's result, or None: it is cancelled when `seconds` passed first."""
    if seconds is None:
        return await coroutine
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # trio
        with anyio.move_on_after(seconds):
            return await coroutine
        return None
    timer = _Timer(loop, seconds)
    try:
        result = await coroutine
    except BaseException as error:
        if timer.end() and isinstance(error, asyncio.CancelledError):
            return None
        raise
    timer.end()
    return result


class _Timer:
    """What asyncio.timeout does, in a third of its time: no call goes without."""

    __slots__ = ("_expired", "_handle", "_requests", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._requests = task.cancelling()
        self._expired = False
        self._handle = loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def end(self) -> bool:
        """Whether it cancelled the task, and nobody else did."""
        self._handle.cancel()
        return self._expired and self._task.uncancel() <= self._requests


def _started(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    if sys.version_info >= (3, 12):  # what need not wait, such as most closing, is done at once
        return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.ensure_future(coroutine)


def _abandon(finish: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(finish)
    _abandoned.add(task)
    task.add_done_callback(_abandoned.discard)


async def _finish(
    task: asyncio.Task[T], patience: float | None, unwanted: Callable[[T], Awaitable[None]] | None
) -> None:
    try:
        await asyncio.wait((task,), timeout=patience)
    finally:
        task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and task.exception() is None and unwanted is not None:
        await unwanted(task.result())
