"""Requests on a session without a web framework: a browser with one cookie, against a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from unsticky.session.commit import Committed, Cookie
from unsticky.session.session import Session
from unsticky.session.token import Token
from unsticky.sessions import Sessions


@dataclass
class Browser:
    """Keeps the token that responses give it."""

    sessions: Sessions
    token: Token | None = None
    last: Committed = field(default_factory=lambda: Committed(Cookie.KEEP))

    def arrive(self) -> Session:
        """A request comes in."""
        token = self.token
        return self.sessions.bind(lambda: token, Session)

    def leave(self, session: Session) -> Committed:
        """Its response goes out."""
        self.last = self.sessions.commit(session)
        if isinstance(self.last.cookie, Token):
            self.token = self.last.cookie
        elif self.last.cookie is Cookie.DELETE:
            self.token = None
        return self.last

    @contextmanager
    def visit(self) -> Iterator[Session]:
        """A whole request."""
        session = self.arrive()
        yield session
        self.leave(session)
