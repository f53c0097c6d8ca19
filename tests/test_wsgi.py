"""Any WSGI app: session and client in environ, one Context per request."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from support.counting import CountingStore
from unsticky.context import current
from unsticky.errors import DeadlineExceeded, SessionLimitReached, SessionUnavailable
from unsticky.wsgi import UnstickyMiddleware


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    session = environ["unsticky.session"]
    path = environ["PATH_INFO"]
    if path == "/write":
        session["n"] = session.get("n", 0) + 1
    if path == "/clear":
        session.clear()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/state":
        return _states()
    if path == "/stream":
        return _stream(session)
    if path == "/file":
        return environ["wsgi.file_wrapper"](BytesIO(b"file"))
    return [str(session.get("n")).encode() if path != "/plain" else b"plain"]


def _stream(session: Any) -> Iterator[bytes]:
    yield b"streamed"
    session["n"] = 100


def _states() -> Iterator[bytes]:
    for _ in range(2):
        state = current.get()
        assert state is not None
        yield f"{state.cookies['who']} {state.header('x-tenant')} {state.header('X-None')};".encode()


class Client:
    """One browser with one cookie."""

    def __init__(self, app: Any) -> None:
        self.app = validator(app)
        self.cookie = ""

    def get(self, path: str, **environ: str) -> tuple[str, dict[str, str], bytes]:
        request: dict[str, Any] = {
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "HTTP_COOKIE": self.cookie,
            **environ,
        }
        setup_testing_defaults(request)
        request["wsgi.file_wrapper"] = FileWrapper
        answer: list[Any] = []

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            answer[:] = [status, dict(headers)]
            return print

        body = self.app(request, start)
        try:
            data = b"".join(body)
        finally:
            body.close()
        status, headers = answer
        if "Set-Cookie" in headers:
            self.cookie = headers["Set-Cookie"].split(";")[0]
        return status, headers, data


@pytest.fixture
def app(tmp_path: Path) -> Iterator[UnstickyMiddleware]:
    app = UnstickyMiddleware(application, settings={"session": {"store": f"sqlite:///{tmp_path}/s.db"}})
    yield app
    app.close()


def test_session(app: UnstickyMiddleware) -> None:
    """Written, read, ended."""
    client = Client(app)
    assert client.get("/write")[2] == b"1"
    status, headers, body = client.get("/write")
    assert (status, body, headers["Vary"], headers["Cache-Control"]) == ("200 OK", b"2", "Cookie", "no-store")
    assert "expires=Thu, 01 Jan 1970" in client.get("/clear")[1]["Set-Cookie"]
    assert client.get("/read")[2] == b"None"


def test_a_streamed_body_still_writes(app: UnstickyMiddleware) -> None:
    """Committed when the server closes the body."""
    client = Client(app)
    client.get("/write")
    assert client.get("/stream")[2] == b"streamed"
    assert client.get("/read")[2] == b"100"


def test_an_untouched_session_costs_nothing(app: UnstickyMiddleware) -> None:
    """No store call, no header."""
    client = Client(app)
    client.get("/write")
    app.sessions.access.store = store = CountingStore(app.sessions.access.store)  # type: ignore[assignment]
    assert client.get("/plain")[1] == {"Content-Type": "text/plain"}
    assert store.calls == []


def test_an_outage_is_503(app: UnstickyMiddleware) -> None:
    """At the load, and at the commit."""
    client = Client(app)
    client.get("/write")
    app.sessions.access.store = store = CountingStore(app.sessions.access.store)  # type: ignore[assignment]
    store.away = True
    fresh = Client(app)
    for status, headers, body in (client.get("/write"), fresh.get("/write")):
        assert status == "503 Service Unavailable"
        assert headers["Retry-After"] == "5"
        assert "Set-Cookie" not in headers
        assert b"not available" in body
    assert client.get("/plain")[0] == "200 OK"


def test_request_state_lasts_for_the_body_and_no_longer(app: UnstickyMiddleware) -> None:
    """A generator's every step sees its own request; the server's thread sees none."""
    client = Client(app)
    client.cookie = "who=ann"
    assert client.get("/state", HTTP_X_TENANT="t1")[2] == b"ann t1 None;ann t1 None;"
    assert current.get() is None


def test_file_wrappers_reach_the_server(app: UnstickyMiddleware) -> None:
    """A server that sends files by itself must recognise its own wrapper."""
    request: dict[str, Any] = {"PATH_INFO": "/file"}
    setup_testing_defaults(request)
    request["wsgi.file_wrapper"] = FileWrapper
    assert isinstance(app(request, lambda *_: print), FileWrapper)


def serve(tmp_path: Path, app: Any) -> tuple[UnstickyMiddleware, Client]:
    made = UnstickyMiddleware(app, settings={"session": {"store": f"sqlite:///{tmp_path}/own.db"}})
    return made, Client(made)


@pytest.mark.parametrize("moment", ["load", "commit"])
def test_an_outage_inside_of_a_generator_app_is_503(tmp_path: Path, moment: str) -> None:
    """With its own body and length, and nothing of the app's."""

    def generator(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if moment == "load":
            environ["unsticky.session"].get("a")
        environ["unsticky.session"]["a"] = 1
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
        yield b"SECRET"

    app, client = serve(tmp_path, generator)
    assert client.get("/")[2] == b"SECRET"
    app.sessions.access.store = store = CountingStore(app.sessions.access.store)  # type: ignore[assignment]
    store.away = True
    if moment == "commit":
        client.cookie = ""
    status, headers, body = client.get("/")
    assert status == "503 Service Unavailable"
    assert b"SECRET" not in body
    assert int(headers["Content-Length"]) == len(body)
    app.close()


def test_an_error_page_keeps_the_cookie(tmp_path: Path) -> None:
    """The app may start its response again with exc_info: what was committed is told all the same."""

    def fails_late(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["unsticky.session"]["a"] = 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    app, client = serve(tmp_path, fails_late)
    assert "Set-Cookie" in client.get("/")[1]
    app.close()


def test_changes_after_start_response_are_written(tmp_path: Path) -> None:
    """Also with a body that is a list."""

    def late(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = environ["unsticky.session"]
        seen = repr(dict(session)).encode()
        if not session:
            session["a"] = 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        session.clear() if environ["PATH_INFO"] == "/logout" else session.update(late=1)
        return [seen]

    app, client = serve(tmp_path, late)
    client.get("/")
    assert client.get("/logout")[2] == b"{'a': 1, 'late': 1}"
    assert client.get("/")[2] == b"{}"
    app.close()


@pytest.mark.parametrize("value", [1, object()])
def test_a_logout_counts_even_if_the_app_fails_afterwards(
    tmp_path: Path, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the headers are given, whatever else can't be kept."""

    def failing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = environ["unsticky.session"]
        if environ["PATH_INFO"] == "/write":
            session["a"] = 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/fail":
            session.clear() if value == 1 else session.update(b=value)
            raise RuntimeError("in the middle")
        return [repr(dict(session)).encode()]

    app, client = serve(tmp_path, failing)
    client.get("/write")
    with pytest.raises(RuntimeError):
        client.get("/fail")
    assert client.get("/")[2] == (b"{}" if value == 1 else b"{'a': 1}")
    assert ("is lost: session['b']" in caplog.text) == (value != 1)
    app.close()


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("late", pool="catalog"), SessionUnavailable(), SessionLimitReached()]
)
@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_of_ours_keeps_the_cookie(tmp_path: Path, error: Exception, streams: bool) -> None:
    """It was given out with the headers, and the session is in the store: as in an app's own error page."""

    def failing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/write":
            environ["unsticky.session"]["a"] = 1
            start_response("200 OK", [("Content-Type", "text/plain")])
            if not streams:
                raise error
            return _raising(error)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr(dict(environ["unsticky.session"])).encode()]

    app, client = serve(tmp_path, failing)
    assert client.get("/write")[0] in ("504 Gateway Timeout", "503 Service Unavailable", "409 Conflict")
    assert client.get("/")[2] == b"{'a': 1}"
    app.close()


def _raising(error: Exception) -> Iterator[bytes]:
    yield from ()
    raise error


def test_a_servers_file_wrapper_may_be_a_function(app: UnstickyMiddleware) -> None:
    """As uWSGI's is."""
    request: dict[str, Any] = {"PATH_INFO": "/state", "HTTP_COOKIE": "who=ann"}
    setup_testing_defaults(request)
    request["wsgi.file_wrapper"] = lambda file, size=1: file
    body = app(request, lambda *_: print)
    assert b"".join(body) == b"ann None None;" * 2
    body.close()  # type: ignore[attr-defined]
