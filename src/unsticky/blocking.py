"""What blocks, in daemon threads that may be left behind: one that hangs keeps neither a `close` nor the process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Condition, Thread, current_thread
from typing import Any, Generic, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
_PATIENCE = 1.0  # seconds for calls under way to end, at shutdown


class OneAtATime:
    """Calls functions for one source, each in a daemon thread, and none before the last one has ended.

    A caller that gives up leaves the thread alone. Who asks for the same function while it runs gets that answer: a
    slow source would never give one otherwise. For any event loop of asyncio, one after the other too.
    """

    def __init__(self) -> None:
        self._call: _Call[Any] | None = None

    async def __call__(self, function: Callable[[], T]) -> T:
        """What `function` returns, or raises."""
        while (call := self._call) is not None and call.function != function and call.running:
            await call.ended()
        if call is None or call.function != function or call.lost:
            self._call = call = _Call(function)
        await call.ended()
        if self._call is call:
            self._call = None
        found: T = call.outcome()
        return found

    def drop(self) -> None:
        """The answer that is under way is of no use any more, but its thread still counts."""
        if self._call is not None:
            self._call.function = None


class _Call(Generic[T]):
    """A function in a daemon thread of its own."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.function: Callable[[], T] | None = function
        self.outcome: Callable[[], T] = _no_outcome
        self._over = False
        self._waiting: set[Callable[[], None]] = set()
        context = copy_context()
        self._thread = Thread(target=context.run, args=(self._run, function), name="unsticky-blocking", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return not self._over and self._thread.is_alive()

    @property
    def lost(self) -> bool:
        """In a forked child: the thread is not there, and its answer will not come."""
        return not self._over and not self._thread.is_alive()

    async def ended(self) -> None:
        event = asyncio.Event()
        wake = partial(_wake, asyncio.get_running_loop(), event)
        self._waiting.add(wake)
        try:
            if not self._over:  # looked at after `add`, and set before `_waiting` is read: no lock is needed
                await event.wait()
        finally:
            self._waiting.discard(wake)

    def _run(self, function: Callable[[], T]) -> None:
        try:
            answer = function()
        except BaseException as error:  # SystemExit too: it is the source that failed
            self.outcome = partial(_raise, error)
        else:
            self.outcome = lambda: answer
        self._over = True
        for wake in tuple(self._waiting):
            wake()


def _no_outcome() -> Any:
    raise RuntimeError("there is no answer yet")


def _raise(error: BaseException) -> Any:
    raise error


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:  # it was closed since: nobody waits there
        return


class DaemonThreads(ThreadPoolExecutor):
    """At most `most` threads, which are there only while there is work, and are left behind when they hang.

    A ThreadPoolExecutor by name alone, as loops accept no other: the interpreter's end waits for the threads of those.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._changed = Condition()
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._busy: set[Thread] = set()
        self._most = most
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the worker has ended")
            self._work.append((future, partial(fn, *args, **kwargs)))
            if len(self._busy) < self._most:
                thread = Thread(target=self._drain, name="unsticky-blocking", daemon=True)
                self._busy.add(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Waits for what is under way, but not long; what has not begun is cancelled."""
        with self._changed:
            self._closed = True
            work, self._work = self._work, deque()
        for future, _ in work:
            future.cancel()
        if wait:
            with self._changed:
                self._changed.wait_for(lambda: not self._busy, _PATIENCE)

    def _drain(self) -> None:
        while (one := self._next()) is not None:
            _settle(*one)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            if self._work:
                return self._work.popleft()
            self._busy.discard(current_thread())
            self._changed.notify_all()
            return None


def _settle(future: Future[T], function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        answer = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(answer)
