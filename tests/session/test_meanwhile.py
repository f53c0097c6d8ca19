"""Tasks of one request: while one waits for the store, another goes on with the session. Nothing of that is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from session.visits import Asked, Browser
from support.valkey import Valkey
from support.valkey import valkey as valkey
from unsticky.scalars import Duration, StoreURL
from unsticky.session.commit import Cookie, commit, is_settled, save
from unsticky.session.operations import Steps
from unsticky.session.options import SessionOptions
from unsticky.session.session import Session
from unsticky.session.token import Token
from unsticky.session.verbs import LoopSession
from unsticky.sessions import Sessions
from unsticky.testing import FakeClock

T = TypeVar("T")

Meanwhile = Callable[[Session], object]


@pytest.fixture
def browser() -> Browser:
    options = SessionOptions(store=StoreURL("memory://"), idle_timeout=Duration(1000))
    return Browser(Sessions(options, clock=FakeClock()))


def written(steps: Steps[T], session: Session, browser: Browser, meanwhile: Meanwhile) -> T:
    """One task has `session` written; another one does `meanwhile` before the store's first answer is there."""
    store = browser.sessions.access.store
    answer = next(steps).ask(store)
    meanwhile(session)
    try:
        while True:
            answer = steps.send(answer).ask(store)
    except StopIteration as end:
        result: T = end.value
        return result


def log_in(session: Session) -> None:
    session.owner = "ann"


def swap(session: Session) -> None:
    session["a"], session["b"] = session.pop("b"), session.pop("a")


CHANGES: list[tuple[Meanwhile, dict[str, Any]]] = [
    (lambda session: session.update(c=3), {"a": 1, "b": [2], "c": 3}),
    (lambda session: session.update(c=[3]), {"a": 1, "b": [2], "c": [3]}),
    (lambda session: session.update(a=5), {"a": 5, "b": [2]}),
    (lambda session: session.pop("a"), {"b": [2]}),
    (lambda session: session["b"].append(3), {"a": 1, "b": [2, 3]}),
    (swap, {"b": 1, "a": [2]}),
    (lambda session: session.clear(), {}),
    (lambda session: (session.clear(), session.update(d=4)), {"d": 4}),
]


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize(("meanwhile", "left"), CHANGES)
def test_what_is_changed_while_a_save_is_under_way(
    browser: Browser, begins: bool, meanwhile: Meanwhile, left: dict[str, Any]
) -> None:
    """It is written by the next commit, as if it had come after the save."""
    if not begins:
        with browser.visit() as session:
            session["b"] = [1]
    before = browser.token
    session = browser.arrive()
    session.update(a=1, b=[2])
    written(save(session), session, browser, meanwhile)
    browser.leave(session)
    assert (browser.token is None) is (not left)
    assert dict(browser.arrive()) == left
    if before is not None and "a" not in left and "b" not in left:
        assert dict(Browser(browser.sessions, before).arrive()) == {}


@pytest.mark.parametrize("begins", [True, False])
def test_a_login_while_a_save_is_under_way(browser: Browser, begins: bool) -> None:
    """The session has its owner, and who knew the token of before the login has no part in it."""
    if not begins:
        with browser.visit() as session:
            session["a"] = 1
    before = browser.token
    session = browser.arrive()
    session["a"] = 2
    written(save(session), session, browser, log_in)
    assert session.owner == "ann"
    browser.leave(session)
    assert browser.arrive().owner == "ann"
    assert [one.id for one in browser.sessions.list("ann")] == [session.id]
    if before is not None:
        assert dict(Browser(browser.sessions, before).arrive()) == {}


@pytest.mark.parametrize("begins", [True, False])
def test_a_login_while_the_response_waits_for_its_commit(browser: Browser, begins: bool) -> None:
    """After the headers no token could be sent: it is in this commit, and the client has the token that stands."""
    if not begins:
        with browser.visit() as session:
            session["a"] = 1
    session = browser.arrive()
    session["a"] = 2
    token = written(commit(session), session, browser, log_in).cookie
    session.seal()
    assert isinstance(token, Token)
    with Browser(browser.sessions, token).visit() as session:
        assert session.owner == "ann"
        assert session["a"] == 2


def test_a_logout_while_a_login_is_under_way(browser: Browser) -> None:
    """Nothing is left of the login, and what comes after the logout is nobody's."""
    session = browser.arrive()
    session.owner = "ann"
    after = written(commit(session), session, browser, lambda session: (session.clear(), session.update(a=1)))
    session.seal()
    assert browser.sessions.list("ann") == []
    assert isinstance(after.cookie, Token)
    with Browser(browser.sessions, after.cookie).visit() as session:
        assert session.owner is None
        assert session == {"a": 1}


@pytest.mark.parametrize("store", ["memory", "valkey"])
def test_tasks_that_save_and_log_in_at_once(store: str, request: pytest.FixtureRequest) -> None:
    """On an event loop they take turns: a strict rotation of one does not shut the others out."""
    url = "memory://" if store == "memory" else request.getfixturevalue("valkey").url
    sessions = Sessions(SessionOptions(store=StoreURL(url), store_timeout=Duration(5)))

    async def task(session: LoopSession, name: str) -> None:
        session[name] = 1
        await session.save()
        session[name] = 2
        if name == "a":
            session.owner = "ann"
        await session.save()

    async def main() -> None:
        session = await sessions.bind_loaded(Asked(), LoopSession)
        session["begun"] = True
        token = (await sessions.commit_async(session)).cookie
        assert isinstance(token, Token)
        session = await sessions.bind_loaded(Asked(token), LoopSession)
        assert session["begun"]
        await asyncio.gather(*(task(session, name) for name in "abcd"))
        token = (await sessions.commit_async(session)).cookie
        assert isinstance(token, Token)
        session = await sessions.bind_loaded(Asked(token), LoopSession)
        assert session == {"begun": True, **dict.fromkeys("abcd", 2)}
        assert session.owner == "ann"
        await sessions.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("cancelled", [(0,), (1,), (0, 1), (1, 2), (0, 2)], ids=str)
def test_tasks_that_are_cancelled_while_they_write_or_wait(valkey: Valkey, cancelled: tuple[int, ...]) -> None:
    """The turn goes on to the next one, and what they had set is written by it, or by the commit."""
    sessions = Sessions(SessionOptions(store=StoreURL(valkey.url), store_timeout=Duration(5)))

    async def task(session: LoopSession, name: str) -> None:
        session[name] = 1
        await session.save()

    async def main() -> None:
        session = await sessions.bind_loaded(Asked(), LoopSession)
        session["begun"] = True
        token = (await sessions.commit_async(session)).cookie
        assert isinstance(token, Token)
        session = await sessions.bind_loaded(Asked(token), LoopSession)
        assert session["begun"]
        tasks = [asyncio.create_task(task(session, name)) for name in "abcd"]
        await asyncio.sleep(0)  # one writes, the others wait for their turn
        for place in cancelled:
            tasks[place].cancel()
        async with asyncio.timeout(5):
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(end, asyncio.CancelledError) for end in ends] == [n in cancelled for n in range(4)]
            await sessions.commit_async(session)
        session = await sessions.bind_loaded(Asked(token), LoopSession)
        assert session == {"begun": True, **dict.fromkeys("abcd", 1)}
        await sessions.aclose()

    asyncio.run(main())


def test_a_rotation_while_a_save_is_under_way(browser: Browser) -> None:
    """It is done by the next commit."""
    with browser.visit() as session:
        session["a"] = 1
    session = browser.arrive()
    session["a"] = 2
    written(save(session), session, browser, lambda session: session.rotate())
    browser.leave(session)
    assert isinstance(browser.last.cookie, Token)
    assert dict(browser.arrive()) == {"a": 2}


def test_two_tasks_that_save_a_new_session_at_once_begin_one(browser: Browser) -> None:
    """Else there were a second one that nobody has the token of, in the owner's list for as long as it lives."""
    session = browser.arrive()
    session.owner = "ann"
    session["a"] = 1
    store, first, second = browser.sessions.access.store, save(session), save(session)
    waiting: deque[tuple[Steps[None], Any]] = deque([(first, None), (second, None)])
    while waiting:
        steps, answer = waiting.popleft()
        with suppress(StopIteration):
            waiting.append((steps, steps.send(answer).ask(store)))
    session["b"] = 2
    browser.leave(session)
    assert dict(browser.arrive()) == {"a": 1, "b": 2}
    assert [one.id for one in browser.sessions.list("ann")] == [session.id]


def test_saves_of_two_tasks_overlap(browser: Browser) -> None:
    """Each knows what the other has written: what one has put, and the other took away meanwhile, goes."""
    with browser.visit() as session:
        session["a"] = 1
    session, store = browser.arrive(), browser.sessions.access.store
    session.update(b=2, c=2)
    first = save(session)
    asked = next(first)
    session.pop("b")
    session.update(a=2, c=3)
    second = save(session)
    then = next(second)
    session["d"] = 4
    for steps, answer in ((first, asked.ask(store)), (second, then.ask(store))):
        with pytest.raises(StopIteration):
            steps.send(answer)
    browser.leave(session)
    assert dict(browser.arrive()) == {"a": 2, "c": 3, "d": 4}


def test_a_logout_while_a_transaction_is_written(browser: Browser) -> None:
    """It counts, and the transaction is no part of what comes after it."""
    with browser.visit() as session:
        session["stock"] = 1
    session, store = browser.arrive(), browser.sessions.access.store
    transaction = iter(session.transaction())
    next(transaction)["stock"] = 0
    run = browser.sessions.access.run

    def ended(steps: Steps[Any]) -> Any:
        answer = next(steps).ask(store)
        session.clear()
        with pytest.raises(StopIteration) as end:
            steps.send(answer)
        return end.value.value

    browser.sessions.access.run = ended  # type: ignore[method-assign]
    with pytest.raises(StopIteration):
        next(transaction)
    browser.sessions.access.run = run  # type: ignore[method-assign]
    browser.leave(session)
    assert browser.last.cookie is Cookie.DELETE
    assert browser.token is None


def test_a_session_that_is_left_as_saved_is_settled(browser: Browser) -> None:
    """The commit after a save costs nothing, and the client is told of a write once."""
    with browser.visit() as session:
        session["a"] = 1
    session = browser.arrive()
    session["a"] = 2
    written(save(session), session, browser, lambda session: session.get("a"))
    assert browser.leave(session).cookie is Cookie.REFRESH
    assert is_settled(session)
    assert browser.leave(session).cookie is Cookie.KEEP
    binding = session.opened()
    assert binding is not None
    assert not binding.changed
