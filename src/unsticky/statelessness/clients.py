"""Where test clients hand a request to the app: the two places that the pytest plugin goes between."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

Original = Callable[..., Any]


class Between(Protocol):
    """What is done instead of the plain call. `original` is the client's own."""

    def wsgi(self, original: Original, app: Any, environ: dict[str, Any], buffered: bool) -> Any: ...
    def asgi(self, original: Original, transport: Any, request: Any) -> Any: ...


class Patches:
    """Puts a `Between` into werkzeug's and Starlette's test clients, whichever are installed."""

    def __init__(self, between: Between) -> None:
        self._between = between
        self._undo: list[Callable[[], None]] = []

    def install(self) -> None:
        between = self._between
        try:
            import werkzeug.test as wsgi
        except ImportError:
            pass
        else:
            run = wsgi.run_wsgi_app

            def run_wsgi_app(app: Any, environ: dict[str, Any], buffered: bool = False) -> Any:
                return between.wsgi(run, app, environ, buffered)

            self._put(wsgi, "run_wsgi_app", run_wsgi_app)
        try:
            import starlette.testclient as asgi
        except (ImportError, RuntimeError):  # without its own dependencies
            return
        handle = asgi._TestClientTransport.handle_request

        def handle_request(transport: Any, request: Any) -> Any:
            return between.asgi(handle, transport, request)

        self._put(asgi._TestClientTransport, "handle_request", handle_request)

    def uninstall(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def _put(self, owner: Any, name: str, value: Any) -> None:
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, before))


def keeps_its_context(environ: dict[str, Any]) -> bool:
    """Whether Flask's client is in `with client:`, so that the test looks at the request's own objects afterwards."""
    return "werkzeug.debug.preserve_context" in environ


def lives_on(transport: Any) -> bool:
    """Whether Starlette's client is in `with client:`: its app's lifespan runs in a thread, which no fork has."""
    owner = getattr(transport.portal_factory, "__self__", None)
    return getattr(owner, "portal", None) is not None


def is_websocket(request: Any) -> bool:
    return request.url.scheme in ("ws", "wss")


def response_like(request: Any, status: int, headers: list[tuple[str, str]], body: bytes) -> Any:
    """A response of the library that the request is of: httpx, or httpx2."""
    library = sys.modules[type(request).__module__.partition(".")[0]]
    return library.Response(status, headers=headers, content=body, request=request)
