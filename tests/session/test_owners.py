"""Lists of an owner's sessions, and limits on them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Lock, Thread
from typing import Any
from uuid import uuid4

import pytest

from session.visits import Asked, Browser
from support.valkey import Valkey
from support.valkey import valkey as valkey
from unsticky.errors import DamagedRecord, SessionLimitReached
from unsticky.scalars import Duration, StoreURL
from unsticky.session.events import SessionEvent
from unsticky.session.options import SessionOptions
from unsticky.session.owners import ledger_key
from unsticky.session.policy import Lifetime
from unsticky.session.store import Record
from unsticky.session.token import Token
from unsticky.session.verbs import LoopSession, ThreadSession
from unsticky.sessions import Sessions
from unsticky.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "valkey":
        server: Valkey = request.getfixturevalue("valkey")
        return server.url
    return f"memory://{uuid4().hex}" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture
def user() -> str:
    return f"user {uuid4().hex}"


opened: list[Sessions] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def make(url: str, clock: FakeClock, **options: Any) -> Sessions:
    chosen = {"idle_timeout": Duration(1000), "store_timeout": Duration(10), **options}
    opened.append(Sessions(SessionOptions(store=StoreURL(url), **chosen), clock=clock))
    return opened[-1]


def log_in(sessions: Sessions, user: str) -> Browser:
    browser = Browser(sessions)
    with browser.visit() as session:
        session["a"] = 1
        session.owner = user
    return browser


def is_in(browser: Browser) -> bool:
    return dict(browser.arrive()) == {"a": 1}


def test_the_list_shows_each_live_session(url: str, clock: FakeClock, user: str) -> None:
    """The newest login first; logged out, expired and given to another owner are not in it."""
    sessions = make(url, clock)
    browsers = []
    for _ in range(5):
        browsers.append(log_in(sessions, user))
        clock.advance(10)
    with browsers[0].visit() as session:
        session.clear()
    with browsers[1].visit() as session:
        session.owner = f"{user} another"
    listed = sessions.list(user)
    assert [info.id for info in listed] == [b.arrive().id for b in reversed(browsers[2:])]
    assert {info.owner for info in listed} == {user}
    assert listed[0].created == clock.time() - 10
    assert listed[0].keys == 1
    assert len(sessions.list(f"{user} another")) == 1
    assert sessions.list("nobody") == []
    clock.advance(1061)
    assert sessions.list(user) == []


def test_what_a_list_says_lets_nobody_in(url: str, clock: FakeClock, user: str) -> None:
    """No token, no handle, no secret, and no value."""
    sessions = make(url, clock)
    browser = log_in(sessions, user)
    token = browser.token
    assert token is not None
    shown = repr(sessions.list(user))
    assert token.handle not in shown
    assert token.secret not in shown


def test_device_data_is_kept_only_when_asked_for(url: str, clock: FakeClock, user: str) -> None:
    """User agent and a coarse address; the application does not see the field, and can't write it."""
    log_in(make(url, clock), user)
    [info] = make(url, clock).list(user)
    assert (info.user_agent, info.network) == ("", "")
    clock.advance(1)
    sessions = make(url, clock, metadata=True)
    browser = log_in(sessions, user)
    info = sessions.list(user)[0]
    assert (info.user_agent, info.network) == ("Lynx/2.9", "203.0.113.0/24")
    assert is_in(browser)


def test_revoke_one_and_all_but_this(url: str, clock: FakeClock, user: str) -> None:
    """It ends at once, for requests under way too."""
    sessions = make(url, clock)
    browsers = [log_in(sessions, user) for _ in range(4)]
    slow = browsers[0].arrive()
    slow["late"] = 1
    assert sessions.revoke(str(browsers[0].arrive().id)) is True
    assert sessions.revoke(str(browsers[0].arrive().id)) is False
    assert sessions.commit(slow).lost
    assert not is_in(browsers[0])
    here = browsers[1].arrive()
    assert sessions.revoke_all(user, keep=here) == 2
    assert [is_in(browser) for browser in browsers] == [False, True, False, False]
    assert sessions.revoke_all(user) == 1
    assert sessions.list(user) == []
    assert sessions.revoke(ledger_key(user)) is False, "only sessions can be revoked"
    assert sessions.find("v1:nothing") is None


def test_the_async_forms(url: str, clock: FakeClock, user: str) -> None:
    """The same on an event loop."""
    sessions = make(url, clock)
    browsers = [log_in(sessions, user) for _ in range(3)]

    async def main() -> None:
        listed = await sessions.list_async(user)
        assert len(listed) == 3
        assert await sessions.find_async(listed[0].id) == listed[0]
        assert await sessions.revoke_async(listed[0].id)
        assert await sessions.revoke_all_async(user, keep=listed[1].id) == 1
        await sessions.aclose()

    asyncio.run(main())
    assert sum(is_in(browser) for browser in browsers) == 1


def test_the_oldest_session_goes_at_the_limit(url: str, clock: FakeClock, user: str) -> None:
    """Three may stay: the three newest logins. A login with a session that exists counts as new."""
    sessions = make(url, clock, maximum_sessions=3)
    browsers = []
    for _ in range(4):
        browsers.append(log_in(sessions, user))
        clock.advance(1)
    assert [is_in(browser) for browser in browsers] == [False, True, True, True]
    anonymous = Browser(sessions)
    with anonymous.visit() as session:
        session["a"] = 1
    with anonymous.visit() as session:
        session.owner = user
    assert [is_in(browser) for browser in [*browsers, anonymous]] == [False, False, True, True, True]


def test_a_login_is_refused_at_the_limit(url: str, clock: FakeClock, user: str) -> None:
    """Nothing of it is written; after a logout there is room again, and an ended session takes none."""
    sessions = make(url, clock, maximum_sessions=2, at_limit="refuse")
    first, second = log_in(sessions, user), log_in(sessions, user)
    clock.advance(100)
    refused = Browser(sessions)
    session = refused.arrive()
    session["a"] = 1
    session.owner = user
    with pytest.raises(SessionLimitReached, match="2 sessions of this user are open, and 2 are allowed"):
        session.save()
    assert dict(session) == {}
    assert session.owner is None
    refused.leave(session)
    assert refused.token is None, "the view has caught it, and answers as it likes"
    session = refused.arrive()
    session["a"] = 1
    session.owner = user
    with pytest.raises(SessionLimitReached):
        refused.leave(session)
    basket = Browser(sessions)
    with basket.visit() as session:
        session["basket"] = ["tea"]
    with basket.visit() as session:
        session["basket"].append("milk")
        session.owner = user
        with pytest.raises(SessionLimitReached):
            session.save()
        session["note"] = 1
    assert dict(basket.arrive()) == {"basket": ["tea"], "note": 1}
    assert len(sessions.list(user)) == 2
    with first.visit() as one:
        one.clear()
    assert is_in(log_in(sessions, user))
    assert is_in(second)
    clock.advance(1061)
    assert is_in(log_in(sessions, user))


@pytest.mark.parametrize("policy", ["oldest_out", "refuse"])
def test_the_limit_holds_under_thirty_logins_at_once(url: str, clock: FakeClock, user: str, policy: str) -> None:
    """As many as are allowed are left, not one more and not one less."""
    sessions = make(url, clock, maximum_sessions=3, at_limit=policy, store_timeout=Duration(30))
    start, lock = Barrier(30), Lock()
    refused: list[Exception] = []
    browsers = [Browser(sessions) for _ in range(30)]

    def log_in_at_once(browser: Browser) -> None:
        session = browser.arrive()
        session["a"] = 1
        session.owner = user
        start.wait(30)
        try:
            browser.leave(session)
        except SessionLimitReached as error:
            with lock:
                refused.append(error)

    threads = [Thread(target=log_in_at_once, args=(browser,)) for browser in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(sessions.list(user)) == 3
    assert sum(is_in(browser) for browser in browsers) == 3
    assert len(refused) == (27 if policy == "refuse" else 0)


@pytest.mark.parametrize("policy", ["oldest_out", "refuse"])
def test_the_limit_holds_under_thirty_tasks(url: str, clock: FakeClock, user: str, policy: str) -> None:
    """The same on one event loop."""
    sessions = make(url, clock, maximum_sessions=3, at_limit=policy, store_timeout=Duration(30))

    async def log_in_async() -> bool:
        session = (
            sessions.bind_now(Asked(), LoopSession)
            if sessions.access.answers_at_once
            else await sessions.bind_loaded(Asked(), LoopSession)
        )
        session["a"] = 1
        session.owner = user
        try:
            await sessions.commit_async(session)
        except SessionLimitReached:
            return False
        return True

    async def main() -> int:
        done = await asyncio.gather(*(log_in_async() for _ in range(30)))
        assert len(await sessions.list_async(user)) == 3
        await sessions.aclose()
        return sum(done)

    assert asyncio.run(main()) == (3 if policy == "refuse" else 30)


def test_the_list_outlives_every_session_in_it(clock: FakeClock, user: str) -> None:
    """A session that is used for months stays in its owner's list, at one more write per idle timeout."""
    sessions = make(f"memory://{uuid4().hex}", clock)
    browser = log_in(sessions, user)
    for _ in range(60):
        clock.advance(333)
        with browser.visit() as session:
            assert session["a"] == 1
    assert len(sessions.list(user)) == 1


def test_a_list_that_was_lost_is_begun_again(clock: FakeClock, user: str) -> None:
    """By the sessions that are used: it was deleted behind our back."""
    sessions = make(f"memory://{uuid4().hex}", clock)
    browser = log_in(sessions, user)
    sessions.access.store.delete(ledger_key(user))
    assert sessions.list(user) == []
    for _ in range(4):
        clock.advance(400)
        with browser.visit() as session:
            assert session["a"] == 1
    assert len(sessions.list(user)) == 1


def test_a_list_that_was_lost_gets_back_all_its_sessions(clock: FakeClock, user: str) -> None:
    """Old ones too, and not only the first that finds out."""
    sessions = make(f"memory://{uuid4().hex}", clock)
    browsers = [log_in(sessions, user) for _ in range(2)]
    for lost in (False,) * 9 + (True,) + (False,) * 4:
        if lost:
            sessions.access.store.delete(ledger_key(user))
        clock.advance(400)
        for browser in browsers:
            with browser.visit() as session:
                assert session["a"] == 1
    assert len(sessions.list(user)) == 2


def test_the_list_outlives_its_sessions_after_the_idle_timeout_was_raised(clock: FakeClock, user: str) -> None:
    """The ledger was made for shorter lives; sessions that live on stay in it."""
    url = f"memory://{uuid4().hex}"
    browser = log_in(make(url, clock), user)
    clock.advance(500)
    browser.sessions = make(url, clock, idle_timeout=Duration(100_000))
    for _ in range(50):
        with browser.visit() as session:
            assert session["a"] == 1
        clock.advance(1000)
    assert browser.sessions.revoke_all(user) == 1
    assert not is_in(browser)


def test_sessions_of_a_longer_life_are_listed_and_revoked(clock: FakeClock, user: str) -> None:
    """Flask's sessions live as long as its configuration says, which lists and the command line do not know."""
    sessions = Sessions(SessionOptions(store=StoreURL(f"memory://{uuid4().hex}")), clock=clock)
    terms = sessions.terms_of(Lifetime.of(sessions.options, 31 * 86400.0))
    session = sessions.bind(Asked(None), ThreadSession, terms=lambda: terms)
    session.owner = user
    sessions.commit(session)
    clock.advance(20 * 86400)
    [info] = sessions.list(user)
    assert info.ends > clock.time()
    assert sessions.revoke_all(user) == 1
    assert sessions.find(info.id) is None


def test_a_damaged_session_does_not_lock_its_owner_out(clock: FakeClock, user: str) -> None:
    """It can't be read, so it is none: the others are listed and revoked, and logins go on."""
    sessions = make(f"memory://{uuid4().hex}", clock, maximum_sessions=2)
    damaged = log_in(sessions, user).token
    assert damaged is not None
    store, load = sessions.access.store, sessions.access.store.load

    def damaged_load(key: str) -> Record | None:
        if key == damaged.key:
            raise DamagedRecord("damaged")
        return load(key)

    store.load = damaged_load  # type: ignore[method-assign]
    clock.advance(1)
    assert is_in(log_in(sessions, user))
    assert sessions.revoke_all(user) == 1
    assert sessions.list(user) == []


def test_a_login_is_the_newest_though_another_replicas_clock_is_ahead(clock: FakeClock, user: str) -> None:
    """Else it would end itself at once, until the clocks have met."""
    url, ahead = f"memory://{uuid4().hex}", FakeClock()
    ahead.advance(5)
    first = log_in(make(url, ahead, maximum_sessions=1), user)
    second = log_in(make(url, clock, maximum_sessions=1), user)
    assert is_in(second)
    assert not is_in(first)


def test_a_long_list_is_tidied_by_logins(clock: FakeClock, user: str) -> None:
    """Sessions that ended by time leave their entries behind: a user who never looks at the list has none for ever."""
    sessions = make(f"memory://{uuid4().hex}", clock)
    for _ in range(300):
        log_in(sessions, user)
        clock.advance(100)
    ledger = sessions.access.store.load(ledger_key(user))
    assert ledger is not None
    assert len(ledger.fields) < 70
    assert len(sessions.list(user)) == 10


def test_a_crash_between_list_and_session(clock: FakeClock, user: str) -> None:
    """An entry without a session takes a place for a minute, then none."""
    sessions = make(f"memory://{uuid4().hex}", clock, maximum_sessions=1, at_limit="refuse")
    browser = log_in(sessions, user)
    assert browser.token is not None
    sessions.access.store.delete(browser.token.key)
    with pytest.raises(SessionLimitReached):
        log_in(sessions, user)
    clock.advance(61)
    assert is_in(log_in(sessions, user))


def test_events_say_what_became_of_sessions(clock: FakeClock, user: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the order in which the store took them, with the id that lists have; a listener that fails disturbs nobody."""
    sessions = make(f"memory://{uuid4().hex}", clock, renewal_timeout=Duration(500))
    told: list[tuple[str, str | None]] = []

    @sessions.on_event
    def broken(event: SessionEvent) -> None:
        raise RuntimeError("a listener's own trouble")

    sessions.on_event(lambda event: told.append((event.kind, event.owner)))
    browser = Browser(sessions)
    with browser.visit() as session:
        session["a"] = 1
    with browser.visit() as session:
        session.owner = user
    clock.advance(600)
    with browser.visit() as session:
        assert session["a"] == 1
    with browser.visit() as session:
        session.clear()
    assert told == [("created", None), ("rotated", user), ("rotated", user), ("ended", user)]
    assert "A listener of session events failed" in caplog.text
    told.clear()
    one, other = log_in(sessions, user), log_in(sessions, user)
    sessions.revoke_all(user, keep=other.arrive())
    assert not is_in(one)
    clock.advance(1061)
    with other.visit() as session:
        assert dict(session) == {}
    with Browser(sessions, Token(other.token.handle, "s" * 43)).visit() as session:  # type: ignore[union-attr]
        assert dict(session) == {}
    assert told == [("created", user), ("created", user), ("revoked", user), ("expired", user)]


def test_what_was_saved_is_told_at_once(clock: FakeClock, user: str) -> None:
    """A WebSocket's own commit may be hours away, and a request that fails after it saved has none."""
    sessions = make(f"memory://{uuid4().hex}", clock)
    told: list[str] = []
    sessions.on_event(lambda event: told.append(event.kind))
    browser = Browser(sessions)
    session = browser.arrive()
    session["a"] = 1
    session.save()
    assert told == ["created"]
    session.owner = user
    for draft in session.transaction():
        draft["b"] = 1
    assert told == ["created", "rotated"]
    session.clear()
    session.save()
    browser.leave(session)
    assert told == ["created", "rotated", "ended"]
