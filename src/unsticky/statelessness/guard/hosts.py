"""The guard around an app: inside of what gives each request a Context of its own. Made only where it is on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...clock import SystemClock
from ...context import current
from ...settings import Settings
from ...wsgi_body import BodyOf, close, is_ready
from . import audit
from .audit import Record
from .watch import Guard

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

NO_ROUTE = "(no route)"


def guard_of(settings: Settings) -> Guard:
    """As the settings say, which have it on."""
    store = settings.session.store
    own = [store.removeprefix("sqlite:///").partition("?")[0]] if store.startswith("sqlite:///") else []
    return Guard(settings.statelessness, SystemClock(), own)


class GuardedWsgi:
    """A WSGI app under a guard."""

    def __init__(self, app: WSGIApplication, guard: Guard, known_as: Any = None) -> None:
        """`known_as`: the app object, if `app` is only its way in."""
        self._app = app
        self._guard = guard
        self._known_as = app if known_as is None else known_as

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        guard = self._guard
        if not guard.is_known:
            guard.know(self._known_as)
        record = guard.begin()
        record.naming = partial(_of_environ, environ)
        before = audit.current.get()
        audit.current.set(record)
        try:
            body = self._app(environ, start_response)
        except BaseException:
            guard.over(record)
            raise
        finally:
            audit.current.set(before)
        if getattr(current.get(), "answered", False) or is_ready(body, environ):
            guard.over(record)
            return body
        return _Body(body, guard, record)


class _Body(BodyOf):
    """The guarded request is over with it."""

    __slots__ = ("_guard",)

    def __init__(self, body: Iterable[bytes], guard: Guard, record: Record) -> None:
        super().__init__(body, audit.current, record)
        self._guard = guard

    def close(self) -> None:
        try:
            self._run(close, self._body)
        finally:
            self._guard.over(self._seen)


def _of_environ(environ: WSGIEnvironment) -> str:
    """WSGI knows no routes; an app may say which one it took. A path would have users' data in it."""
    named = environ.get("unsticky.endpoint")
    return f"{environ['REQUEST_METHOD']} {named}" if named else str(environ["REQUEST_METHOD"])


def guard_flask(app: Any, guard: Guard) -> None:
    """Flask knows the endpoint before the view runs, and its span is open until the response is made."""

    from flask.globals import request

    def name_endpoint() -> None:
        record = audit.current.get()
        if record is not None:
            record.naming = partial(_of_flask, request._get_current_object())  # type: ignore[attr-defined]

    def leave(response: Any) -> Any:
        record = audit.current.get()
        if record is not None:
            guard.leave(record)
        return response

    app.before_request_funcs.setdefault(None, []).insert(0, name_endpoint)
    app.after_request_funcs.setdefault(None, []).insert(0, leave)
    app.wsgi_app = GuardedWsgi(app.wsgi_app, guard, app)


def _of_flask(request: Any) -> str:
    rule = request.url_rule
    return f"{request.method} {NO_ROUTE if rule is None else rule.rule}"


class GuardedAsgi:
    """An ASGI app under a guard."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self.app = app
        self._guard = guard

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        guard = self._guard
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not guard.is_known:
            guard.know(scope.get("app", self.app))
        record = guard.begin()
        record.naming = partial(endpoint_of, scope)
        before = audit.current.get()
        audit.current.set(record)

        async def sent(message: Any) -> None:
            # With the body's end the framework's span ends. What a background task does is seen when it is over.
            if message["type"] == "http.response.body" and not message.get("more_body") and guard.has_seen(record):
                guard.leave(record, files=False)
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            guard.over(record)
            audit.current.set(before)  # what runs around this app is none of its own


def endpoint_of(scope: Any) -> str:
    """Method and route, once the router has been there; else what it calls. Of a mount's path `*` is left."""
    route = getattr(scope.get("route"), "path", None)
    if route is not None and scope.get("root_path", "") != scope.get("app_root_path", ""):
        route = f"*{route}"
    if route is None and (endpoint := scope.get("endpoint")) is not None:
        route = f"{getattr(endpoint, '__module__', '')}.{getattr(endpoint, '__qualname__', type(endpoint).__name__)}"
    return f"{scope['method']} {route or NO_ROUTE}"
