"""`Sessions`: what a program holds to open and commit sessions, from threads and from event loops."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import cached_property
from time import perf_counter
from typing import Any, TypeVar

from .clock import Clock, SystemClock
from .errors import SessionUnavailable, StoreError
from .session.binding import Binding, Loader, Presented
from .session.commit import Commit, Committed, Cookie, Create, Delete, Update, commit
from .session.options import SessionOptions
from .session.policy import Lifetime
from .session.session import Session
from .session.store import AsyncStore, ImmediateLoad, Purgeable, Record
from .session.token import Token, TokenSigner
from .stores import open_async_store, open_store
from .telemetry import otel
from .worker import worker

log = logging.getLogger("unsticky.session")

S = TypeVar("S", bound=Session)

UNAVAILABLE_BODY = b"The service is not available for the moment. Please try again.\n"  # of every 503
PURGE_INTERVAL = 600.0  # seconds
PURGE_BATCH = 500  # records; the store is locked for one batch

_UNUSED = Committed(Cookie.KEEP)
_LATE = "A change that was made to a session after the response's headers were sent is lost."


class Sessions:
    """The sessions of one app. One object serves all threads and event loops of a process, and survives a fork."""

    def __init__(
        self,
        options: SessionOptions | None = None,
        *,
        framework_idle: float | None = None,
        clock: Clock | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`framework_idle`: the framework's own session lifetime in seconds, for when the options name none.

        Nothing is connected yet. Raises SettingsError when the store's URL can't be used here.
        """
        self.options = options or SessionOptions()
        self.clock = clock or SystemClock()
        self.lifetime = Lifetime.of(self.options, framework_idle)
        self.signer = TokenSigner(self.options.secret_keys)
        self._random_bytes = random_bytes
        self._purged = self.clock.monotonic()
        self.store = open_store(self.options.store, clock=self.clock, timeout=self.options.store_timeout)

    @cached_property
    def async_store(self) -> AsyncStore:
        """The store for event loops."""
        return open_async_store(self.options.store, clock=self.clock, timeout=self.options.store_timeout)

    def bind(self, presented: Presented, make: type[S], *, lifetime: Lifetime | None = None) -> S:
        """The session of a request in a thread. It reads the token and asks the store at its first use."""
        return make.bound(self._binding(presented, self._load, lifetime))

    async def bind_async(self, presented: Presented, make: type[S]) -> S:
        """The session of a request on an event loop.

        `request.session` can't wait, so a store across the network is asked now, if there is a token at all; one
        that answers at once (SQLite) is asked at first use.
        """
        if self._load_now is not None:
            return make.bound(self._binding(presented, self._load_now))
        token = presented()
        load = _nothing if token is None else await _fetched(self.async_store, token.key)
        return make.bound(self._binding(lambda: token, load))

    @cached_property
    def _load(self) -> Loader:
        return _observed(lambda key: self.store.load(key))

    @cached_property
    def _load_now(self) -> Loader | None:
        store = self.async_store
        return _observed(store.load_now) if isinstance(store, ImmediateLoad) else None

    def _binding(self, presented: Presented, load: Loader, lifetime: Lifetime | None = None) -> Binding:
        return Binding(
            presented=presented,
            loader=load,
            lifetime=lifetime or self.lifetime,
            now=self.clock.time,
            random_bytes=self._random_bytes,
        )

    def commit(self, session: Session) -> Committed:
        """Write what the request changed. Raises SessionUnavailable when the store is away: nothing is promised then.

        Raises SessionValueError for a value that no session can hold.
        """
        if not session.accessed:
            return _UNUSED
        started = perf_counter()
        steps = commit(session)
        step = _next(steps, None)
        try:
            while not isinstance(step, Committed):
                step = _next(steps, self._apply(step))
        except StoreError as error:
            step = _failed(step, error)
        return self._reported(step, started)

    async def commit_async(self, session: Session) -> Committed:
        """As `commit`, on an event loop."""
        if not session.accessed:
            return _UNUSED
        started = perf_counter()
        steps = commit(session)
        step = _next(steps, None)
        try:
            while not isinstance(step, Committed):
                step = _next(steps, await self._apply_async(step))
        except StoreError as error:
            step = _failed(step, error)
        return self._reported(step, started)

    def commit_late(self, session: Session) -> None:
        """Write what was changed after the headers were sent. An outage is logged: nobody can be told any more."""
        try:
            self.commit(session)
        except SessionUnavailable:
            log.error(_LATE)

    async def commit_late_async(self, session: Session) -> None:
        """As `commit_late`, on an event loop."""
        try:
            await self.commit_async(session)
        except SessionUnavailable:
            log.error(_LATE)

    def _reported(self, committed: Committed, started: float) -> Committed:
        otel.session_committed(perf_counter() - started, "lost" if committed.lost else "committed")
        if committed.lost:
            log.info("A session ended elsewhere while a request was writing to it; that write was dropped.")
        if isinstance(committed.cookie, Token):
            self._purge_now_and_then()
        return committed

    def _purge_now_and_then(self) -> None:
        """A store that does not forget by itself is cleared in the background, while new sessions come in."""
        now = self.clock.monotonic()
        if now - self._purged >= PURGE_INTERVAL and isinstance(self.store, Purgeable):
            self._purged = now
            worker.submit(_purge(self.store))

    def _apply(self, operation: Create | Update | Delete) -> Any:
        match operation:
            case Create():
                return self.store.create(operation.key, operation.record)
            case Update():
                return self.store.update(operation.key, operation.change)
            case Delete():
                return self.store.delete(operation.key)

    async def _apply_async(self, operation: Create | Update | Delete) -> Any:
        match operation:
            case Create():
                return await self.async_store.create(operation.key, operation.record)
            case Update():
                return await self.async_store.update(operation.key, operation.change)
            case Delete():
                return await self.async_store.delete(operation.key)

    def close(self) -> None:
        """Give the store's connections back. A later use opens them again."""
        self.store.close()

    async def aclose(self) -> None:
        """As `close`, for the connections of event loops too."""
        self.store.close()
        if "async_store" in self.__dict__:
            await self.async_store.aclose()


async def _purge(store: Purgeable) -> None:
    try:
        while await asyncio.to_thread(store.purge, PURGE_BATCH) == PURGE_BATCH:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # requests come first
    except StoreError as error:
        log.warning("Ended sessions could not be cleared: %s", error)


def _next(steps: Commit, result: Any) -> Create | Update | Delete | Committed:
    try:
        return steps.send(result)
    except StopIteration as stop:
        committed: Committed = stop.value
        return committed


def _failed(step: Create | Update | Delete | Committed, error: StoreError) -> Committed:
    """A request that only read has its answer: that its use can't be written down is no reason to refuse it."""
    if isinstance(step, Update) and step.only_touches:
        log.warning("The use of a session could not be written down: %s", error)
        return _UNUSED
    raise _unavailable("commit", error) from error


def _nothing(key: str) -> Record | None:
    return None


def _observed(load: Loader) -> Loader:
    def observed(key: str) -> Record | None:
        started = perf_counter()
        try:
            record = load(key)
        except StoreError as error:
            _unavailable("load", error)
            raise
        otel.session_loaded(perf_counter() - started, found=record is not None)
        return record

    return observed


async def _fetched(store: AsyncStore, key: str) -> Loader:
    """Ask now; the answer, or the failure, is there for whoever uses the session."""
    started = perf_counter()
    try:
        record = await store.load(key)
    except StoreError as error:
        _unavailable("load", error)
        return _failing(error)
    otel.session_loaded(perf_counter() - started, found=record is not None)
    return lambda key: record


def _failing(error: StoreError) -> Loader:
    def fail(key: str) -> Record | None:
        raise error

    return fail


def _unavailable(what: str, error: StoreError) -> SessionUnavailable:
    log.error("The session store is not available (%s): %s", what, error)
    return SessionUnavailable()
