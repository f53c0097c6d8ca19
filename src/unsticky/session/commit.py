"""What a request's session asks of the store, and then of the client.

Nothing tracks changes: the encoded values are compared with the bytes that were loaded, so changes inside of values
are found, and a session that is as it was costs no write.
"""

from __future__ import annotations

from ..errors import SessionConflict, SessionLimitReached, SessionValueError
from .beginning import begin, marked
from .binding import Binding
from .events import SessionEvent
from .operations import Delete, Load, Steps
from .owners import forget
from .session import Session
from .token import Token
from .updating import update
from .writing import KEEP, UNUSED, Committed, Cookie, keep_untold, with_untold

__all__ = ["UNUSED", "Committed", "Cookie", "commit", "is_settled", "reload", "save", "settled", "untold"]


def commit(session: Session) -> Steps[Committed]:
    """Yield each store operation, receive its result, return what became of it.

    May run again: later changes are written then. Raises SessionValueError.
    """
    binding = session._binding
    if binding is None or binding.unavailable is not None or not binding.loaded:
        return UNUSED
    write = update if binding.record is not None else _begin_anew
    try:
        done = yield from write(session, binding)
    except (SessionValueError, SessionLimitReached):
        yield from _end(binding)  # a logout counts, even if what came after it can't be stored
        raise
    if binding.ended or binding.old_ended:
        # After the new one is there: a crash between the two must not leave the client with neither.
        yield from _end(binding)
    if _is_asked_for_more(session, binding):
        keep_untold(binding, done)
        return (yield from commit(session))
    if binding.untold is not None:
        done, binding.untold = with_untold(done, binding.untold), None
    return done


def _is_asked_for_more(session: Session, binding: Binding) -> bool:
    """Has another task logged in, rotated or begun anew meanwhile? After the headers nobody can be told of that."""
    if binding.closed:
        return False
    if binding.record is None:
        return bool(dict.__len__(session) or binding.owner)
    return binding.rotation is not None or binding.owner is not None


def is_settled(session: Session) -> bool:
    """Is it plain that a commit would write nothing, and tell the client nothing? Quick; False is no answer."""
    binding = session._binding
    if binding is None or binding.changed or binding.record is None or binding.untold is not None or binding.joining:
        return False
    if binding.plural or binding.ended or binding.old_ended:
        return False  # another proof, perhaps, that is to end; or a logout that could not be written yet
    if not binding.closed:
        lifetime = binding.terms.lifetime
        if lifetime.renewal is not None or lifetime.touch_due(binding.record, binding.now()):
            return False
    return not session._lent or binding.holds_plainly()


def untold(session: Session) -> Committed | None:
    """What the app has saved, and the client has not been told of: without its new token it would be logged out."""
    binding = session._binding
    return None if binding is None else binding.untold


def settled(session: Session) -> Committed | None:
    """What a commit returns of a session that `is_settled`; None for others."""
    binding = session._binding
    if binding is None or not is_settled(session):
        return None
    return Committed(KEEP, binding.token if binding.standing else None)


def save(session: Session) -> Steps[None]:
    """Commit before the response does; what the client has to be told waits for the headers.

    A login that is refused (SessionLimitReached) leaves nothing behind that a later commit would write.
    """
    binding = session._binding
    try:
        done = yield from commit(session)
    except SessionLimitReached:
        if binding is not None:
            _forget_changes(session, binding)
        raise
    if binding is not None:
        binding.announce()  # a WebSocket's own commit may be hours away, and an app that fails has none
    if done.lost:
        raise SessionConflict("The session ended elsewhere, so nothing was saved.")
    if binding is not None and done.cookie is not Cookie.KEEP:
        keep_untold(binding, done)


def _forget_changes(session: Session, binding: Binding) -> None:
    """Back to what is stored."""
    binding.changed, binding.rotation, binding.owner = False, None, None
    binding.values = binding.decoded()
    session.show(binding.values)


def reload(session: Session) -> Steps[None]:
    """Show what is stored now. What was not saved is dropped; ended elsewhere, the session is empty."""
    binding = session._binding
    if binding is None:
        return
    if binding.record is None or binding.token is None:
        if binding.old is None or binding.old_ended:  # else what is shown is stored, with another library
            binding.owner = None
            session.show({})
        return
    token, joining = binding.token, binding.joining
    record = yield Load(token.key)
    if not (binding.join(token, record, [joining]) if joining else binding.renew(record)):
        binding.begin_anew()
    binding.changed, binding.rotation, binding.owner = False, None, None
    session.show(binding.values)


def _begin_anew(session: Session, binding: Binding) -> Steps[Committed]:
    ended = bool(binding.ended)
    done = yield from begin(session, binding)
    return done._replace(cookie=Cookie.DELETE) if ended and done.token is None else done


def _end(binding: Binding) -> Steps[None]:
    if binding.old is not None and binding.old_ended:
        # Nobody can take it over any more, and who just did is out.
        yield from marked(binding, binding.old, ())
        yield Delete(Token(binding.old.handle, "").key)
        binding.old, binding.old_ended = None, False
    while binding.ended:
        key, owner = binding.ended[-1]
        yield Delete(key)
        binding.ended = binding.ended[:-1]
        binding.tell(SessionEvent("ended", key, owner))
        if owner:
            yield from forget(owner, key)
