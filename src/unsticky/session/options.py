"""What can be set about sessions. Frozen values; `unsticky.settings` composes them.

The metadata next to a field is its rule and its description, for the reader's errors and for the JSON Schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as default
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import COOKIE_DOMAIN, COOKIE_NAME, COOKIE_PATH, HEADER_NAME, LONG_SECRET, PATH
from ..scalars import Duration, Moment, Secret, StoreURL

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
    permanent: Annotated[
        bool | None, Meta(description="Kept when the browser closes, unless the session says otherwise. Not Flask.")
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
    renewal_timeout: Annotated[
        Duration | None, Meta(gt=0, description="A token older than this is rotated. Unset: no such limit.")
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
    encryption_keys: Annotated[
        tuple[Annotated[Secret, LONG_SECRET], ...],
        Meta(description="Keys that encrypt values in the store, newest first. Unset: not encrypted. Extra `crypto`."),
    ] = ()
    maximum_value_size: Annotated[int, Meta(gt=0, description="Bytes that one key of a session may take, encoded.")] = (
        256 * 1024
    )
    maximum_session_size: Annotated[int, Meta(gt=0, description="Bytes that a session may take.")] = 1024 * 1024
    maximum_sessions: Annotated[
        int | None, Meta(gt=0, description="Sessions that one owner may have at a time. Unset: any number.")
    ] = None
    at_limit: Annotated[
        Literal["oldest_out", "refuse"],
        Meta(description="At the limit, a login ends the owner's oldest session, or raises SessionLimitReached."),
    ] = "oldest_out"
    metadata: Annotated[
        bool, Meta(description="Keep each session's User-Agent and coarse address, for a list of devices.")
    ] = False
    on_outage: Annotated[
        Literal["fail", "read_only"],
        Meta(description="With the store away, a used session answers 503; or it is empty, and only writes fail."),
    ] = "fail"
    breaker_failures: Annotated[
        int, Meta(ge=0, description="Failures in a row after which the store is left alone for a while. 0: never.")
    ] = 5
    breaker_pause: Annotated[Duration, Meta(description="How long; then one request tries it again.")] = Duration("1s")
    lazy: Annotated[
        bool,
        Meta(description="ASGI: do not load before the app runs, but with `await request.session.load()`."),
    ] = False
    exclude: Annotated[
        tuple[Annotated[str, PATH], ...],
        Meta(description="ASGI: paths that begin with one of these are treated as with `lazy`."),
    ] = ()
    transport: Annotated[
        Literal["cookie", "header"], Meta(description="What carries the token: a cookie, or the header named below.")
    ] = "cookie"
    header: Annotated[str, HEADER_NAME, Meta(description="The name of that header.")] = "X-Session"
    migrate_until: Annotated[
        Moment | None,
        Meta(description="Until then, sessions of the framework's own cookie are taken over. Unset: none are."),
    ] = None
    migrate_keys: Annotated[
        tuple[Annotated[Secret, Meta(min_length=1)], ...],
        Meta(description="Keys of Starlette's signed cookies. Unset: `secret_keys`. Flask has its own."),
    ] = ()
    migrate_max_age: Annotated[
        Duration, Meta(gt=0, description="How old a cookie of Starlette's may be: its `max_age`. Flask has its own.")
    ] = Duration("14d")
    migrate_flask_session: Annotated[
        StoreURL | None,
        Meta(description="The Redis in which Flask-Session keeps its records: these are taken over too."),
    ] = None
    cookie: CookieOptions = default(default_factory=CookieOptions)
