"""Connections to PostgreSQL for threads: a few per process, the one used last is used next.

Not psycopg_pool: its worker threads do not survive a fork, its connections wait for a paused server without end, and
it costs as much as the statement itself. This one has no thread; a connection is made by the caller that needs it.
"""

from __future__ import annotations

import os
from threading import Lock, Semaphore
from weakref import WeakSet

from ..clock import SystemClock
from ..errors import StoreError
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
    addresses_of,
    complete,
    connecting,
    each_in_time,
    exchange,
    keeps,
    places,
    repeatable,
    settings_of,
)
from .tcp import addresses

IDLE_SECONDS = 300.0  # connections that a burst has left behind are closed after that
_inherited: list[object] = []  # of a parent process: they are its own, and must not even be closed here


class Route:
    """Which hosts there are, and which one answered last: it is asked first."""

    def __init__(self, target: PostgresTarget, timeout: float) -> None:
        self.settings = settings_of(target, timeout)
        self.prepares = not target.shared_sessions
        self._places = places(self.settings)

    def places(self) -> list[Place]:
        return list(self._places)

    def worked(self, place: Place) -> None:
        if self._places[0] is not place:
            self._places = [place, *(one for one in self._places if one is not place)]


class PostgresPool:
    """Connections, each used by one thread at a time. Deadlines are SystemClock's monotonic seconds."""

    def __init__(self, target: PostgresTarget, timeout: float) -> None:
        self._route = Route(target, timeout)
        self._size = target.pool_size
        self._patience = timeout * SERVER_PATIENCE  # who did not even say that it gave up is not there any more
        self._epoch = 0  # raised by close(): connections in use then are not kept
        self._start_empty()
        _pools.add(self)

    def ask(self, asked: Query | Script, deadline: float) -> list[Row]:
        """The rows. Raises StoreError."""
        slots, epoch = self._slots, self._epoch
        if not slots.acquire(timeout=max(0.0, deadline - SystemClock.monotonic())):
            raise LateError("PostgreSQL store: all connections were in use for too long")
        try:
            connection, began = self._take(), SystemClock.monotonic()
            if connection is None:
                return self._try(self._connect(deadline), asked, deadline, epoch)
            try:
                return self._try(connection, asked, deadline, epoch)
            except LostError:
                self._drop_idle()  # as old as this one
                if not repeatable(asked):
                    raise
            except LateError:
                if SystemClock.monotonic() - began > self._patience:
                    self._drop_idle()
                raise
            return self._try(self._connect(deadline), asked, deadline, epoch)
        finally:
            slots.release()

    def close(self) -> None:
        self._epoch += 1
        self._drop_idle()

    def _try(self, connection: Connection, asked: Query | Script, deadline: float, epoch: int) -> list[Row]:
        try:
            rows = complete(exchange(connection, asked), deadline)
        except BaseException as error:
            self._give(connection, epoch, error)
            raise
        self._give(connection, epoch)
        return rows

    def _take(self) -> Connection | None:
        """An idle connection. One that the server has closed meanwhile is not taken."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not connection.stale:
                return connection
            connection.close()

    def _give(self, connection: Connection, epoch: int, error: BaseException | None = None) -> None:
        if epoch != self._epoch or not keeps(connection, error):
            connection.close()
            return
        now = connection.since = SystemClock.monotonic()
        self._idle.append(connection)
        oldest = self._idle[:1]  # empty, if other threads have just taken all
        if oldest and oldest[0].since < now - IDLE_SECONDS:
            self._prune(now - IDLE_SECONDS)

    def _prune(self, oldest: float) -> None:
        """Close what nobody has needed since `oldest`; the list is in the order of that."""
        with self._pruning:
            old = [one for one in self._idle if one.since < oldest]
            for one in old:
                try:
                    self._idle.remove(one)
                except ValueError:  # a thread has just taken it
                    continue
                one.close()

    def _connect(self, deadline: float) -> Connection:
        attempts, failure = self._attempts(deadline)
        for (place, address), until in each_in_time(attempts, deadline, SystemClock.monotonic):
            settings = {**self._route.settings, **place.settings(address)}
            try:
                connection = complete(connecting(settings, self._route.prepares), until)
            except StoreError as error:
                failure = error
            else:
                self._route.worked(place)
                return connection
        raise failure

    def _attempts(self, deadline: float) -> tuple[list[tuple[Place, str]], StoreError]:
        attempts: list[tuple[Place, str]] = []
        failure = StoreError("PostgreSQL store: no host was found")
        for place, until in each_in_time(self._route.places(), deadline, SystemClock.monotonic):
            try:
                attempts += [(place, one) for one in (_resolve(place.host, until) if place.named else [""])]
            except StoreError as error:
                failure = error
        return attempts, failure

    def _drop_idle(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took the last one
                return

    def _start_empty(self) -> None:
        self._idle: list[Connection] = []
        self._slots = Semaphore(self._size)
        self._pruning = Lock()

    def after_fork_in_child(self) -> None:
        _inherited.append(self._idle)
        self._start_empty()


def not_resolved(host: str) -> StoreError:
    return LateError(f'PostgreSQL store: the resolver did not find "{host}" in time')


def unknown(host: str) -> StoreError:
    return StoreError(f'PostgreSQL store: the host "{host}" was not found')


def _resolve(host: str, deadline: float) -> list[str]:
    """The host's addresses."""
    try:
        return addresses_of(addresses(host, None, deadline))
    except TimeoutError:
        raise not_resolved(host) from None
    except (OSError, UnicodeError):
        raise unknown(host) from None


_pools: WeakSet[PostgresPool] = WeakSet()


def _after_fork_in_child() -> None:
    for pool in tuple(_pools):
        pool.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
