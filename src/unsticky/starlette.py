"""Starlette, FastAPI and any ASGI app: sessions in a shared store, and a client over the pools.

    from unsticky.starlette import UnstickyMiddleware

    app = Starlette(routes=..., middleware=[Middleware(UnstickyMiddleware, settings="unsticky.toml")])
    request.session["cart"] = [...]                                      # unchanged
    await request.state.unsticky.client.get("http://catalog/items")      # "catalog" is a pool of unsticky.toml

Those who want the session alone change one import: `SessionMiddleware` takes Starlette's own arguments.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from starlette.datastructures import Secret
from starlette.types import ASGIApp, Receive, Scope, Send

from . import reporting
from . import settings as settings_module
from .arrivals import Arrivals
from .asgi import WithSession
from .context import Deadline, current_deadline
from .load import Meter
from .pools import Pools
from .scalars import Moment, StoreURL
from .scalars import Secret as HiddenText
from .session.cookie import CookieFormat, carrier
from .session.options import SessionOptions
from .session.store import AsyncStore
from .session.verbs import LoopSession as Session
from .sessions import Sessions
from .settings import Settings, Source

__all__ = ["Session", "SessionMiddleware", "UnstickyMiddleware"]

TWO_WEEKS = 14 * 24 * 60 * 60  # seconds


class SessionMiddleware(WithSession):
    """Starlette's session middleware over a shared store: the same arguments, and `store`.

    `secret_key` may be None: the token is 256 random bits, and its signature only spares the store forged ones.
    `store`: a URL, or a store object of your own. With `migrate_until`, a date, sessions of Starlette's own cookie
    are taken over until then.
    """

    def __init__(
        self,
        app: ASGIApp,
        secret_key: str | Secret | None = None,
        session_cookie: str = "session",
        max_age: int | None = TWO_WEEKS,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool = False,
        domain: str | None = None,
        partitioned: bool = False,
        *,
        store: str | AsyncStore = "sqlite:///sessions.db",
        migrate_until: str | None = None,
    ) -> None:
        options = SessionOptions(
            store=StoreURL(store if isinstance(store, str) else "memory://"),
            secret_keys=() if secret_key is None else (HiddenText(secret_key),),
            migrate_until=None if migrate_until is None else Moment(migrate_until),
        )
        own = None if isinstance(store, str) else store
        sessions = Sessions(options, async_store=own, framework_idle=max_age)
        form = CookieFormat(
            name=session_cookie,
            path=path,
            domain=domain,
            secure=https_only,
            same_site=same_site,
            partitioned=partitioned,
            max_age=max_age,
            lasting_age=TWO_WEEKS,
        )
        super().__init__(app, sessions, form, old_age=max_age)


class UnstickyMiddleware(WithSession):
    """Sessions and routed outbound calls: `request.session`, `request.state.unsticky.client`.

    `settings`: a path, a mapping with the file's shape, or Settings. None: the file that the environment variable
    UNSTICKY_SETTINGS names, then ./unsticky.toml, then the defaults. Raises SettingsError if they are wrong.
    """

    def __init__(self, app: ASGIApp, settings: Source | None = None) -> None:
        loaded = settings_module.load(settings)
        if loaded.statelessness.guard != "off":
            from .statelessness.guard import hosts  # not for those who do without

            app = hosts.GuardedAsgi(app, hosts.guard_of(loaded))
        sessions = Sessions(loaded.session)
        lifetime = sessions.terms.lifetime
        arrivals = Arrivals(loaded.inbound, pools=bool(loaded.pools))
        form, state = carrier(loaded.session, lifetime), AppState(loaded, sessions)
        super().__init__(app, sessions, form, state, arrivals, old_age=loaded.session.migrate_max_age)
        self._load = state.load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._load.on and scope["type"] == "http":
            await reporting.run(self._load, super().__call__, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class AppState:
    """What one app has of unsticky: `request.state.unsticky`."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings = settings
        self.sessions = sessions  # to list and revoke: `await request.state.unsticky.sessions.list_async(user)`
        self.pools = Pools(settings)
        self.load = Meter(settings.load_report)  # `load.say("named_metrics.queue", 3)`

    @cached_property
    def client(self) -> Any:
        """The client over the pools: an httpx.AsyncClient, or httpx2.AsyncClient where the settings say so."""
        return self.pools.async_client()

    @property
    def deadline(self) -> Deadline:
        """When the client of the current request gives up: `.remaining()` seconds are left; None: there is none."""
        return current_deadline()

    async def aclose(self) -> None:
        """Close the client and the pools."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            await client.aclose()
        self.pools.close()
