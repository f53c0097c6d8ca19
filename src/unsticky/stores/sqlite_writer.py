"""Group commit: the writes of an event loop that found the file busy, done by one thread, many per transaction."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any
from weakref import WeakSet

from ..errors import StoreError
from .sqlite_pool import BusyError, SqlitePool, store_error

Work = Callable[..., Any]  # work(cursor, *args), inside a transaction


@dataclass(slots=True, eq=False)
class _Job:
    work: Work
    args: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[Any]

    def deliver(self, outcome: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(_settle, self.waiter, outcome)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    @property
    def wanted(self) -> bool:
        return not self.waiter.done() and not self.loop.is_closed()


class GroupWriter:
    """The thread lives only while there is work, so that it neither needs a stop nor lives through a fork."""

    def __init__(self, pool: SqlitePool, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lock = Lock()
        self._jobs: deque[_Job] = deque()
        self.active = False
        _writers.add(self)

    async def submit(self, work: Work, *args: Any) -> Any:
        """The result of `work`. StoreError after `timeout`: a write that has begun by then may still be committed."""
        loop = asyncio.get_running_loop()
        job = _Job(work, args, loop, loop.create_future())
        late = StoreError("SQLite store: another writer held the file for too long")
        alarm = loop.call_later(self._timeout, _settle, job.waiter, late)
        self._enqueue(job)
        try:
            return await job.waiter
        finally:
            alarm.cancel()

    def forget(self) -> None:
        """In the child of a fork: the thread is not here, and the loops that wait are the parent's."""
        self._lock = Lock()
        self._jobs.clear()
        self.active = False

    def _enqueue(self, job: _Job) -> None:
        with self._lock:
            self._jobs.append(job)
            if self.active:
                return
            self.active = True
        Thread(target=self._work, name="unsticky-sqlite-writer", daemon=True).start()

    def _work(self) -> None:
        while jobs := self._next():
            try:
                outcomes = self._pool.run(_commit, jobs)
            except BusyError:
                self._put_back(jobs)
            except Exception as error:
                outcomes = [error] * len(jobs)
                self._deliver(jobs, outcomes)
            else:
                self._deliver(jobs, outcomes)

    def _next(self) -> list[_Job]:
        with self._lock:
            jobs = [job for job in self._jobs if job.wanted]
            self._jobs.clear()
            self.active = bool(jobs)
            return jobs

    def _put_back(self, jobs: list[_Job]) -> None:
        with self._lock:
            self._jobs.extendleft(reversed(jobs))
        Event().wait(0.001)  # SQLite refuses some locks at once, without its busy timeout

    def _deliver(self, jobs: list[_Job], outcomes: list[Any]) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.deliver(outcome)


def _commit(cursor: sqlite3.Cursor, jobs: list[_Job]) -> list[Any]:
    cursor.execute("BEGIN IMMEDIATE")
    outcomes = [_attempt(cursor, job) for job in jobs]
    cursor.execute("COMMIT")
    return outcomes


def _attempt(cursor: sqlite3.Cursor, job: _Job) -> Any:
    """One job's result or exception; a failed one leaves no trace and harms no other."""
    cursor.execute("SAVEPOINT job")
    try:
        outcome = job.work(cursor, *job.args)
    except Exception as error:
        if not cursor.connection.in_transaction:  # the disk is full: SQLite rolled back the whole group
            raise
        cursor.execute("ROLLBACK TO job")
        outcome = store_error(error) if isinstance(error, sqlite3.Error) else error
    cursor.execute("RELEASE job")
    return outcome


def _settle(waiter: asyncio.Future[Any], outcome: Any) -> None:
    if waiter.done():
        return
    if isinstance(outcome, Exception):
        waiter.set_exception(outcome)
    else:
        waiter.set_result(outcome)


_writers: WeakSet[GroupWriter] = WeakSet()


def _forget_all() -> None:
    for writer in tuple(_writers):
        writer.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
