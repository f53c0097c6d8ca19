"""Sessions that Flask itself or Flask-Session wrote, for as long as they are taken over."""

from __future__ import annotations

from typing import Any

from flask import Flask, Request
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadData

from .errors import Problem, SettingsError
from .session.inbound import OldSession, client_of
from .session.options import SessionOptions
from .session.takeover import canonical, flask_session_id, flask_session_values

_FLASKS_OWN = SecureCookieSessionInterface()


class OldFlaskSessions:
    """Reads them; what becomes of them is decided in `session/beginning.py`."""

    def __init__(self, until: float, records: Any) -> None:
        """`until`: unix seconds. `records`: Flask-Session's, or None."""
        self._until = until
        self._records = records

    @classmethod
    def of(cls, options: SessionOptions) -> OldFlaskSessions | None:
        """None where nothing is taken over. Raises SettingsError."""
        if options.migrate_until is None:
            return None
        return cls(options.migrate_until, _flask_session_records(options))

    def read(self, app: Flask, request: Request) -> OldSession | None:
        """The one such session that the request presents. Raises StoreError."""
        texts = set(request.cookies.getlist(_FLASKS_OWN.get_cookie_name(app)))
        if len(texts) != 1:
            return None
        [text] = texts
        client = client_of(request.headers.get, request.remote_addr)
        values = _flask_values(app, text)
        if values is not None:
            return OldSession(values, canonical(text), self._until, client) if values else None
        sid = flask_session_id(text, secret_keys(app), signed=bool(app.config.get("SESSION_USE_SIGNER")))
        if self._records is None or sid is None:
            return None
        data = self._records.load(app.config.get("SESSION_KEY_PREFIX", "session:") + sid)
        values = None if data is None else flask_session_values(data)
        return OldSession(values, sid, self._until, client) if values else None

    def close(self) -> None:
        """Give the connections back. A later use opens them again."""
        if self._records is not None:
            self._records.close()


def secret_keys(app: Flask) -> tuple[str | bytes, ...]:
    """The app's, newest first."""
    config = app.config
    return (config["SECRET_KEY"] or "", *(config.get("SECRET_KEY_FALLBACKS") or ()))


def _flask_values(app: Flask, text: str) -> dict[str, Any] | None:
    """What Flask's own session cookie holds: signed with the app's keys, and not older than Flask takes it."""
    serializer = _FLASKS_OWN.get_signing_serializer(app)
    if serializer is None:
        return None
    try:
        values = serializer.loads(text, max_age=int(app.permanent_session_lifetime.total_seconds()))
    except BadData:
        return None
    return values if isinstance(values, dict) else None


def _flask_session_records(options: SessionOptions) -> Any:
    if options.migrate_flask_session is None:
        return None
    from .stores.flask_session import FlaskSessionRecords  # only who migrates needs it

    try:
        return FlaskSessionRecords(str(options.migrate_flask_session), options.store_timeout)
    except ValueError as error:
        problem = Problem("session.migrate_flask_session", f"is the URL of a Redis: {error}")
        raise SettingsError("session", [problem]) from None
