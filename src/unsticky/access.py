"""Does what decisions about sessions ask of the store, for threads and for event loops; with a breaker in front."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar
from uuid import uuid4

from .clock import Clock
from .errors import DamagedRecord, SessionUnavailable, StoreError
from .session.binding import Binding
from .session.breaker import Breaker
from .session.operations import Steps
from .session.options import SessionOptions
from .session.sealing import UnknownKey
from .session.store import AsyncStore, ImmediateLoad, Record, Store
from .stores import open_async_store, open_store

log = logging.getLogger("unsticky.session")

T = TypeVar("T")


class _NotTried(StoreError):
    """The breaker is open. What made it open was noted."""


class StoreAccess:
    """The store of one app, in both forms. One object serves all threads and event loops, and survives a fork."""

    def __init__(
        self, options: SessionOptions, clock: Clock, store: Store | None = None, async_store: AsyncStore | None = None
    ) -> None:
        """`store`, `async_store`: of the program's own, instead of the one that the options name."""
        self._options = options
        self._clock = clock
        own = store if store is not None else async_store
        # Threads and event loops of one app have one memory, which other apps do not see.
        self._url = f"memory://{uuid4().hex}" if options.store == "memory://" else options.store
        if store is not None or own is None:
            self.store = store or open_store(self._url, clock=clock, timeout=options.store_timeout)
        if async_store is not None:
            self.async_store = async_store
        self._own = own is not None
        # A store in this process has no network that could be down: what it refuses, it refuses for a reason.
        local = getattr(own if own is not None else self.store, "local", False)
        self._breaker = None if local else Breaker(options.breaker_failures, options.breaker_pause)

    @cached_property
    def store(self) -> Store:
        """The store for threads."""
        raise TypeError("These sessions were given a store for event loops only, and are used in a thread.")

    @cached_property
    def async_store(self) -> AsyncStore:
        """The store for event loops."""
        if self._own:
            raise TypeError("These sessions were given a store for threads only, and are used on an event loop.")
        return open_async_store(self._url, clock=self._clock, timeout=self._options.store_timeout)

    @property
    def any_store(self) -> Store | AsyncStore:
        """One of the two, to ask what it can."""
        return self.async_store if self._own and "store" not in self.__dict__ else self.store

    @property
    def answers_at_once(self) -> bool:
        """Can the event loop's own thread ask it for a record?"""
        return isinstance(self.async_store, ImmediateLoad)

    def load(self, key: str) -> Record | None:
        """In a thread. Raises StoreError."""
        return self._loaded(self.store.load, key)

    def load_now(self, key: str) -> Record | None:
        """On an event loop, where `answers_at_once`. Raises StoreError."""
        return self._loaded(self._ask_now, key)

    def _loaded(self, load: Callable[[str], Record | None], key: str) -> Record | None:
        breaker = self._breaker
        try:
            if breaker is not None:
                self._admit(breaker)
            record = load(key)
        except StoreError as error:
            self.note(error)
            raise
        if breaker is not None:
            breaker.succeeded()
        return record

    @cached_property
    def _ask_now(self) -> Callable[[str], Record | None]:
        store = self.async_store
        assert isinstance(store, ImmediateLoad)
        return store.load_now

    def run(self, steps: Steps[T]) -> T:
        """Do all that `steps` asks for, in this thread. Raises SessionUnavailable, and what `steps` raises."""
        breaker = self._breaker
        try:
            operation = next(steps)
            while True:
                try:
                    if breaker is not None:
                        self._admit(breaker)
                    result = operation.ask(self.store)
                except StoreError as error:
                    self.note(error)
                    operation = steps.throw(error)
                else:
                    if breaker is not None:
                        breaker.succeeded()
                    operation = steps.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except StoreError as error:
            raise SessionUnavailable() from error

    async def run_async(self, steps: Steps[T], binding: Binding | None = None) -> T:
        """As `run`, on an event loop; those of one `binding` one after the other."""
        if binding is None:
            return await self._run_async(steps)
        if binding.turn is None and not binding.being_written:  # most requests have one task that writes
            binding.being_written = True
            try:
                return await self._run_async(steps)
            finally:
                binding.being_written = False
                _pass_turn(binding)
        if binding.turn is None:
            binding.turn = asyncio.Lock()
            await binding.turn.acquire()  # for the one that writes, who releases it: this does not wait
        async with binding.turn:
            return await self._run_async(steps)

    async def _run_async(self, steps: Steps[T]) -> T:
        breaker = self._breaker
        try:
            operation = next(steps)
            while True:
                try:
                    if breaker is not None:
                        self._admit(breaker)
                    result = await operation.ask(self.async_store)
                except StoreError as error:
                    self.note(error)
                    operation = steps.throw(error)
                else:
                    if breaker is not None:
                        breaker.succeeded()
                    operation = steps.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except StoreError as error:
            raise SessionUnavailable() from error

    def close(self) -> None:
        """Give connections back. A later use opens them again."""
        if "store" in self.__dict__:
            self.store.close()

    async def aclose(self) -> None:
        """As `close`, for the connections of event loops too."""
        self.close()
        if "async_store" in self.__dict__:
            await self.async_store.aclose()

    def _admit(self, breaker: Breaker) -> None:
        if breaker.is_open and not breaker.allows(self._clock.monotonic()):
            raise _NotTried("session store: it failed again and again, and is left alone for a moment")

    def note(self, error: StoreError) -> None:
        """A store that answers is not away, whatever it answers."""
        if isinstance(error, _NotTried):
            return
        if isinstance(error, DamagedRecord | UnknownKey):
            log.error("A session can't be read: %s", error)
            if self._breaker is not None:
                self._breaker.succeeded()
            return
        log.error("The session store is not available: %s", error)
        if self._breaker is not None:
            self._breaker.failed(self._clock.monotonic())


def _pass_turn(binding: Binding) -> None:
    """To those that came while the first one wrote, if any did."""
    if binding.turn is not None:
        binding.turn.release()
