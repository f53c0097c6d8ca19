"""What can be set about sessions. Frozen values; `unsticky.settings` composes them.

The metadata next to a field is its rule and its description, for the reader's errors and for the JSON Schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as default
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import COOKIE_DOMAIN, COOKIE_NAME, COOKIE_PATH
from ..scalars import Duration, Secret, StoreURL

STORAGE_GRACE = 300.0  # seconds that a store keeps a record longer than the session lives (Spring Session's figure)


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """The session's cookie. What is unset is as the framework has it (Flask: its SESSION_COOKIE_* config)."""

    name: Annotated[str | None, COOKIE_NAME, Meta(description="Its name.")] = None
    path: Annotated[str | None, COOKIE_PATH, Meta(description="The paths that it is sent to.")] = None
    domain: Annotated[str | None, COOKIE_DOMAIN, Meta(description="Unset: the host alone.")] = None
    secure: Annotated[bool | None, Meta(description="Sent over HTTPS only.")] = None
    http_only: Annotated[bool | None, Meta(description="Hidden from JavaScript.")] = None
    same_site: Annotated[
        Literal["lax", "strict", "none"] | None, Meta(description='Sent from other sites; "none" needs `secure`.')
    ] = None
    partitioned: Annotated[bool | None, Meta(description="One jar per top-level site (CHIPS); needs `secure`.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Sessions: where they are kept, how long they live, how their token is protected."""

    store: Annotated[StoreURL, Meta(description="Where sessions are kept.")] = StoreURL("sqlite:///sessions.db")
    idle_timeout: Annotated[
        Duration | None,
        Meta(
            gt=0,
            description="Since the last request that used the session. Unset: the framework's own lifetime (Flask "
            "PERMANENT_SESSION_LIFETIME, Starlette max_age); 14 days elsewhere.",
        ),
    ] = None
    absolute_timeout: Annotated[
        Duration | None, Meta(gt=0, description="Since the session began. Unset: no such limit.")
    ] = None
    touch_interval: Annotated[
        Duration | None,
        Meta(description="A reader writes at most this often. Unset: the smaller of 60 s and idle_timeout / 10."),
    ] = None
    rotation_grace: Annotated[
        Duration, Meta(description="How long a rotated token still serves requests in flight.")
    ] = Duration(10)
    store_timeout: Annotated[Duration, Meta(gt=0, description="Of one store operation.")] = Duration("250ms")
    secret_keys: Annotated[
        tuple[Annotated[Secret, Meta(min_length=1)], ...],
        Meta(
            description="Keys that sign the token, newest first. Flask takes SECRET_KEY and SECRET_KEY_FALLBACKS "
            "instead."
        ),
    ] = ()
    cookie: CookieOptions = default(default_factory=CookieOptions)
