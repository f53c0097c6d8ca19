"""What became of sessions, for those who want to be told: an audit log, a counter, a message to the user."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["created", "rotated", "ended", "revoked", "expired"]


class SessionEvent(NamedTuple):
    """Something that happened to a session, once it is in the store.

    created: it began. rotated: it got a new token, `session.rotate()`, a login or a renewal. ended: by the application,
    a logout. revoked: through `Sessions.revoke` and `revoke_all`. expired: a client came back with it too late; a
    session whose client never comes back is only cleared away.
    """

    kind: Kind
    id: str  # as `session.id`: a hash that lets nobody in
    owner: str | None
