"""Requests on a session without a web framework: a browser with one cookie, against a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from unsticky.session.commit import Committed, Cookie
from unsticky.session.inbound import Device, Inbound, OldSession
from unsticky.session.session import Session
from unsticky.session.token import Token
from unsticky.session.verbs import ThreadSession
from unsticky.sessions import Sessions


@dataclass
class Asked(Inbound):
    """A request of a browser."""

    its_token: Token | None = None
    its_old: OldSession | None = None
    its_device: Device = field(default_factory=lambda: Device.of("Lynx/2.9", "203.0.113.9"))

    def token(self) -> Token | None:
        return self.its_token

    def old_session(self) -> OldSession | None:
        return self.its_old

    def device(self) -> Device:
        return self.its_device


@dataclass
class Browser:
    """Keeps the token that responses give it."""

    sessions: Sessions
    token: Token | None = None
    last: Committed = field(default_factory=lambda: Committed(Cookie.KEEP))
    old: OldSession | None = None

    def arrive(self) -> ThreadSession:
        """A request comes in."""
        return self.sessions.bind(Asked(self.token, self.old), ThreadSession)

    def leave(self, session: Session) -> Committed:
        """Its response goes out."""
        self.last = self.sessions.commit(session)
        if isinstance(self.last.cookie, Token):
            self.token = self.last.cookie
        elif self.last.cookie is Cookie.DELETE:
            self.token = None
        return self.last

    @contextmanager
    def visit(self) -> Iterator[ThreadSession]:
        """A whole request."""
        session = self.arrive()
        yield session
        self.leave(session)
