"""Flask: `Unsticky(app)` takes the session out of the process and gives the app a client over its pools.

from unsticky.flask import Unsticky

unsticky = Unsticky(app)
session["cart"] = [...]                      # flask.session, unchanged
unsticky.client.get("http://catalog/items")  # "catalog" is a pool of unsticky.toml
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import flask.sessions
from flask import Flask, Request, Response, current_app
from werkzeug.exceptions import ServiceUnavailable

from . import errors, wsgi
from . import settings as settings_module
from .pools import Pools
from .session.commit import Committed, Cookie
from .session.cookie import uncached
from .session.options import SessionOptions
from .session.policy import Lifetime
from .session.session import Session
from .session.token import Token, TokenSigner
from .sessions import UNAVAILABLE_BODY, Sessions
from .settings import Settings, Source


class SessionUnavailable(errors.SessionUnavailable, ServiceUnavailable):  # type: ignore[misc]
    """The session's store is away. Flask answers it with 503 and Retry-After."""

    def __init__(self, cause: errors.SessionUnavailable) -> None:
        ServiceUnavailable.__init__(self, description=str(cause), retry_after=cause.retry_after)
        self.retry_after = cause.retry_after


class FlaskSession(Session, flask.sessions.SessionMixin):  # type: ignore[override]
    """`flask.session`: what is assigned to it lives in the store."""

    def mark_accessed(self) -> None:
        try:
            super().mark_accessed()
        except errors.SessionUnavailable as error:
            raise SessionUnavailable(error) from error


class SessionInterface(flask.sessions.SessionInterface):
    """Flask's session interface over a shared store; usable without the rest of unsticky.

    app.session_interface = SessionInterface({"store": "redis://localhost"})

    Lifetimes, cookie attributes and secret keys are the app's own Flask configuration, unless the settings name them.
    """

    session_class = FlaskSession

    def __init__(self, options: SessionOptions | Mapping[str, Any] | None = None) -> None:
        """`options`: the `[session]` table as a mapping, or SessionOptions. Raises SettingsError if they are wrong."""
        if not isinstance(options, SessionOptions):
            options = settings_module.load({"session": dict(options or {})}).session
        self.options = options
        self.sessions = Sessions(options)

    def open_session(self, app: Flask, request: Request) -> FlaskSession | None:
        """No store is asked yet. None without a secret key, as Flask has it."""
        if not app.secret_key:
            return None

        def presented() -> Token | None:
            return _signer(app).choose(request.cookies.getlist(self.get_cookie_name(app)))

        session = self.sessions.bind(presented, FlaskSession, lifetime=self._lifetime(app))
        wsgi.tell_session_key(session)
        return session

    def save_session(self, app: Flask, session: flask.sessions.SessionMixin, response: Response) -> None:
        """Commit, and tell the client. A store that is away turns the response into 503."""
        if not isinstance(session, FlaskSession):
            return
        if session.accessed and not self._commit(app, session, response):
            return
        session.seal()
        if response.is_streamed:
            response.call_on_close(lambda: self.sessions.commit_late(session))

    def _commit(self, app: Flask, session: FlaskSession, response: Response) -> bool:
        try:
            committed = self.sessions.commit(session)
        except errors.SessionUnavailable as error:
            _answer_unavailable(response, error)
            return False
        response.vary.add("Cookie")
        self._tell_client(app, session, committed, response)
        return True

    def _tell_client(self, app: Flask, session: FlaskSession, committed: Committed, response: Response) -> None:
        attributes = self._attributes(app)
        name = self.get_cookie_name(app)
        token = self._token_to_send(app, session, committed)
        if committed.cookie is Cookie.DELETE:
            response.delete_cookie(name, **attributes)
        elif token is not None:
            expires = self.get_expiration_time(app, session)
            response.set_cookie(name, _signer(app).dumps(token), expires=expires, **attributes)
        else:
            return
        response.headers["Cache-Control"] = uncached(response.headers.get("Cache-Control"))

    def _token_to_send(self, app: Flask, session: FlaskSession, committed: Committed) -> Token | None:
        if isinstance(committed.cookie, Token):
            return committed.cookie
        if committed.token is None or session.modified:
            return committed.token  # as Flask does: an assignment may have made the session permanent, or no longer
        refresh = committed.cookie is Cookie.REFRESH or app.config["SESSION_REFRESH_EACH_REQUEST"]
        return committed.token if session.permanent and refresh else None

    def _attributes(self, app: Flask) -> dict[str, Any]:
        cookie = self.options.cookie
        return {
            "domain": self.get_cookie_domain(app) if cookie.domain is None else cookie.domain,
            "path": self.get_cookie_path(app) if cookie.path is None else cookie.path,
            "secure": self.get_cookie_secure(app) if cookie.secure is None else cookie.secure,
            "httponly": self.get_cookie_httponly(app) if cookie.http_only is None else cookie.http_only,
            "samesite": self.get_cookie_samesite(app) if cookie.same_site is None else cookie.same_site.capitalize(),
            "partitioned": self.get_cookie_partitioned(app) if cookie.partitioned is None else cookie.partitioned,
        }

    def get_cookie_name(self, app: Flask) -> str:
        """The settings' name, else SESSION_COOKIE_NAME."""
        return self.options.cookie.name or super().get_cookie_name(app)

    def _lifetime(self, app: Flask) -> Lifetime:
        if self.options.idle_timeout is not None:
            return self.sessions.lifetime
        return _lifetime(self.options, app.permanent_session_lifetime.total_seconds())


_lifetime = lru_cache(maxsize=16)(Lifetime.of)


def _signer(app: Flask) -> TokenSigner:
    keys = [app.secret_key, *(app.config.get("SECRET_KEY_FALLBACKS") or ())]
    return _signer_of(tuple(keys))


_signer_of = lru_cache(maxsize=16)(TokenSigner)  # a key's derivation costs more than a signature


def _answer_unavailable(response: Response, error: errors.SessionUnavailable) -> None:
    """Turn `response` into 503 in place: after the view and its hooks, no other response can take its place."""
    close = getattr(response.response, "close", None)
    if close is not None:
        close()
    response.direct_passthrough = False
    response.headers.clear()
    response.status_code = 503
    response.mimetype = "text/plain"
    response.set_data(UNAVAILABLE_BODY)
    response.headers["Retry-After"] = str(error.retry_after)
    response.headers["Cache-Control"] = "no-store"


class AppState:
    """What one app has of unsticky: `app.extensions["unsticky"]`."""

    def __init__(self, settings: Settings, interface: SessionInterface) -> None:
        self.settings = settings
        self.sessions = interface.sessions
        self.pools = Pools(settings)

    @cached_property
    def client(self) -> Any:
        """The client over the pools: an httpx.Client, or httpx2.Client where the settings say so."""
        return self.pools.client()

    def close(self) -> None:
        """Close the client, the pools and the store. They open again when they are used."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()
        self.pools.close()
        self.sessions.close()


class Unsticky:
    """The Flask extension.

    `settings`: a path, a mapping with the file's shape, or Settings. None: `app.config["UNSTICKY"]`, then the file
    that the environment variable UNSTICKY_SETTINGS names, then ./unsticky.toml, then the defaults.
    """

    def __init__(self, app: Flask | None = None, settings: Source | None = None) -> None:
        self._settings = settings
        self._only: weakref.ref[Flask] | None = None
        if app is not None:
            self.init_app(app, settings)

    def init_app(self, app: Flask, settings: Source | None = None) -> None:
        """Set `app` up. Raises SettingsError, with every problem in it, if the settings are wrong."""
        if "unsticky" in app.extensions:
            raise RuntimeError("This app has been set up with unsticky before; call Unsticky(app) once.")
        source = next((s for s in (settings, self._settings, app.config.get("UNSTICKY")) if s is not None), None)
        loaded = settings_module.load(source)
        interface = SessionInterface(loaded.session)
        state = AppState(loaded, interface)
        app.session_interface = interface
        app.wsgi_app = wsgi.InContext(app.wsgi_app)  # type: ignore[method-assign]
        app.extensions["unsticky"] = state
        atexit.register(_close, weakref.ref(state))
        self._only = weakref.ref(app)

    @property
    def client(self) -> Any:
        """The client over the pools: an httpx.Client, or httpx2.Client where the settings say so."""
        return self.state.client

    @property
    def pools(self) -> Pools:
        """The app's pools."""
        return self.state.pools

    @property
    def state(self) -> AppState:
        """The current app's; outside of an app context, that of the app that was set up last."""
        app = current_app or (self._only and self._only())
        if not app:
            raise RuntimeError("No app has been set up: call unsticky.init_app(app) first.")
        state: AppState = app.extensions["unsticky"]
        return state


def _close(state: weakref.ref[AppState]) -> None:
    alive = state()
    if alive is not None:
        alive.close()
