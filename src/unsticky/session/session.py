"""The session object: a dict that loads at first use. What has to be written is derived in `commit.py`."""

from __future__ import annotations

from uuid import UUID

from ..errors import SessionError, SessionHeadersSent, SessionUnavailable
from .lazy import Driver, LazyDict
from .names import owner_text

__all__ = ["Driver", "Session"]


class Session(LazyDict):
    """One client's session."""

    __slots__ = ()

    @property
    def new(self) -> bool:
        """Is there no stored session behind it?"""
        self._use()
        return self._binding is None or self._binding.record is None

    @property
    def available(self) -> bool:
        """False if its store is away. With `on_outage = "read_only"` it is empty then, and writing to it raises."""
        binding = self.opened()
        if binding is not None and not binding.loaded:
            try:
                self._use()
            except SessionUnavailable:
                return False
        return binding is None or binding.unavailable is None

    @property
    def permanent(self) -> bool:
        """Does its cookie outlive the browser? Assign to choose for this session; else the settings decide.

        Stored in the session under "_permanent", as Flask does.
        """
        return bool(self.get("_permanent", True))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self["_permanent"] = bool(value)

    @property
    def id(self) -> str | None:
        """What lists of sessions call it: the key in its store, a hash that gives nothing away. None without a request.

        A session that is not stored yet has one too, which it keeps when it is.
        """
        binding = self.opened()
        return binding.current_token().key if binding is not None else None

    def clear(self) -> None:
        """End the session, here and at the client. What is written afterwards begins a new one, with a new token."""
        binding = self._changing()
        if binding is not None:
            binding.end()
        super().clear()

    def rotate(self, *, strict: bool = False) -> None:
        """Give the session a new token, with the same data: at login, and whenever rights change.

        The old token serves requests in flight for the grace (10 s). A strict rotation ends it at once, and requests
        that loaded the session before can't write any more.
        """
        self._use()
        binding = self._binding
        if binding is None:
            return
        if binding.unavailable is not None:
            self._refuse(binding.unavailable)
        if binding.record is None and binding.old is None:
            return  # a session that is not stored yet gets a fresh token anyway
        if binding.closed:
            raise SessionHeadersSent("The response's headers are sent, so the new token can't reach the client.")
        binding.changed = True
        binding.rotation = "strict" if strict or binding.rotation == "strict" else "graceful"

    def destroy(self) -> None:
        """End the session: in the store, and at the client. The same as `clear()`."""
        self.clear()

    @property
    def owner(self) -> str | None:
        """The user whom the session belongs to, as the application names them. Changing it rotates strictly."""
        self._use()
        binding = self._binding
        if binding is None:
            return None
        if binding.owner is not None:
            return binding.owner or None
        return binding.record.owner if binding.record is not None else None

    @owner.setter
    def owner(self, value: str | int | UUID | None) -> None:
        wanted = owner_text(value)
        binding = self.opened()
        if binding is None or wanted == (self.owner or ""):
            return
        if wanted and binding.terms.may_evict:
            raise SessionError(
                "session.owner: this store (Memcached) may forget any record, so an owner's sessions can't be listed "
                "or ended reliably. Use Redis, PostgreSQL or SQLite for sessions with owners."
            )
        self.mark_modified()
        if binding.record is not None:
            self.rotate(strict=True)
        binding.owner = wanted
