"""Flask: `Unsticky(app)` takes the session out of the process and gives the app a client over its pools.

from unsticky.flask import Unsticky

unsticky = Unsticky(app)
session["cart"] = [...]                      # flask.session, unchanged
unsticky.client.get("http://catalog/items")  # "catalog" is a pool of unsticky.toml
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import flask.sessions
from flask import Flask, Request, Response, current_app
from werkzeug.exceptions import Conflict, GatewayTimeout, ServiceUnavailable

from . import errors, wsgi
from . import settings as settings_module
from .arrivals import LATE_BODY, Arrivals
from .context import Deadline, current, current_deadline
from .flask_responses import answer, cookie_text, forbid_caching, vary_on
from .flask_takeover import OldFlaskSessions, secret_keys
from .load import Meter
from .pools import Pools
from .reporting import ReportingApp
from .session.binding import Binding
from .session.commit import Committed, Cookie
from .session.cookie import HeaderFormat, cookie_values, prefixed
from .session.inbound import Device, Inbound, OldSession
from .session.operations import Steps
from .session.options import CookieOptions, SessionOptions
from .session.policy import Lifetime, Terms
from .session.session import Driver
from .session.store import Store
from .session.token import Token, TokenSigner
from .session.verbs import ThreadSession
from .sessions import LIMIT_BODY, UNAVAILABLE_BODY, Sessions
from .settings import Settings, Source

T = TypeVar("T")


class SessionUnavailable(errors.SessionUnavailable, ServiceUnavailable):  # type: ignore[misc]
    """The session's store is away. Flask answers it with 503 and Retry-After."""

    def __init__(self, cause: errors.SessionUnavailable) -> None:
        ServiceUnavailable.__init__(self, description=str(cause), retry_after=cause.retry_after)
        self.retry_after = cause.retry_after


class SessionLimitReached(errors.SessionLimitReached, Conflict):
    """The user has as many sessions as are allowed. Flask answers it with 409."""

    def __init__(self) -> None:
        Conflict.__init__(self, description=LIMIT_BODY.decode().strip())


def _as_http(error: errors.SessionError) -> Any:
    """What a session raises, as an exception that Flask has an answer for."""
    if isinstance(error, errors.SessionUnavailable) and not isinstance(error, SessionUnavailable):
        return SessionUnavailable(error)
    return SessionLimitReached() if isinstance(error, errors.SessionLimitReached) else error


def _too_late(error: errors.DeadlineExceeded) -> Any:
    return GatewayTimeout(description=LATE_BODY.decode().strip())


class _HttpDriver:
    """For `save()`, `reload()` and transactions."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def run(self, steps: Steps[T]) -> T:
        try:
            return self._driver.run(steps)
        except errors.SessionError as error:
            raise _as_http(error) from error

    async def run_async(self, steps: Steps[T]) -> T:
        return await self._driver.run_async(steps)


class FlaskSession(ThreadSession, flask.sessions.SessionMixin):  # type: ignore[override]
    """`flask.session`: what is assigned to it lives in the store."""

    @property
    def permanent(self) -> bool:
        """As Flask has it: False until it is set."""
        return bool(self.get("_permanent", False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self["_permanent"] = bool(value)

    def mark_accessed(self) -> None:
        try:
            super().mark_accessed()
        except errors.SessionUnavailable as error:
            raise _as_http(error) from error

    def _refuse_in_outage(self, binding: Binding) -> None:
        try:
            super()._refuse_in_outage(binding)
        except errors.SessionUnavailable as error:
            raise _as_http(error) from error


class SessionInterface(flask.sessions.SessionInterface):
    """Flask's session interface over a shared store; usable without the rest of unsticky.

    app.session_interface = SessionInterface({"store": "redis://localhost"})

    Lifetimes, cookie attributes and secret keys are the app's own Flask configuration, unless the settings name them.
    """

    session_class = FlaskSession
    last_to_see_responses = False  # or may a middleware between Flask and us put something of its own into their place?

    def __init__(
        self, options: SessionOptions | Mapping[str, Any] | None = None, *, store: Store | None = None
    ) -> None:
        """`options`: the `[session]` table as a mapping, or SessionOptions. Raises SettingsError if they are wrong.

        `store`: an object of your own, instead of the options' URL.
        """
        if not isinstance(options, SessionOptions):
            options = settings_module.load({"session": dict(options or {})}).session
        self.options = options
        self.sessions = Sessions(options, store=store)
        self.sessions.driver = _HttpDriver(self.sessions.access)
        self.header = HeaderFormat(options.header) if options.transport == "header" else None
        self.old_sessions = OldFlaskSessions.of(options)

    def open_session(self, app: Flask, request: Request) -> FlaskSession | None:
        """No store is asked yet. None without a secret key, as Flask has it."""
        if not app.config["SECRET_KEY"]:
            return None
        session = self.sessions.bind(_Inbound(self, app, request), FlaskSession, terms=lambda: self._terms(app))
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
        elif self.last_to_see_responses and not getattr(response, "_on_close", True):
            state = current.get()  # Werkzeug makes a generator of each body: this one has nothing of the app in it
            if isinstance(state, wsgi.WsgiRequest):
                state.answered = True

    def _commit(self, app: Flask, session: FlaskSession, response: Response) -> bool:
        try:
            committed = self.sessions.commit(session)
        except errors.SessionUnavailable as error:
            answer(response, 503, UNAVAILABLE_BODY)
            response.headers["Retry-After"] = str(error.retry_after)
            return False
        except errors.SessionLimitReached:
            answer(response, 409, LIMIT_BODY)
            return False
        vary_on(response, "Cookie" if self.header is None else self.header.name)
        token = self._token_to_send(app, session, committed)
        if token is not None or committed.cookie is Cookie.DELETE or committed.took_over:
            self._tell_client(app, session, committed, token, response)
        return True

    def _tell_client(
        self, app: Flask, session: FlaskSession, committed: Committed, token: Token | None, response: Response
    ) -> None:
        attributes, name = self._attributes(app, self.options.cookie), self.get_cookie_name(app)
        if committed.took_over:
            old = super().get_cookie_name(app)
            if self.header is not None or old != name:
                response.delete_cookie(old, **self._attributes(app, CookieOptions()))
        if self.header is not None:
            ends = committed.cookie is Cookie.DELETE
            if token is not None or ends:
                told = self.header.delete() if token is None else self.header.set(_signer(app).dumps(token))
                response.headers.set(*told)
        elif committed.cookie is Cookie.DELETE:
            response.delete_cookie(name, **attributes)
        elif token is not None:
            expires = self.get_expiration_time(app, session)
            response.headers.add("Set-Cookie", cookie_text(name, _signer(app).dumps(token), expires, attributes))
        forbid_caching(response)

    def _token_to_send(self, app: Flask, session: FlaskSession, committed: Committed) -> Token | None:
        if isinstance(committed.cookie, Token):
            return committed.cookie
        if self.header is not None:
            return None
        if committed.token is None or session.modified:
            return committed.token  # as Flask does: an assignment may have made the session permanent, or no longer
        if not session.permanent:
            return None
        refresh = committed.cookie is Cookie.REFRESH or app.config["SESSION_REFRESH_EACH_REQUEST"]
        return committed.token if refresh else None

    def _attributes(self, app: Flask, cookie: CookieOptions) -> dict[str, Any]:
        """What `cookie` names, and Flask's configuration for the rest."""
        return {
            "domain": self.get_cookie_domain(app) if cookie.domain is None else cookie.domain,
            "path": self.get_cookie_path(app) if cookie.path is None else cookie.path,
            "secure": self.get_cookie_secure(app) if cookie.secure is None else cookie.secure,
            "httponly": self.get_cookie_httponly(app) if cookie.http_only is None else cookie.http_only,
            "samesite": self.get_cookie_samesite(app) if cookie.same_site is None else cookie.same_site.capitalize(),
            "partitioned": self.get_cookie_partitioned(app) if cookie.partitioned is None else cookie.partitioned,
        }

    def get_cookie_name(self, app: Flask) -> str:
        """The settings' name, else SESSION_COOKIE_NAME; Flask's default name is prefixed with `__Host-` over https."""
        if self.options.cookie.name is not None:
            return self.options.cookie.name
        name: str = super().get_cookie_name(app)
        secure = self.options.cookie.secure
        if not (app.config["SESSION_COOKIE_SECURE"] if secure is None else secure):
            return name
        if name != app.default_config["SESSION_COOKIE_NAME"]:
            return name
        of_app = self._attributes(app, self.options.cookie)
        return prefixed(name, of_app["secure"], of_app["path"], of_app["domain"])

    def _terms(self, app: Flask) -> Terms:
        if self.options.idle_timeout is not None:
            return self.sessions.terms
        return self._terms_of(app.permanent_session_lifetime.total_seconds())

    @cached_property
    def _terms_of(self) -> Callable[[float], Terms]:
        return lru_cache(maxsize=16)(lambda idle: self.sessions.terms_of(Lifetime.of(self.options, idle)))

    def close(self) -> None:
        """Give the connections back, those to Flask-Session's records too. A later use opens them again."""
        self.sessions.close()
        if self.old_sessions is not None:
            self.old_sessions.close()


class _Inbound(Inbound):
    """What the session asks of the request."""

    __slots__ = ("_app", "_interface", "_request")

    def __init__(self, interface: SessionInterface, app: Flask, request: Request) -> None:
        self._interface = interface
        self._app = app
        self._request = request

    def token(self) -> Token | None:
        interface, request = self._interface, self._request
        if interface.header is not None:
            texts = interface.header.read(request.headers.getlist)
        else:
            # Not `request.cookies`: Werkzeug parses all of them, and decodes what is in quotes; a token needs neither.
            header = request.environ.get("HTTP_COOKIE")
            texts = cookie_values([header], interface.get_cookie_name(self._app)) if header else []
        return _signer(self._app).choose(texts)

    def old_session(self) -> OldSession | None:
        old = self._interface.old_sessions
        return None if old is None else old.read(self._app, self._request)

    def device(self) -> Device:
        return wsgi.device_of(self._request.environ)


def _signer(app: Flask) -> TokenSigner:
    return _signer_of(secret_keys(app))


_signer_of = lru_cache(maxsize=16)(TokenSigner)  # a key's derivation costs more than a signature


class AppState:
    """What one app has of unsticky: `app.extensions["unsticky"]`."""

    def __init__(self, settings: Settings, interface: SessionInterface) -> None:
        self.settings = settings
        self.sessions = interface.sessions
        self._interface = interface
        self.pools = Pools(settings)
        self.load = Meter(settings.load_report)  # `load.say("named_metrics.queue", 3)`

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
        self._interface.close()


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
        app.register_error_handler(errors.SessionUnavailable, _as_http)  # of `unsticky.sessions.list`, say
        app.register_error_handler(errors.DeadlineExceeded, _too_late)
        interface.last_to_see_responses = "wsgi_app" not in vars(app)
        if loaded.statelessness.guard != "off":
            from .statelessness.guard import hosts  # not for those who do without

            hosts.guard_flask(app, hosts.guard_of(loaded))
        inner = wsgi.InContext(app.wsgi_app, Arrivals(loaded.inbound))
        app.wsgi_app = ReportingApp(inner, state.load) if state.load.on else inner  # type: ignore[method-assign]
        app.extensions["unsticky"] = state
        wsgi.close_at_exit(state)
        self._only = weakref.ref(app)

    @property
    def client(self) -> Any:
        """The client over the pools: an httpx.Client, or httpx2.Client where the settings say so."""
        return self.state.client

    @property
    def deadline(self) -> Deadline:
        """When the client of the current request gives up: `.remaining()` seconds are left; None: there is none."""
        return current_deadline()

    @property
    def pools(self) -> Pools:
        """The app's pools."""
        return self.state.pools

    @property
    def load(self) -> Meter:
        """What this process reports of its load: `.say("application_utilization", 0.4)`."""
        return self.state.load

    @property
    def sessions(self) -> Sessions:
        """The app's sessions: `.list(user.id)`, `.revoke(id)`, `.revoke_all(user.id, keep=session)`."""
        return self.state.sessions

    @property
    def state(self) -> AppState:
        """The current app's; outside of an app context, that of the app that was set up last."""
        app = current_app or (self._only and self._only())
        if not app:
            raise RuntimeError("No app has been set up: call unsticky.init_app(app) first.")
        state: AppState = app.extensions["unsticky"]
        return state
