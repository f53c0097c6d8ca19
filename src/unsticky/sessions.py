"""`Sessions`: what a program holds to open and commit sessions, to list them, and to end them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TypeVar
from uuid import UUID

from .access import StoreAccess
from .clock import Clock, SystemClock
from .errors import Problem, SessionError, SessionUnavailable, SettingsError, StoreError
from .session import listing
from .session.binding import Binding, Loader
from .session.commit import UNUSED, Committed, commit, settled
from .session.events import SessionEvent
from .session.inbound import Inbound
from .session.listing import SessionInfo
from .session.names import owner_text
from .session.options import SessionOptions
from .session.policy import Lifetime, Terms
from .session.sealing import Sealer
from .session.session import Driver, Session
from .session.store import AsyncStore, Purgeable, Record, Store
from .session.token import Token, TokenSigner
from .telemetry import otel
from .worker import worker

__all__ = ["SessionEvent", "SessionInfo", "Sessions"]

log = logging.getLogger("unsticky.session")

S = TypeVar("S", bound=Session)

UNAVAILABLE_BODY = b"The service is not available for the moment. Please try again.\n"  # of every 503
LIMIT_BODY = b"You are logged in on as many devices as are allowed. Please log out on one of them.\n"  # of every 409
PURGE_INTERVAL = 600.0  # seconds
PURGE_BATCH = 500  # records; the store is locked for one batch

_LATE = "A change that was made to a session after the response's headers were sent is lost."


class Sessions:
    """The sessions of one app. One object serves all threads and event loops of a process, and survives a fork."""

    def __init__(
        self,
        options: SessionOptions | None = None,
        *,
        store: Store | None = None,
        async_store: AsyncStore | None = None,
        framework_idle: float | None = None,
        clock: Clock | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`store`, `async_store`: of your own, for threads and for event loops, instead of the options' URL.

        `framework_idle`: the framework's own session lifetime in seconds, for when the options name none.
        Nothing is connected yet. Raises SettingsError when the options can't be used here.
        """
        self.options = options or SessionOptions()
        self.clock = clock or SystemClock()
        self._now = self.clock.time
        self.access = StoreAccess(self.options, self.clock, store, async_store)
        self._note = self.access.note
        self.driver: Driver = self.access  # of `save()` and the like; a host may put its own errors around it
        self.signer = TokenSigner(self.options.secret_keys)
        self._sealer = _sealer(self.options)
        self._may_evict = bool(getattr(self.access.any_store, "may_evict", False))
        if self._may_evict and self.options.maximum_sessions is not None:
            raise _cannot("maximum_sessions", "this store may forget records, so it can't count sessions")
        self.terms = self.terms_of(Lifetime.of(self.options, framework_idle))
        self._random_bytes = random_bytes
        self._purged = self.clock.monotonic()
        self._listeners: list[Callable[[SessionEvent], object]] = []

    def terms_of(self, lifetime: Lifetime) -> Terms:
        """What holds for sessions that live for `lifetime`."""
        return Terms.of(self.options, lifetime, sealer=self._sealer, may_evict=self._may_evict)

    # For hosts: one session of one request ---------------------------------------------------------------------------

    def bind(self, inbound: Inbound, make: type[S], *, terms: Callable[[], Terms] | None = None) -> S:
        """The session of a request in a thread. It reads the token and asks the store at its first use.

        `terms`: asked then too, where they are not the same for all requests.
        """
        if terms is None:
            return make.bound(self._opener(inbound, self._load), self.driver)
        return make.bound(lambda: self.opened(inbound, terms()), self.driver)

    def bind_now(self, inbound: Inbound, make: type[S]) -> S:
        """The session of a request on an event loop, of a store that answers at once: asked at the first use."""
        return make.bound(self._opener(inbound, self._load_now), self.driver)

    def bind_lazily(self, inbound: Inbound, make: type[S]) -> S:
        """The session of a request on an event loop, to be loaded by `await session.load()`."""
        return make.bound(self._opener(inbound, None), self.driver)

    async def bind_loaded(self, inbound: Inbound, make: type[S]) -> S:
        """The session of a request on an event loop, of a store across the network: asked now, if there is a token.

        `request.session` can't wait. An outage is there for whoever uses the session.
        """
        session = self.bind_lazily(inbound, make)
        binding = session.opened()
        assert binding is not None
        if binding.token is not None or self.options.migrate_until is not None:
            started = perf_counter()
            await self.access.run_async(binding.loading())
            otel.session_loaded(perf_counter() - started, found=binding.record is not None)
        return session

    def opened(self, inbound: Inbound, terms: Terms) -> Binding:
        """What ties a session in a thread to its request; for hosts whose terms are not the same for all requests."""
        return Binding(inbound, terms, self._load, self._now, self._random_bytes, self._note, self._tell)

    def _opener(self, inbound: Inbound, loader: Loader | None) -> partial[Binding]:
        return partial(Binding, inbound, self.terms, loader, self._now, self._random_bytes, self._note, self._tell)

    def _load(self, key: str) -> Record | None:
        return self._told(self.access.load, key) if otel.is_traced() else self.access.load(key)

    def _load_now(self, key: str) -> Record | None:
        return self._told(self.access.load_now, key) if otel.is_traced() else self.access.load_now(key)

    def _told(self, load: Loader, key: str) -> Record | None:
        started = perf_counter()
        record = load(key)
        otel.session_loaded(perf_counter() - started, found=record is not None)
        return record

    def commit(self, session: Session) -> Committed:
        """Write what the request changed. Raises SessionUnavailable when the store is away: nothing is promised then.

        Raises SessionValueError for a value that no session can hold, SessionLimitReached as the options say.
        """
        if not session.used:
            return UNUSED
        done = settled(session)
        if done is not None:
            return done
        started = perf_counter()
        return self._reported(session, self.access.run(commit(session)), started)

    async def commit_async(self, session: Session) -> Committed:
        """As `commit`, on an event loop."""
        if not session.used:
            return UNUSED
        return settled(session) or await self.write_async(session)

    async def write_async(self, session: Session) -> Committed:
        """As `commit_async`, of one that is not settled."""
        started = perf_counter()
        return self._reported(session, await self.access.run_async(commit(session), session.opened()), started)

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

    def _reported(self, session: Session, committed: Committed, started: float) -> Committed:
        binding = session.opened()
        if binding is not None:
            binding.announce()
        otel.session_committed(perf_counter() - started, "lost" if committed.lost else "committed")
        if committed.lost:
            log.info("A session ended elsewhere while a request was writing to it; that write was dropped.")
        if isinstance(committed.cookie, Token):
            self._purge_now_and_then()
        return committed

    # For programs: what happens to sessions, and the sessions of an owner -------------------------------------------

    def on_event(self, told: Callable[[SessionEvent], object]) -> Callable[[SessionEvent], object]:
        """Call `told` with each SessionEvent of this process, after it is in the store. Usable as a decorator.

        In the thread of the request or its event loop, so it must be quick. What it raises is logged.
        """
        self._listeners.append(told)
        return told

    def _tell(self, events: Sequence[SessionEvent]) -> int:
        for event in events:
            otel.session_event(event.kind)
            for told in self._listeners:
                try:
                    told(event)
                except Exception:
                    log.exception("A listener of session events failed.")
        return len(events)

    def list(self, owner: str | int | UUID) -> list[SessionInfo]:
        """The owner's live sessions, the newest login first. Raises SessionUnavailable."""
        return self.access.run(listing.list_sessions(self._owner(owner), self.clock.time(), self.terms))

    async def list_async(self, owner: str | int | UUID) -> list[SessionInfo]:  # type: ignore[valid-type]
        """As `list`, on an event loop."""
        return await self.access.run_async(listing.list_sessions(self._owner(owner), self.clock.time(), self.terms))

    def _owner(self, owner: str | int | UUID) -> str:
        if self._may_evict:
            raise SessionError(
                "This store (Memcached) may forget any record, so an owner's sessions can't be listed or ended."
            )
        return owner_text(owner)

    def find(self, id: str) -> SessionInfo | None:  # noqa: A002 - as the field is called
        """One session by its id (`session.id`, `SessionInfo.id`). Raises SessionUnavailable."""
        return self.access.run(listing.find(id, self.terms))

    async def find_async(self, id: str) -> SessionInfo | None:  # noqa: A002
        """As `find`, on an event loop."""
        return await self.access.run_async(listing.find(id, self.terms))

    def revoke(self, id: str) -> bool:  # noqa: A002
        """End one session, at once and everywhere. False if there is none. Raises SessionUnavailable.

        Whoever lets users do this checks first that the session is theirs: `find(id).owner`.
        """
        return self._tell(self.access.run(listing.revoke(id))) == 1

    async def revoke_async(self, id: str) -> bool:  # noqa: A002
        """As `revoke`, on an event loop."""
        return self._tell(await self.access.run_async(listing.revoke(id))) == 1

    def revoke_all(self, owner: str | int | UUID, *, keep: Session | str | None = None) -> int:
        """End all sessions of an owner, but for `keep` (a session, or its id); return how many."""
        return self._tell(self.access.run(listing.revoke_all(self._owner(owner), _id(keep), self.clock.time())))

    async def revoke_all_async(self, owner: str | int | UUID, *, keep: Session | str | None = None) -> int:
        """As `revoke_all`, on an event loop."""
        steps = listing.revoke_all(self._owner(owner), _id(keep), self.clock.time())
        return self._tell(await self.access.run_async(steps))

    def close(self) -> None:
        """Give the store's connections back. A later use opens them again."""
        self.access.close()

    async def aclose(self) -> None:
        """As `close`, for the connections of event loops too."""
        await self.access.aclose()

    def _purge_now_and_then(self) -> None:
        """A store that does not forget by itself is cleared in the background, while new sessions come in."""
        now, store = self.clock.monotonic(), self.access.any_store
        if now - self._purged >= PURGE_INTERVAL and isinstance(store, Purgeable):
            self._purged = now
            worker.submit(_purge(store))


async def _purge(store: Purgeable) -> None:
    try:
        while await asyncio.to_thread(store.purge, PURGE_BATCH) == PURGE_BATCH:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # requests come first
    except StoreError as error:
        log.warning("Ended sessions could not be cleared: %s", error)


def _id(session: Session | str | None) -> str | None:
    return session.id if isinstance(session, Session) else session


def _sealer(options: SessionOptions) -> Sealer | None:
    if not options.encryption_keys:
        return None
    try:
        from .sealing import KeyRing
    except ModuleNotFoundError:
        raise _cannot("encryption_keys", "cryptography is not installed: pip install 'unsticky[crypto]'") from None
    return KeyRing(options.encryption_keys)


def _cannot(name: str, problem: str) -> SettingsError:
    return SettingsError("session", [Problem(f"session.{name}", problem)])
