"""Flask's session interface over a shared store: `app.session_interface = SessionInterface({"store": "redis://..."})`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from typing import Any, NoReturn, TypeVar

import flask.sessions
from flask import Flask, Request, Response
from werkzeug.exceptions import Conflict, GatewayTimeout, ServiceUnavailable

from . import errors
from . import settings as settings_module
from .arrivals import LATE_BODY
from .context import current
from .flask_responses import answer, cookie_text, forbid_caching, vary_on
from .flask_takeover import OldFlaskSessions, secret_keys
from .session.binding import Binding
from .session.commit import Committed, is_settled, untold
from .session.cookie import HeaderFormat, cookie_values, prefixed
from .session.inbound import Device, Inbound, OldSession
from .session.operations import Steps
from .session.options import CookieOptions, SessionOptions
from .session.policy import Lifetime, Terms
from .session.session import Driver
from .session.store import Store
from .session.token import Token, TokenSigner
from .session.verbs import ThreadSession
from .session.writing import DELETE, REFRESH
from .sessions import LIMIT_BODY, UNAVAILABLE_BODY, Sessions
from .wsgi_context import WsgiRequest, device_of

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


def as_http(error: errors.SessionError) -> Any:
    """What a session raises, as an exception that Flask has an answer for."""
    if isinstance(error, errors.SessionUnavailable) and not isinstance(error, SessionUnavailable):
        return SessionUnavailable(error)
    return SessionLimitReached() if isinstance(error, errors.SessionLimitReached) else error


def too_late(error: errors.DeadlineExceeded) -> Any:
    """The same for an outbound call that the request's deadline has ended."""
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
            raise as_http(error) from error

    async def run_async(self, steps: Steps[T], binding: Binding | None = None) -> T:
        return await self._driver.run_async(steps, binding)


class FlaskSession(ThreadSession, flask.sessions.SessionMixin):  # type: ignore[override]
    """`flask.session`: what is assigned to it lives in the store."""

    @property
    def permanent(self) -> bool:
        """As Flask has it: False until it is set."""
        return bool(self.get("_permanent", False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self["_permanent"] = bool(value)

    def _refuse(self, error: errors.SessionUnavailable) -> NoReturn:
        raise as_http(error) from error


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
        session = FlaskSession.bound(partial(self._opened, app, request), self.sessions.driver)
        state = current.get()
        if isinstance(state, WsgiRequest):
            state.session = session  # outbound calls of this request may hash by it
        return session

    def _opened(self, app: Flask, request: Request) -> Binding:
        return self.sessions.opened(_Inbound(self, app, request), self._terms(app))

    def save_session(self, app: Flask, session: flask.sessions.SessionMixin, response: Response) -> None:
        """Commit, and tell the client. A store that is away turns the response into 503."""
        if not isinstance(session, FlaskSession):
            return
        if session.used:
            if is_settled(session) and not (session.modified or dict.get(session, "_permanent")):
                self._vary(response)  # most requests only read
            elif not self._commit(app, session, response):
                return
        session.seal()
        if type(response.response) is not list and response.is_streamed:
            response.call_on_close(lambda: self.sessions.commit_late(session))
        elif self.last_to_see_responses and not getattr(response, "_on_close", True):
            state = current.get()  # Werkzeug makes a generator of each body: this one has nothing of the app in it
            if isinstance(state, WsgiRequest):
                state.answered = True

    def _vary(self, response: Response) -> None:
        vary_on(response, "Cookie" if self.header is None else self.header.name)

    def _commit(self, app: Flask, session: FlaskSession, response: Response) -> bool:
        try:
            committed = self.sessions.commit(session)
        except errors.SessionUnavailable as error:
            answer(response, 503, UNAVAILABLE_BODY)
            response.headers["Retry-After"] = str(error.retry_after)
            self._tell_saved(app, session, response)
            return False
        except errors.SessionLimitReached:
            answer(response, 409, LIMIT_BODY)
            self._tell_saved(app, session, response)
            return False
        self._vary(response)
        token = self._token_to_send(app, session, committed)
        if token is not None or committed.cookie is DELETE or committed.took_over:
            self._tell_client(app, session, committed, token, response)
        return True

    def _tell_saved(self, app: Flask, session: FlaskSession, response: Response) -> None:
        """What the app has saved before."""
        saved = untold(session)
        if saved is not None:
            self._tell_client(app, session, saved, self._token_to_send(app, session, saved), response)

    def _tell_client(
        self, app: Flask, session: FlaskSession, committed: Committed, token: Token | None, response: Response
    ) -> None:
        attributes, name = self._attributes(app, self.options.cookie), self.get_cookie_name(app)
        if committed.took_over:
            old = super().get_cookie_name(app)
            if self.header is not None or old != name:
                response.delete_cookie(old, **self._attributes(app, CookieOptions()))
        if self.header is not None:
            ends = committed.cookie is DELETE
            if token is not None or ends:
                told = self.header.delete() if token is None else self.header.set(_signer(app).dumps(token))
                response.headers.set(*told)
        elif committed.cookie is DELETE:
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
        refresh = committed.cookie is REFRESH or app.config["SESSION_REFRESH_EACH_REQUEST"]
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
        name: str = app.config["SESSION_COOKIE_NAME"]
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
        return self._terms_of(app.config["PERMANENT_SESSION_LIFETIME"])

    @cached_property
    def _terms_of(self) -> Callable[[timedelta | float], Terms]:
        """By Flask's own lifetime, which may be in seconds."""

        def terms(idle: timedelta | float) -> Terms:
            seconds = idle.total_seconds() if isinstance(idle, timedelta) else idle
            return self.sessions.terms_of(Lifetime.of(self.options, seconds))

        return lru_cache(maxsize=16)(terms)

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
            texts = interface.header.values(request.headers.getlist(interface.header.name))
        else:
            # Not `request.cookies`: Werkzeug parses all of them, and decodes what is in quotes; a token needs neither.
            header = request.environ.get("HTTP_COOKIE")
            texts = cookie_values([header], interface.get_cookie_name(self._app)) if header else []
        return _signer(self._app).choose(texts)

    def old_session(self) -> OldSession | None:
        old = self._interface.old_sessions
        return None if old is None else old.read(self._app, self._request)

    def device(self) -> Device:
        return device_of(self._request.environ)


def _signer(app: Flask) -> TokenSigner:
    return _signer_of(secret_keys(app))


_signer_of = lru_cache(maxsize=16)(TokenSigner)  # a key's derivation costs more than a signature
