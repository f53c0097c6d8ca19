"""What can be set about sessions. Frozen values; `unsticky.settings` composes them."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as default
from typing import Literal

from ..scalars import Duration, Secret, StoreURL

STORAGE_GRACE = 300.0  # seconds that a store keeps a record longer than the session lives (Spring Session's figure)


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """The session's cookie. What is unset is as the framework has it (Flask: its SESSION_COOKIE_* config)."""

    name: str | None = None
    path: str | None = None
    domain: str | None = None
    secure: bool | None = None
    http_only: bool | None = None
    same_site: Literal["lax", "strict", "none"] | None = None
    partitioned: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Sessions: where they are kept, how long they live, how their token is protected."""

    store: StoreURL = StoreURL("sqlite:///sessions.db")
    # Since the last request that used the session. Unset: the framework's own lifetime
    # (Flask PERMANENT_SESSION_LIFETIME, Starlette max_age); 14 days elsewhere.
    idle_timeout: Duration | None = None
    absolute_timeout: Duration | None = None  # since the session began; unset: no such limit
    touch_interval: Duration | None = None  # a reader writes at most this often; unset: min(60 s, idle_timeout / 10)
    rotation_grace: Duration = Duration(10)  # how long a rotated token still serves requests in flight
    store_timeout: Duration = Duration("250ms")  # the deadline of one store operation
    # Keys that sign the token, newest first. Flask takes SECRET_KEY and SECRET_KEY_FALLBACKS instead.
    secret_keys: tuple[Secret, ...] = ()
    cookie: CookieOptions = default(default_factory=CookieOptions)
