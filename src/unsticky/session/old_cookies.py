"""Starlette's own signed cookies, for as long as their sessions are taken over."""

from __future__ import annotations

from ..errors import Problem, SettingsError
from .cookie import HOST_PREFIX, Carrier, CookieFormat, cookie_values
from .inbound import OldSession
from .options import SessionOptions
from .takeover import canonical, starlette_session


class OldCookies:
    """Reads them; what becomes of them is decided in `beginning.py`."""

    def __init__(self, names: tuple[str, ...], keys: tuple[str, ...], until: float, max_age: float | None) -> None:
        self.names = names  # that of our cookie first
        self._keys = keys
        self._until = until
        self._max_age = max_age

    @classmethod
    def of(cls, options: SessionOptions, form: Carrier, max_age: float | None) -> OldCookies | None:
        """None where nothing is taken over. Raises SettingsError without a key."""
        keys = options.migrate_keys or options.secret_keys
        if options.migrate_until is None:
            return None
        if not keys:
            problem = Problem(
                "session.migrate_until", "needs `migrate_keys`, or `secret_keys`, that signed the old cookies"
            )
            raise SettingsError("session", [problem])
        name = options.cookie.name or (form.name if isinstance(form, CookieFormat) else "session")
        names = dict.fromkeys((name, name.removeprefix(HOST_PREFIX)))  # ours may have got the prefix only now
        return cls(tuple(names), keys, options.migrate_until, max_age)

    def read(self, headers: list[str], now: float, client: str = "") -> OldSession | None:
        """The one session of that kind that the request presents."""
        for name in self.names:
            texts = set(cookie_values(headers, name))
            text = texts.pop() if len(texts) == 1 else ""
            values = starlette_session(text, self._keys, self._max_age, now)
            if values is not None:
                return OldSession(values, canonical(text), self._until, client)
        return None
