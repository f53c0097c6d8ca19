"""A session that can be told to save, reload or do a transaction now, in a thread or on an event loop."""

from __future__ import annotations

from typing import TypeVar

from .binding import Binding
from .commit import reload, save
from .operations import Steps
from .session import Driver, Session
from .transaction import Transaction

T = TypeVar("T")


class ThreadSession(Session):
    """For threads: Flask, WSGI."""

    __slots__ = ()

    def save(self) -> None:
        """Write what has changed so far, without waiting for the response.

        Raises SessionConflict if the session ended elsewhere, SessionUnavailable, SessionValueError.
        """
        if self.used:
            _driver(self).run(save(self))

    def reload(self) -> None:
        """Show what is stored now; what was not saved is dropped. Raises SessionUnavailable."""
        self.mark_accessed()
        _driver(self).run(reload(self))

    def transaction(self) -> Transaction:
        """Read, compute and write as one step. Raises SessionConflict when it is overtaken again and again.

        for draft in session.transaction():
            draft["stock"] -= 1
        """
        return Transaction(self, _driver(self))


class LoopSession(Session):
    """For event loops: Starlette, FastAPI."""

    __slots__ = ()

    async def load(self) -> None:
        """Ask the store now: only needed with `lazy = true`, and for excluded paths. Raises SessionUnavailable."""
        binding = self.opened()
        if binding is not None and not binding.loaded:
            await _driver(self).run_async(binding.loading())
        self.mark_accessed()

    async def save(self) -> None:
        """Write what has changed so far, without waiting for the response.

        Raises SessionConflict if the session ended elsewhere, SessionUnavailable, SessionValueError.
        """
        if self.used:
            await _driver(self).run_async(save(self), self.opened())

    async def reload(self) -> None:
        """Show what is stored now; what was not saved is dropped. Raises SessionUnavailable."""
        await self.load()
        await _driver(self).run_async(reload(self), self.opened())

    def transaction(self) -> Transaction:
        """Read, compute and write as one step. Raises SessionConflict when it is overtaken again and again.

        async for draft in session.transaction():       # in a plain function: for
            draft["stock"] -= 1
        """
        return Transaction(self, _driver(self))


class _NoDriver:
    """Of a session without a request: there is no store to ask."""

    def run(self, steps: Steps[T]) -> T:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        raise AssertionError("a session without a request asked the store")

    async def run_async(self, steps: Steps[T], binding: Binding | None = None) -> T:
        return self.run(steps)


_no_driver = _NoDriver()


def _driver(session: Session) -> Driver:
    return session._driver or _no_driver
