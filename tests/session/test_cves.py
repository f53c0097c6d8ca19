"""What went wrong with sessions elsewhere, and got a number: one test each, that it does not go wrong here."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import pickle
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import httpx
import msgspec
import pytest
from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from session.visits import Browser
from support import otlp
from support.session_hosts import HOSTS, flask_app, serving, starlette_app
from support.valkey import Valkey, running, valkey  # noqa: F401 - a fixture
from unsticky.scalars import Duration, StoreURL
from unsticky.session.options import SessionOptions
from unsticky.session.store import Change
from unsticky.session.token import TokenSigner
from unsticky.sessions import Sessions
from unsticky.testing import FakeClock

every_host = pytest.mark.parametrize("host", HOSTS)


@pytest.fixture(params=["sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db"
    server: Valkey = request.getfixturevalue("valkey")
    return server.url


@pytest.fixture
def sessions(url: str) -> Iterator[Sessions]:
    options = SessionOptions(store=StoreURL(url), store_timeout=Duration(2))
    made = Sessions(options, clock=FakeClock())
    yield made
    made.close()


def records(server: Valkey) -> list[bytes]:
    with server.client() as client:
        return list(client.scan_iter("unsticky:*"))


@every_host
def test_ids_are_not_in_the_store(host: str) -> None:
    """CVE-2019-16782 (Rack): who reads the store, or times its look-ups, learns no token: it has hashes alone."""
    with running() as server, serving(host, {"store": server.url}) as client:
        client.get("/write/a")
        text = client.cookies["session"]
        with server.client() as raw:
            stored = b"".join(key + raw.get(key) for key in records(server))
        [(key, fields)] = server.records().items()
        proof = next(name for name in fields if "proof" in name)
        for part in text.split(".")[:2]:
            assert part.encode() not in stored
        key_hash, proof_hash = key.rpartition(":")[2], proof.rpartition(":")[2]
        for guess in (key_hash, f"{key_hash[:22]}.{proof_hash}", f"{text.split('.')[0]}.{proof_hash}"):
            assert client.get("/read", headers={"Cookie": f"session={guess}"}).json() == {}
            signed = TokenSigner(["a key of flask"]).dumps  # who knows the app's key knows no token either
            token = TokenSigner().loads(guess)
            if token is not None:
                assert client.get("/read", headers={"Cookie": f"session={signed(token)}"}).json() == {}


@pytest.mark.parametrize("writes", [True, False])
def test_a_slow_request_does_not_bring_an_ended_session_back(sessions: Sessions, writes: bool) -> None:
    """CVE-2025-46336 (rack-session) and CVE-2025-32441 (rack): not by reading, and not by writing."""
    browser = Browser(sessions)
    with browser.visit() as session:
        session["user"] = "ann"
    kept, slow = browser.token, browser.arrive()
    assert slow["user"] == "ann"
    if writes:
        slow["late"] = True
    with browser.visit() as session:
        session.clear()
    browser.leave(slow)
    assert browser.token is None
    with Browser(sessions, token=kept).visit() as session:
        assert dict(session) == {}


@every_host
def test_what_does_not_decrypt_is_not_decoded_as_plain(host: str, valkey: Valkey) -> None:  # noqa: F811
    """CVE-2026-39324 (rack-session): a value that is plain, or begins like an encrypted one, is no session."""
    with serving(host, {"store": valkey.url, "encryption_keys": ["a key for encryption"]}) as client:
        for planted in (msgspec.msgpack.encode("root"), b'"root"', b"\x01" + b"x" * 60, b"", b"\x01"):
            client.cookies.clear()
            client.get("/write/mine")
            for key, fields in valkey.records().items():
                if "mine" in fields:
                    valkey.plant(key, fields | {"mine": planted})
            answer = client.get("/read")
            assert answer.status_code in (200, 503)  # 503: sealed with a key that another replica may have
            assert "root" not in answer.text
            assert answer.status_code == 503 or answer.json() == {}


@pytest.mark.parametrize("host", ["flask", "starlette"])
def test_sessions_to_be_taken_over_have_to_be_authenticated(host: str, url: str) -> None:
    """CVE-2026-39324 again: with `migrate_until`, there is no way in for what nobody has signed."""
    data = base64.urlsafe_b64encode(json.dumps({"user": "root"}).encode()).decode()
    settings = {"store": url, "migrate_until": "2999-01-01", "migrate_keys": ["key"]}
    with serving(host, settings) as client:
        for text in (data, data.rstrip("="), f"{data}.", f"{data}.aWbQ.x", f"{data}.aWbQ.", json.dumps({"user": 1})):
            assert client.get("/read", headers={"Cookie": f"session={text}"}).json() == {}


USES: list[Callable[[Any], Any]] = [
    lambda session: "a" in session, len, bool, list, dict, repr, lambda session: session.get("a"),
    lambda session: session == {}, lambda session: {**session}, lambda session: session.keys(),
    lambda session: session.pop("none", None), lambda session: session.setdefault("a", 1),
    lambda session: session.copy(),
]  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_whatever_uses_the_session_is_told_to_caches(url: str, use: Callable[[Any], Any]) -> None:
    """CVE-2023-30861 and CVE-2026-27205 (Flask): `Vary: Cookie`, whether by a key, `in`, `len` or a copy."""

    async def view(request: Request) -> Response:
        use(request.session)
        return Response("", headers={"Cache-Control": "public, max-age=600"})

    own = flask_app({"store": url, "store_timeout": "2s"})
    own.add_url_rule("/use", "use", lambda: str(use(flask.session)))
    asgi = starlette_app({"store": url, "store_timeout": "2s"}, Route("/use", view))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://x") as client:
            return await client.get("/use")

    answers = [own.test_client().get("/use"), asyncio.run(ask())]
    for answer in answers:
        assert (answer.headers.get("Vary") == "Cookie") or use is repr  # repr uses nothing: it is for debuggers
    own.extensions["unsticky"].close()


@every_host
def test_no_cookie_is_set_on_a_response_that_a_cache_may_keep(host: str, url: str) -> None:
    """CVE-2026-35192 (Django): a cookie that is only sent again has `Vary` and `no-store` as well."""
    with serving(host, {"store": url, "touch_interval": "0s"}) as client:
        client.get("/permanent/yes")
        answer = client.get("/read")
        assert "set-cookie" in answer.headers
        assert answer.headers["vary"] == "Cookie"
        assert answer.headers["cache-control"] == "no-store"


def test_the_newest_key_signs(url: str) -> None:
    """CVE-2025-47278, GHSA-4grg-w6v8-c28g (Flask): with a fallback, tokens were still signed by the old key."""
    app = flask_app({"store": url, "store_timeout": "2s"})
    app.config.update(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old", "older"])
    client = app.test_client()
    client.get("/write/a")
    app.config["SECRET_KEY_FALLBACKS"] = []
    assert client.get("/read").json == {"a": 1}
    app.extensions["unsticky"].close()
    settings = {"store": url, "secret_keys": ["new", "old", "older"]}
    for host in ("starlette", "wsgi"):
        with serving(host, settings) as before:
            before.get("/write/a")
            cookie = {"Cookie": f"session={before.cookies['session']}"}
        with serving(host, settings | {"secret_keys": ["new"]}) as after:
            assert after.get("/read", headers=cookie).json() == {"a": 1}


@every_host
def test_strangers_create_no_records(host: str) -> None:
    """Django 1.4.22: logging out, or reading, with cookies that are made up filled the store with empty sessions."""
    old = {"migrate_until": "2999-01-01", "migrate_keys": ["k"]}
    with running() as server, serving(host, {"store": server.url, **old}) as client:
        for number in range(20):
            token = f"{number:022d}.{'s' * 43}"
            for path in ("/read", "/clear", "/rotate", "/plain"):
                answer = client.get(path, headers={"Cookie": f"session={token}"})
                assert "set-cookie" not in answer.headers
        assert records(server) == []


@every_host
def test_no_secret_gets_into_logs_or_spans(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """CVE-2023-20866 (Spring Session): a whole life at DEBUG, with an outage, and with spans really exported."""
    secrets: set[str] = set()
    with otlp.telemetry() as telemetry, running() as server, caplog.at_level(logging.DEBUG):
        settings = {"store": server.url, "store_timeout": "400ms", "metadata": True, "maximum_session_size": 300}
        with serving(host, settings) as client, trace.get_tracer("app").start_as_current_span("GET"):
            for path in ("/write/a", "/login/ann", "/read", "/rotate", "/append/b", "/plain", "/clear", "/login/ann"):
                client.get(path)
                secrets.update(part for value in client.cookies.values() for part in value.split("."))
            with pytest.raises(TypeError) as caught:
                client.get("/big/4000")
            with server.paused():
                assert client.get("/read").status_code == 503
            client.get("/read", headers={"Cookie": f"session={'h' * 22}.{'s' * 43}"})
        telemetry.flush()
        exported = bytes(telemetry.receiver.raw).decode("latin-1")
    secrets -= {""}
    assert len(secrets) > 6
    assert "unsticky.session.commit" in exported
    assert caplog.records
    for secret in secrets:
        assert secret not in caplog.text
        assert secret not in exported
        assert secret not in str(caught.value)
    assert "xxxx" not in caplog.text


@pytest.mark.parametrize("verb", ["save", "transaction", "reload", "rotate"])
@pytest.mark.parametrize("first", [True, False])
def test_a_logout_counts_however_the_session_is_saved(sessions: Sessions, verb: str, first: bool) -> None:
    """CVE-2023-20862 (Spring Security): an explicit save must not keep, or bring back, what a logout has emptied."""
    browser = Browser(sessions)
    with browser.visit() as session:
        session["user"] = "ann"
    kept = browser.token
    with browser.visit() as session:
        assert session["user"] == "ann"
        if first:
            session.clear()
        if verb == "transaction":
            for draft in session.transaction():
                draft.get("user")
        else:
            getattr(session, verb)()
        if not first:
            session.clear()
    assert browser.token is None
    with Browser(sessions, token=kept).visit() as session:
        assert dict(session) == {}


@every_host
def test_an_id_that_a_stranger_has_chosen_is_never_adopted(host: str, url: str) -> None:
    """aiohttp-session #272 and #273: not unknown, not ended; and a login changes the token of a good one."""
    with serving(host, {"store": url}) as client:
        client.get("/write/a")
        planted = client.cookies["session"]
        client.get("/clear")
        for text in (planted, f"{'h' * 22}.{'s' * 43}"):
            client.cookies.clear()
            client.get("/write/user", headers={"Cookie": f"session={text}"})
            given = client.cookies["session"]
            assert not set(given.split(".")) & set(text.split("."))
            client.cookies.clear()
            assert client.get("/read", headers={"Cookie": f"session={text}"}).json() == {}
        client.get("/write/before")
        planted = client.cookies["session"]
        client.get("/login/ann")
        assert client.get("/read", headers={"Cookie": f"session={planted}"}).json() == {}


class Bomb:
    """Its pickle writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_no_pickle_is_ever_read(sessions: Sessions, tmp_path: Path) -> None:
    """CVE-2021-33026 (Flask-Caching): who can write to the store can't run code; and nobody here imports pickle."""
    browser = Browser(sessions)
    with browser.visit() as session:
        session["user"] = "ann"
    assert browser.token is not None
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        planted = pickle.dumps(Bomb(tmp_path / "ran"), protocol)
        sessions.access.store.update(browser.token.key, Change(generation=0, put={"user": planted}))
        with browser.visit() as session:
            assert session.get("user") is not Bomb
    assert not (tmp_path / "ran").exists()
    source = Path(__file__).parents[2] / "src" / "unsticky"
    imports = re.compile(r"^\s*(import|from) +(pickle|marshal|shelve|dill)\b", re.MULTILINE)
    assert not [file for file in source.rglob("*.py") if imports.search(file.read_text())]


def test_a_cancelled_request_gives_nobody_anothers_session() -> None:
    """redis-py #2624, #2665 (the ChatGPT incident): replies never shift to another waiter when some are cancelled."""

    async def view(request: Request) -> Response:
        return JSONResponse(request.session.get("user"))

    async def begin(request: Request) -> Response:
        request.session["user"] = request.path_params["user"]
        return Response()

    async def scenario(server: Valkey) -> None:
        routes = [Route("/me", view), Route("/begin/{user}", begin)]
        app = starlette_app({"store": server.url, "store_timeout": "5s"}, *routes)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            cookies = {}
            for user in map(str, range(20)):
                given = (await client.get(f"/begin/{user}")).headers["set-cookie"]
                cookies[user] = {"Cookie": given.split(";")[0]}
                client.cookies.clear()
            chance, seen = random.Random(7), 0
            for _ in range(40):
                asked = {user: asyncio.create_task(client.get("/me", headers=cookies[user])) for user in cookies}
                for task in chance.sample(list(asked.values()), 10):
                    asyncio.get_running_loop().call_later(chance.random() * 0.01, task.cancel)
                await asyncio.wait(asked.values())
                for user, task in asked.items():
                    if not task.cancelled():
                        assert task.result().json() == user
                        seen += 1
            assert 400 <= seen < 800  # some were cancelled
        middleware = app.middleware_stack
        while not hasattr(middleware, "sessions"):
            middleware = middleware.app  # type: ignore[union-attr]
        await middleware.aclose()

    with running() as server:
        asyncio.run(scenario(server))


@every_host
def test_a_record_that_answers_for_another_is_refused(host: str) -> None:
    """The same incident, one floor up: a record knows whose it is, so a mixed-up reply is no session."""
    with running() as server, serving(host, {"store": server.url}) as client:
        client.get("/write/ann")
        ann, anns = dict(client.cookies), records(server)[0]
        client.cookies.clear()
        client.get("/write/eve")
        eve = client.cookies["session"]
        [eves] = set(records(server)) - {anns}
        with server.client() as raw:
            raw.copy(eves, anns, replace=True)
        client.cookies.clear()
        client.cookies.update(ann)
        answer = client.get("/read")
        assert (answer.status_code, "eve" in answer.text) == (503, False)  # the connection is not to be trusted
        assert client.get("/read", headers={"Cookie": f"session={eve}"}).json() == {"eve": 1}
