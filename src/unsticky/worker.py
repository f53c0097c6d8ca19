"""The one background thread of a process: an event loop of its own, for what must go on between requests.

It starts with its first task and ends with its last; nothing runs at import. A forked child has none, and starts its
own when it needs one.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from random import Random
from threading import Event, Lock, Thread, current_thread
from typing import Any, TypeVar

from .blocking import DaemonThreads
from .clock import Clock, SystemClock

T = TypeVar("T")
_log = logging.getLogger("unsticky.worker")
_BLOCKING_THREADS = 8  # for what has no async form; `asyncio.to_thread` in the worker's loop uses them
_PATIENCE = 5.0  # seconds for tasks to end, at close
_LOG_AGAIN = 60.0  # seconds from one line about a task that fails to the next


class Hold:
    """Keeps the worker's thread alive until released. A second release does nothing."""

    def __init__(self, release: Callable[[Hold], None]) -> None:
        self._release = release

    def release(self) -> None:
        self._release(self)


class Periodic(Hold):
    """A task that runs again and again. `release` stops it, and waits until it has ended."""

    def __init__(self, release: Callable[[Hold], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(release)
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._ended = Event()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """In the loop's thread."""
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(lambda _: self._ended.set())

    def stop(self) -> None:
        """From any thread; in the worker's own, without waiting."""
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        if not _in(self._loop):
            self._ended.wait(_PATIENCE)


class Holds:
    """Several that end together: with `close`, or when this object is dropped without it."""

    def __init__(self, holds: Iterable[Hold]) -> None:
        self._holds = list(holds)
        # In the worker's thread: a finalizer must not take the worker's lock.
        self._dropped = weakref.finalize(self, worker.call_soon, partial(_release, self._holds))
        self._dropped.atexit = False

    def close(self) -> None:
        self._dropped.detach()
        _release(self._holds)


class _Failures:
    """Of a task that runs again and again: the first one is logged with its traceback, more once a minute, counted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged_at: float | None = None
        self._since = 0  # the last line

    def add(self, error: BaseException) -> None:
        self._since += 1
        now = self._clock.monotonic()
        if self._logged_at is None:
            _log.error("a periodic task failed, and will run again", exc_info=error)
        elif now - self._logged_at >= _LOG_AGAIN:
            name = type(error).__name__
            _log.error("a periodic task failed again, %d times in %.0f s: %s", self._since, now - self._logged_at, name)
        else:
            return
        self._logged_at, self._since = now, 0


def _release(holds: Iterable[Hold]) -> None:
    for hold in holds:
        hold.release()


class Worker:
    """Runs coroutines in a daemon thread that exists only while something holds it. For any thread; survives fork."""

    def __init__(self, random: Random | None = None, clock: Clock | None = None) -> None:
        self._random = random or Random()
        self._clock = clock or SystemClock()
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: asyncio.Future[None] | None = None  # to end
        self._thread: Thread | None = None
        self._holds: set[Hold] = set()
        self._ending: list[Thread] = []  # told to end by one of their own tasks, so that nobody waited for them
        self._of_parents: list[object] = []
        in_forked_children(self._forget)

    def hold(self) -> Hold:
        """Start the thread if need be, and keep it until the result is released."""
        with self._lock:
            self._running_loop()
            hold = Hold(self._drop)
            self._holds.add(hold)
        return hold

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run `coroutine` in the worker. The thread lives at least until it has ended."""
        with self._lock:
            loop = self._running_loop()
            hold = Hold(self._drop)
            self._holds.add(hold)
        # In a Context of its own: work outlives the request that started it, and must not add to its span.
        future = Context().run(asyncio.run_coroutine_threadsafe, coroutine, loop)
        future.add_done_callback(lambda _: self._drop(hold))
        return future

    def every(self, interval: float, function: Callable[[], Awaitable[None]], *, jitter: float = 0.1) -> Periodic:
        """Await `function()` now, and then again `interval` seconds after it ended, give or take `jitter` of it.

        What it raises is logged, once a minute at most, and it goes on; SystemExit and the like are no exception.
        """
        with self._lock:
            loop = self._running_loop()
            periodic = Periodic(self._drop, loop)
            self._holds.add(periodic)
        loop.call_soon_threadsafe(lambda: periodic.start(self._repeat(interval, function, jitter)), context=Context())
        return periodic

    def call_soon(self, callback: Callable[[], None]) -> bool:
        """Run `callback` in the thread, if it is alive. Takes no lock: a garbage collector may call this anywhere."""
        loop = self._loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(callback, context=Context())
        except RuntimeError:  # it was closed since
            return False
        return True

    @property
    def running(self) -> bool:
        return self._thread is not None

    def close(self) -> None:
        """Cancel everything, and end the thread. The next task starts it again."""
        with self._lock:
            self._holds.clear()
            self._stop()
        self._join()

    async def _repeat(self, interval: float, function: Callable[[], Awaitable[None]], jitter: float) -> None:
        failures = _Failures(self._clock)
        while True:
            try:
                await function()
            except BaseException as error:
                if cancelled(error):
                    raise
                failures.add(error)
            await asyncio.sleep(interval * self._random.uniform(1 - jitter, 1 + jitter))

    def _drop(self, hold: Hold) -> None:
        with self._lock:
            if hold not in self._holds:
                return
            self._holds.remove(hold)
            last = not self._holds
        if isinstance(hold, Periodic):
            hold.stop()
        if last:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        with self._lock:
            if not self._holds:
                self._stop()
        self._join()

    def _join(self) -> None:
        """Wait for threads that were told to end, but not for the one that we are in."""
        for thread in self._ending:
            if thread is not current_thread():
                thread.join(_PATIENCE * 2)
        with self._lock:
            self._ending = [thread for thread in self._ending if thread.is_alive()]

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """With the lock held."""
        if self._loop is None:
            self._loop = self._start()
        return self._loop

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        self._told = loop.create_future()
        self._thread = Thread(target=_run, args=(loop, self._told), name="unsticky-worker", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        return loop

    def _stop(self) -> None:
        """Ask the thread to end. With the lock held; joining it must wait until the lock is free."""
        if self._loop is None or self._told is None or self._thread is None:
            return
        atexit.unregister(self.close)
        self._ending.append(self._thread)
        self._loop.call_soon_threadsafe(self._told.set_result, None)
        self._loop = self._told = self._thread = None

    def _forget(self) -> None:
        """In a forked child: the thread is not there. Its loop is kept, as closing it would disturb the parent's."""
        self._of_parents.append((self._loop, self._told, self._thread, self._holds))
        self._lock = Lock()
        self._loop = self._told = self._thread = None
        self._holds = set()
        self._ending = []


_after_fork: set[weakref.WeakMethod[Callable[[], None]]] = set()


def in_forked_children(method: Callable[[], None]) -> None:
    """Call the bound `method` in each forked child, as long as its object lives."""
    _after_fork.add(weakref.WeakMethod(method, _after_fork.discard))


def _forget_parents() -> None:
    for reference in _after_fork.copy():
        if method := reference():
            method()


os.register_at_fork(after_in_child=_forget_parents)
atexit.register(_after_fork.clear)  # references that outlive their modules complain


def _run(loop: asyncio.AbstractEventLoop, told: asyncio.Future[None]) -> None:
    asyncio.set_event_loop(loop)
    blocking = DaemonThreads(_BLOCKING_THREADS)
    loop.set_default_executor(blocking)
    try:
        _complete(loop, told)
        _complete(loop, loop.create_task(_wind_down()))
    finally:
        blocking.shutdown()  # the loop's own way starts a thread, which an interpreter that ends refuses
        loop.close()


def _complete(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    """Run the loop until `future` is done, whatever it is that tasks raise: SystemExit and the like leave a loop."""
    while not future.done() and not loop.is_closed():
        try:
            loop.run_until_complete(future)
        except BaseException as error:
            _log.error("a task in the background raised %s; the others go on", type(error).__name__)


def cancelled(error: BaseException) -> bool:
    """`error` ends the task that we are in because somebody cancelled it, not because of what the task called."""
    task = asyncio.current_task()
    ours = isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)
    return ours or isinstance(error, GeneratorExit)


async def _wind_down() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_PATIENCE)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _in(loop: asyncio.AbstractEventLoop) -> bool:
    return asyncio._get_running_loop() is loop


worker = Worker()
