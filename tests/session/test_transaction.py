# ruff: noqa: PT012 - the loop is the statement
"""Read, compute, write, as one step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from uuid import uuid4

import pytest

from session.visits import Asked, Browser
from support.valkey import Valkey
from support.valkey import valkey as valkey
from unsticky.errors import SessionConflict, SessionHeadersSent, SessionValueError
from unsticky.scalars import Duration, StoreURL
from unsticky.session.commit import Cookie
from unsticky.session.options import SessionOptions
from unsticky.session.token import Token
from unsticky.session.verbs import LoopSession
from unsticky.sessions import Sessions
from unsticky.testing import FakeClock


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    url = {"memory": f"memory://{uuid4().hex}", "sqlite": f"sqlite:///{tmp_path}/sessions.db"}.get(request.param)
    if url is None:
        server: Valkey = request.getfixturevalue("valkey")
        url = server.url
    one = Sessions(SessionOptions(store=StoreURL(url), store_timeout=Duration(10)))
    yield one
    one.close()


@pytest.fixture
def browser(sessions: Sessions) -> Browser:
    """With a stock of a hundred."""
    one = Browser(sessions)
    with one.visit() as session:
        session.update(stock=100, other=[1])
    return one


def test_threads_count_exactly(browser: Browser) -> None:
    """Eight requests at once take ten each: none of it is lost, though all write the same key."""
    start, errors = Barrier(8), []

    def take() -> None:
        try:
            with browser.visit() as session:
                start.wait(10)
                for _ in range(10):
                    for draft in session.transaction():
                        draft["stock"] -= 1
        except Exception as error:  # pragma: no cover - shown by the assertion
            errors.append(error)

    threads = [Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with browser.visit() as session:
        assert session["stock"] == 20


def test_tasks_count_exactly(sessions: Sessions, browser: Browser) -> None:
    """The same on an event loop, with `async for`."""

    async def take() -> None:
        request = Asked(browser.token)
        session = (
            sessions.bind_now(request, LoopSession)
            if sessions.access.answers_at_once
            else await sessions.bind_loaded(request, LoopSession)
        )
        for _ in range(5):
            async for draft in session.transaction():
                stock = draft["stock"]
                await asyncio.sleep(0)
                draft["stock"] = stock - 1

    async def main() -> None:
        await asyncio.gather(*(take() for _ in range(10)))
        await sessions.aclose()

    asyncio.run(main())
    with browser.visit() as session:
        assert session["stock"] == 50


def test_it_reads_again_what_another_request_wrote(browser: Browser) -> None:
    """The body runs twice: the second time on what is there by then."""
    session, other = browser.arrive(), browser.arrive()
    assert session["stock"] == 100
    seen = []
    for draft in session.transaction():
        seen.append(draft["stock"])
        if len(seen) == 1:
            other["stock"] = 50
            browser.leave(other)
        draft["stock"] += 1
    assert seen == [100, 50]
    assert session["stock"] == 51
    browser.leave(session)
    with browser.visit() as session:
        assert session["stock"] == 51


def test_what_it_looked_for_and_did_not_find_counts_too(browser: Browser) -> None:
    """`if "coupon" not in draft` is a read: another request may put one in between."""
    session, other = browser.arrive(), browser.arrive()
    runs = 0
    for draft in session.transaction():
        runs += 1
        free = "coupon" not in draft
        if runs == 1:
            other["coupon"] = "theirs"
            browser.leave(other)
        if free:
            draft["winner"] = "me"
    assert runs == 2
    with browser.visit() as session:
        assert dict(session) == {"stock": 100, "other": [1], "coupon": "theirs"}


def test_pending_changes_are_part_of_it(browser: Browser) -> None:
    """What the request assigned before is read by the transaction, and stored with it or earlier."""
    session = browser.arrive()
    session["stock"] = 5
    session["note"] = "x"
    for draft in session.transaction():
        draft["stock"] += 1
    assert session["stock"] == 6
    browser.leave(session)
    with browser.visit() as session:
        assert (session["stock"], session["note"]) == (6, "x")


def test_leaving_it_writes_nothing(browser: Browser) -> None:
    """By `break` or by an exception; the session itself is untouched, nested values too."""
    session = browser.arrive()
    for draft in session.transaction():
        draft["stock"] = 0
        draft["other"].append(2)
        break
    assert (session["stock"], session["other"]) == (100, [1])
    with pytest.raises(ZeroDivisionError):
        for draft in session.transaction():
            draft["stock"] = 1 // 0
    browser.leave(session)
    with browser.visit() as session:
        assert dict(session) == {"stock": 100, "other": [1]}


def test_it_removes_keys(browser: Browser) -> None:
    """And a record without keys is still a session."""
    session = browser.arrive()
    for draft in session.transaction():
        draft.pop("stock")
        del draft["other"]
    assert dict(session) == {}
    browser.leave(session)
    assert browser.last.cookie is Cookie.KEEP
    with browser.visit() as session:
        assert dict(session) == {}
        session["again"] = 1
    with browser.visit() as session:
        assert dict(session) == {"again": 1}


def test_a_new_session_begins_with_it(sessions: Sessions) -> None:
    """The client learns its token with the response."""
    browser = Browser(sessions)
    session = browser.arrive()
    for draft in session.transaction():
        draft["n"] = draft.get("n", 0) + 1
    for draft in session.transaction():
        draft["n"] += 1
    committed = browser.leave(session)
    assert isinstance(committed.cookie, Token)
    with browser.visit() as session:
        assert session["n"] == 2


def test_a_session_that_ended_elsewhere(browser: Browser) -> None:
    """Nothing is written, and the caller is told."""
    session, other = browser.arrive(), browser.arrive()
    first = True
    with pytest.raises(SessionConflict, match="ended elsewhere"):
        for draft in session.transaction():
            draft["stock"] = 1
            if first:
                other.clear()
                browser.leave(other)
                first = False
    assert dict(session) == {}
    assert browser.sessions.commit(session).cookie is Cookie.KEEP


def test_a_request_in_flight_may_do_one_after_a_rotation(tmp_path: Path) -> None:
    """Its token has ended with the grace, but it was let in, and only a strict rotation shuts it out."""
    clock = FakeClock()
    one = Browser(Sessions(SessionOptions(store=StoreURL("memory://")), clock=clock))
    with one.visit() as session:
        session["n"] = 1
    slow, slower = one.arrive(), one.arrive()
    assert slow["n"] == slower["n"] == 1
    with one.visit() as session:
        session.rotate()
    clock.advance(11)
    with one.visit() as session:
        session["n"] = 2
    for draft in slow.transaction():
        draft["n"] += 1
    slow.reload()
    assert slow["n"] == 3
    one.leave(slow)
    assert one.last.cookie is Cookie.KEEP
    with one.visit() as session:
        session.rotate(strict=True)
    with pytest.raises(SessionConflict):
        for draft in slower.transaction():
            draft["n"] += 1


def test_one_that_is_overtaken_for_ever_gives_up(browser: Browser) -> None:
    """After a hundred tries, having written nothing."""
    session = browser.arrive()
    runs = 0
    with pytest.raises(SessionConflict, match="100 times"):
        for draft in session.transaction():
            runs += 1
            draft["stock"] = -1
            with browser.visit() as other:
                other["stock"] = runs
    assert runs == 100
    with browser.visit() as session:
        assert session["stock"] == 100


def test_bad_values_name_their_place(browser: Browser) -> None:
    """As an assignment does."""
    session = browser.arrive()
    with pytest.raises(SessionValueError, match=r"session\['x'\]\[0\]: object can't be stored"):
        for draft in session.transaction():
            draft["x"] = [object()]


def test_no_session_can_begin_after_the_headers(sessions: Sessions) -> None:
    """Its cookie could not be sent."""
    session = Browser(sessions).arrive()
    session.seal()
    with pytest.raises(SessionHeadersSent):
        for draft in session.transaction():
            draft["a"] = 1


def test_a_read_only_one_writes_nothing(browser: Browser) -> None:
    """It ends after one run."""
    session = browser.arrive()
    runs = [draft["stock"] for draft in session.transaction()]
    assert runs == [100]


def test_what_its_body_does_to_the_session_itself_counts_too(browser: Browser) -> None:
    """A login inside of it rotates, and what was written past the draft is stored."""
    before = browser.token
    with browser.visit() as session:
        for draft in session.transaction():
            draft["stock"] -= 1
            session.owner = "ann"
            session["direct"] = session["other"].append(2)
    assert browser.token != before
    with browser.visit() as session:
        assert session.owner == "ann"
        assert dict(session) == {"stock": 99, "other": [1, 2], "direct": None}
    with Browser(browser.sessions, before).visit() as session:
        assert not session


def test_what_its_body_saved_and_then_removed_is_gone(browser: Browser) -> None:
    """It is in the store, and no longer in the session: neither the loaded values nor the draft know of it."""
    with browser.visit() as session:
        for draft in session.transaction():
            session["step"] = 1
            session.save()
            del session["step"]
            draft["stock"] -= 1
        assert session == {"stock": 99, "other": [1]}
    with browser.visit() as session:
        assert session == {"stock": 99, "other": [1]}


def test_a_logout_inside_of_it_is_not_undone(browser: Browser) -> None:
    """What was read from the session that ended is no part of another one."""
    with browser.visit() as session:
        for draft in session.transaction():
            draft["stock"] -= 1
            session.clear()
    assert browser.last.cookie is Cookie.DELETE
    assert browser.token is None


@pytest.mark.parametrize("verb", ["reload", "save"])
def test_saving_and_reloading_inside_of_it_lose_nothing(browser: Browser, verb: str) -> None:
    """It stands by what its draft was read from, and reads again if that has changed."""
    tries = 0
    with browser.visit() as session:
        for draft in session.transaction():
            tries += 1
            if tries == 1:
                with browser.visit() as other:
                    other["stock"] = 10
            session["mine"] = "x"
            getattr(session, verb)()
            draft["stock"] -= 1
        assert session["stock"] == 9
    assert tries == 2
    with browser.visit() as session:
        assert session["stock"] == 9
        assert session.get("mine") == ("x" if verb == "save" else None)


@pytest.mark.parametrize("key", ["unsticky.proof:x", "\ud800", 1])
def test_bad_keys_are_refused(browser: Browser, key: object) -> None:
    """As the session itself does."""
    with browser.visit() as session, pytest.raises(SessionValueError, match=r"session\["):
        for draft in session.transaction():
            draft[key] = 1  # type: ignore[index]
