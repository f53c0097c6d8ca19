"""Keeps pools' endpoints those that their discoveries find, in the worker's loop. What answers mean is routing's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from inspect import iscoroutinefunction
from random import Random
from threading import Lock
from typing import Any

import anyio

from .blocking import OneAtATime
from .clock import Clock
from .discoverers import open_discovery
from .errors import DiscoveryError, Problem
from .routing.discovery import DiscoveryStatus, Findings, Paced, Source
from .routing.discovery_options import DiscoveryOptions
from .routing.endpoint import endpoint_from
from .routing.options import PoolOptions
from .routing.pool import Pool
from .telemetry.attributes import qualified_name
from .telemetry.contexts import suppressed
from .telemetry.pool_events import report
from .worker import Holds, cancelled, worker

_log = logging.getLogger("unsticky.discovery")
_POLL = 0.01  # seconds: loops other than asyncio's look for the first endpoints that often


def open_sources(
    pools: Mapping[str, PoolOptions], given: Mapping[str, Source], clock: Clock
) -> tuple[dict[str, tuple[DiscoveryOptions, Source]], list[Problem]]:
    """The sources by pool, those that the program gave among them, and what is wrong."""
    found: dict[str, tuple[DiscoveryOptions, Source]] = {}
    problems = [Problem(f'discovery["{name}"]', "there is no such pool") for name in given.keys() - pools.keys()]
    for name, pool in pools.items():
        options = pool.discovery or (DiscoveryOptions(type="program") if name in given else None)
        if options is None:
            continue
        try:
            found[name] = options, _opened(options, given.get(name), clock)
        except ValueError as error:
            problems.append(Problem(f"pools.{name}.discovery", str(error)))
    return found, problems


def _opened(options: DiscoveryOptions, given: Source | None, clock: Clock) -> Source:
    if given is None:
        return open_discovery(options, clock)
    if options.type != "program":
        raise ValueError(f'the program passes one too: then it must be type = "program", not "{options.type}"')
    return given


class FirstSet:
    """The first endpoints of a pool: calls that come before them wait, for `first_wait` after the first call.

    From then on, or when they are there, no call waits any more.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.pending = True
        self._clock = clock
        self._seconds = seconds
        self._ends: float | None = None  # monotonic seconds
        self._waiting: list[Future[None]] = []
        self._lock = Lock()

    def begin(self) -> None:
        """The source is being asked."""
        if self._ends is None:
            self._ends = self._clock.monotonic() + self._seconds

    def end(self) -> None:
        """They are there, or it took too long."""
        with self._lock:
            self.pending = False
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def wait(self, deadline: float | None) -> None:
        """Block until they are there, or the call's deadline is over."""
        seconds = self._left(deadline)
        if seconds > 0 and (future := self._enter()) is not None:
            try:
                future.result(seconds)
            except TimeoutError:
                pass
        self._give_up()

    async def wait_async(self, deadline: float | None) -> None:
        """The same without blocking an event loop."""
        seconds = self._left(deadline)
        if seconds > 0 and (future := self._enter()) is not None:
            with anyio.move_on_after(seconds):
                await _done(future)
        self._give_up()

    def _left(self, deadline: float | None) -> float:
        now = self._clock.monotonic()
        ends = now if self._ends is None else self._ends
        return (ends if deadline is None else min(ends, deadline)) - now

    def _enter(self) -> Future[None] | None:
        with self._lock:
            if not self.pending:
                return None
            future: Future[None] = Future()
            self._waiting.append(future)
            return future

    def _give_up(self) -> None:
        if self.pending and self._left(None) <= 0:
            self.end()


async def _done(future: Future[None]) -> None:
    try:
        waiting = asyncio.wrap_future(future)
    except RuntimeError:  # trio
        while not future.done():  # noqa: ASYNC110 - the event is another thread's
            await anyio.sleep(_POLL)
        return
    await waiting


class Follower:
    """Keeps one pool's endpoints those that its source finds."""

    def __init__(self, pool: Pool, options: DiscoveryOptions, source: Source) -> None:
        static = [endpoint_from(one) for one in pool.options.endpoints]
        self._pool = pool
        self._options = options
        self._source = source
        self._findings = Findings(options, static)
        self._random = Random()
        self._aside = OneAtATime()
        self.first = None if static else FirstSet(pool.clock, options.first_wait)

    def status(self) -> DiscoveryStatus:
        return self._findings.status(self._pool.clock.monotonic())

    def begin(self) -> None:
        self._pool.problem = self._findings.problem
        if self.first is not None:
            self.first.begin()

    async def __call__(self) -> None:
        """Goes on until it is cancelled."""
        try:
            with suppressed():
                while True:
                    await self.look()
                    await asyncio.sleep(self._findings.pause(self._paced(), self._random))
        finally:
            self._aside.drop()

    async def look(self) -> None:
        """Ask the source once, and give the pool what it says."""
        findings, clock = self._findings, self._pool.clock
        try:
            endpoints = findings.answered(await self._asked(), clock.monotonic())
        except BaseException as error:  # a source may even call sys.exit
            if cancelled(error):
                raise
            findings.failed(self._reason(error), clock.monotonic())
            _log.debug("discovery failed", exc_info=error)
        else:
            with self._pool.lock:
                self._pool.replace(endpoints)
            if self.first is not None and self.first.pending:
                self.first.end()
        self._tell()

    def _reason(self, error: BaseException) -> str:
        """Of errors that are not ours the type alone: their texts may hold secrets."""
        if isinstance(error, DiscoveryError):
            return str(error)
        if isinstance(error, TimeoutError):
            return f"no answer within {self._options.timeout:g} s"
        return qualified_name(error)

    def _tell(self) -> None:
        findings = self._findings
        self._pool.problem = findings.problem
        for event in findings.events:
            self._pool.tell(event)
        for line in findings.lines:
            _log.warning("pool %s: %s", self._pool.name, line)
        findings.events.clear()
        findings.lines.clear()
        report(self._pool)

    def _paced(self) -> float | None:
        return self._source.due_in() if isinstance(self._source, Paced) else None

    async def _asked(self) -> object:
        """Of a thread that hangs the next look waits for the same answer."""
        discover: Callable[[], Any] = self._source.discover
        async with asyncio.timeout(self._options.timeout):
            return await (discover() if iscoroutinefunction(discover) else self._aside(discover))


class Discoveries:
    """Follows the sources of all pools, from now on until `close`."""

    def __init__(self, followers: Iterable[Follower]) -> None:
        followers = list(followers)
        for follower in followers:
            follower.begin()
        self._holds = Holds(worker.every(1.0, follower) for follower in followers)

    def close(self) -> None:
        self._holds.close()
