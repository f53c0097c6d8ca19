"""Connections to PostgreSQL for event loops: a few per loop.

A conversation is driven by callbacks of the loop, not by the task that asked. So a caller that is cancelled changes
nothing for the connection: the conversation goes on to its end, or to its deadline, and the connection is given back.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from ..errors import StoreError
from .postgres_pool import IDLE_SECONDS, Route, not_resolved, unknown
from .postgres_url import PostgresTarget
from .postgres_wire import (
    SERVER_PATIENCE,
    Connection,
    LateError,
    LostError,
    Place,
    Query,
    Row,
    Script,
    Talk,
    addresses_of,
    connecting,
    each_in_time,
    exchange,
    keeps,
    repeatable,
)

T = TypeVar("T")
_inherited: list[object] = []  # of a parent process


class _Drive(Generic[T]):
    """A conversation that runs by itself. `ended(result, error, wanted)` is called once, before the future is done."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        talk: Talk[T],
        deadline: float,
        ended: Callable[[T | None, Exception | None, bool], None],
    ) -> None:
        self._loop, self._talk, self._ended = loop, talk, ended
        self._watched, self._events = -1, 0
        self.future: asyncio.Future[T] = loop.create_future()
        self._alarm = loop.call_at(deadline, self._late)

    def step(self) -> None:
        self._unwatch()
        try:
            self._watch(*next(self._talk))
        except StopIteration as stop:
            self._end(stop.value, None)
        except Exception as error:
            self._end(None, error)

    def abandon(self) -> None:
        """Stop here. In a loop that is closed nothing is watched any more."""
        if self._loop.is_closed():
            self._watched = -1
        self._late()

    def _late(self) -> None:
        self._unwatch()
        self._talk.close()
        self._end(None, LateError())

    def _end(self, result: Any, error: Exception | None) -> None:
        self._alarm.cancel()
        wanted = not self.future.done()  # else its caller was cancelled
        self._ended(result, error, wanted)
        if not wanted or self._loop.is_closed():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)

    def _watch(self, fd: int, events: int) -> None:
        self._watched, self._events = fd, events
        if events & select.POLLIN:
            self._loop.add_reader(fd, self.step)
        if events & select.POLLOUT:
            self._loop.add_writer(fd, self.step)

    def _unwatch(self) -> None:
        """Always before libpq goes on: it may close the socket."""
        if self._watched < 0:
            return
        if self._events & select.POLLIN:
            self._loop.remove_reader(self._watched)
        if self._events & select.POLLOUT:
            self._loop.remove_writer(self._watched)
        self._watched = -1


class _LoopPool:
    """One loop's connections. Only that loop's thread comes here."""

    def __init__(self, route: Route, size: int, patience: float, loop: asyncio.AbstractEventLoop) -> None:
        self._route, self._loop, self._patience = route, loop, patience
        self._idle: list[Connection] = []
        self._free = size  # connections that may still be made
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._drives: set[_Drive[Any]] = set()
        self._epoch = 0  # raised by close(): connections in use then are not kept

    async def ask(self, asked: Query | Script, deadline: float) -> list[Row]:
        connection, began = await self._take(deadline), self._loop.time()
        if connection is None:
            return await self._drive(await self._connect(deadline), asked, deadline)
        try:
            return await self._drive(connection, asked, deadline)
        except LostError:
            self._drop_idle()  # as old as this one
            if not repeatable(asked):
                raise
        except LateError:
            if self._loop.time() - began > self._patience:
                self._drop_idle()
            raise
        fresh = await self._take(deadline) or await self._connect(deadline)
        return await self._drive(fresh, asked, deadline)

    def close(self) -> None:
        self._epoch += 1
        self._drop_idle()
        for drive in tuple(self._drives):
            if drive.future.done() or self._loop.is_closed():  # nobody waits for it
                drive.abandon()

    def _drive(self, connection: Connection, asked: Query | Script, deadline: float) -> asyncio.Future[list[Row]]:
        epoch = self._epoch

        def ended(_: list[Row] | None, error: Exception | None, wanted: bool) -> None:
            self._give(connection, keep=epoch == self._epoch and keeps(connection, error))

        return self._start(exchange(connection, asked), deadline, ended).future

    def _start(
        self, talk: Talk[T], deadline: float, ended: Callable[[T | None, Exception | None, bool], None]
    ) -> _Drive[T]:
        def left(result: T | None, error: Exception | None, wanted: bool) -> None:
            self._drives.discard(drive)
            ended(result, error, wanted)

        drive = _Drive(self._loop, talk, deadline, left)
        self._drives.add(drive)
        drive.step()
        return drive

    async def _take(self, deadline: float) -> Connection | None:
        """An idle connection, or None: one may be made, and has its place."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale:
                return connection
            connection.close()
            self._free += 1
        if self._free:
            self._free -= 1
            return None
        return await self._queue(deadline)

    async def _queue(self, deadline: float) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        alarm = self._loop.call_at(deadline, self._too_late, waiter)
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:  # it was just served
                self._pass_on(waiter.result())
            raise
        finally:
            alarm.cancel()

    @staticmethod
    def _too_late(waiter: asyncio.Future[Connection | None]) -> None:
        if not waiter.done():
            waiter.set_exception(LateError("PostgreSQL store: all connections were in use for too long"))

    def _give(self, connection: Connection, keep: bool = True) -> None:
        if not keep:
            connection.close()
            self._pass_on(None)
        else:
            connection.since = self._loop.time()
            self._pass_on(connection)

    def _pass_on(self, connection: Connection | None) -> None:
        """To the one that waits longest: a connection, or the place for one."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if connection is None:
            self._free += 1
            return
        self._idle.append(connection)
        while self._idle[0].since < connection.since - IDLE_SECONDS:
            self._idle.pop(0).close()
            self._free += 1

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
            self._pass_on(None)

    async def _connect(self, deadline: float) -> Connection:
        """A connection in the place that `_take` gave."""
        ours = True  # the place, as long as no connection has it
        try:
            attempts, failure = await self._attempts(deadline)
            for (place, address), until in each_in_time(attempts, deadline, self._loop.time):
                talk = connecting({**self._route.settings, **place.settings(address)}, self._route.prepares)
                drive = self._start(talk, until, self._connected)
                try:
                    connection = await drive.future
                except StoreError as error:
                    failure = error
                except asyncio.CancelledError:
                    ours = self._after_cancel(drive.future)
                    raise
                else:
                    ours = False
                    self._route.worked(place)
                    return connection
            raise failure
        finally:
            if ours:
                self._pass_on(None)

    def _after_cancel(self, connected: asyncio.Future[Connection]) -> bool:
        """Whether the place is left to its holder."""
        if connected.cancelled():  # connecting goes on, and `_connected` will have it
            return False
        if connected.exception() is not None:
            return True
        self._give(connected.result())
        return False

    def _connected(self, connection: Connection | None, _: Exception | None, wanted: bool) -> None:
        if wanted:
            return
        if connection is None:
            self._pass_on(None)
        else:
            self._give(connection)

    async def _attempts(self, deadline: float) -> tuple[list[tuple[Place, str]], StoreError]:
        attempts: list[tuple[Place, str]] = []
        failure = StoreError("PostgreSQL store: no host was found")
        for place, until in each_in_time(self._route.places(), deadline, self._loop.time):
            try:
                attempts += [(place, one) for one in (await self._resolve(place.host, until) if place.named else [""])]
            except StoreError as error:
                failure = error
        return attempts, failure

    async def _resolve(self, host: str, deadline: float) -> list[str]:
        try:
            async with asyncio.timeout_at(deadline):
                return addresses_of(await self._loop.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except TimeoutError:
            raise not_resolved(host) from None
        except (OSError, UnicodeError):
            raise unknown(host) from None


class AsyncPostgresPool:
    """A pool for each event loop that asks. Deadlines are the running loop's own time."""

    def __init__(self, target: PostgresTarget, timeout: float) -> None:
        self._route = Route(target, timeout)
        self._size = target.pool_size
        self._patience = timeout * SERVER_PATIENCE
        self._loops: dict[asyncio.AbstractEventLoop, _LoopPool] = {}
        _pools.add(self)

    async def ask(self, asked: Query | Script, deadline: float) -> list[Row]:
        """The rows. Raises StoreError."""
        return await self._here().ask(asked, deadline)

    def close(self) -> None:
        """Close the connections of all loops; another loop that runs closes its own."""
        here = asyncio.get_running_loop()
        for loop, pool in tuple(self._loops.items()):
            if loop is here or loop.is_closed():
                pool.close()
                continue
            try:
                loop.call_soon_threadsafe(pool.close)
            except RuntimeError:  # it was closed just now
                pool.close()

    def _here(self) -> _LoopPool:
        loop = asyncio.get_running_loop()
        return self._loops.get(loop) or self._open(loop)

    def _open(self, loop: asyncio.AbstractEventLoop) -> _LoopPool:
        for other in tuple(self._loops):
            if other.is_closed() and (gone := self._loops.pop(other, None)) is not None:
                gone.close()
        pool = self._loops[loop] = _LoopPool(self._route, self._size, self._patience, loop)
        return pool

    def after_fork_in_child(self) -> None:
        _inherited.append(self._loops)
        self._loops = {}


_pools: WeakSet[AsyncPostgresPool] = WeakSet()


def _after_fork_in_child() -> None:
    for pool in tuple(_pools):
        pool.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
