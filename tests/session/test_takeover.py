"""Taking over another library's session: every interleaving of two requests that present it, and every crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, combinations_with_replacement, product
from typing import Any

import pytest
from itsdangerous import Signer

from session.visits import Browser
from unsticky.errors import SessionUnavailable, StoreError
from unsticky.scalars import Duration, StoreURL
from unsticky.session import takeover
from unsticky.session.commit import Committed, commit
from unsticky.session.inbound import OldSession
from unsticky.session.options import SessionOptions
from unsticky.session.token import Token
from unsticky.session.verbs import ThreadSession
from unsticky.sessions import Sessions
from unsticky.testing import FakeClock

Action = Callable[[ThreadSession], None]


def read(session: ThreadSession) -> None:
    assert session["user"] == "ann"


def write(session: ThreadSession) -> None:
    session["seen"] = True


def append(session: ThreadSession) -> None:
    session["cart"].append("milk")


def clear(session: ThreadSession) -> None:
    session.clear()


def pop_all(session: ThreadSession) -> None:
    for name in list(session):
        del session[name]


def login_after_clear(session: ThreadSession) -> None:
    session.clear()
    session["root"] = True


def login_by_owner(session: ThreadSession) -> None:
    session.owner = "root"
    session["root"] = True


def login_by_rotation(session: ThreadSession) -> None:
    session.rotate()
    session["root"] = True


PLAIN: list[Action] = [read, write, append]
LOGOUTS: list[Action] = [clear, pop_all]
LOGINS: list[Action] = [login_after_clear, login_by_owner, login_by_rotation]
CHANGES = {read: {}, write: {"seen": True}, append: {"cart": ["tea", "milk"]}}


class Place:
    """One app, one old session, and all who present it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        options = SessionOptions(store=StoreURL("memory://"), idle_timeout=Duration(1000))
        self.sessions = Sessions(options, clock=self.clock)

    def browser(self) -> Browser:
        old = OldSession({"user": "ann", "cart": ["tea"]}, "its secret", self.clock.time() + 500)
        return Browser(self.sessions, old=old)

    def shows(self, browser: Browser) -> dict[str, Any]:
        """What a later request of that browser finds, which does not present the old session any more."""
        return dict(Browser(self.sessions, token=browser.token).arrive()) if browser.token else {}


class Commit:
    """The end of one request, an operation at a time."""

    def __init__(self, place: Place, action: Action) -> None:
        self.browser = place.browser()
        self.session = self.browser.arrive()
        action(self.session)
        self._place = place
        self._steps = commit(self.session)
        self._result: Any = None
        self.done: Committed | None = None

    def step(self) -> bool:
        """Do the next operation. False: there was none."""
        if self.done is not None:
            return False
        try:
            self._result = self._steps.send(self._result).ask(self._place.sessions.access.store)
        except StopIteration as stop:
            self.done = stop.value
            if isinstance(self.done.cookie, Token):
                self.browser.token = self.done.cookie
        return True

    def finish(self) -> Committed:
        while self.step():
            pass
        assert self.done is not None
        return self.done


def count(action: Action, other: Action) -> int:
    """More than the operations that `action` can take beside `other`."""
    counts = []
    for first in (True, False):
        place = Place()
        mine, its = Commit(place, action), Commit(place, other)
        if not first:
            its.finish()
        counts.append(sum(1 for _ in iter(mine.step, False)))
    return max(counts) + 1


def interleaved(one: Action, two: Action) -> Iterator[tuple[Place, Commit, Commit]]:
    """Two requests that both have loaded the old session before either commits: all orders of their operations."""
    sizes = count(one, two), count(two, one)
    for places in combinations(range(sum(sizes)), sizes[0]):
        place = Place()
        commits = Commit(place, one), Commit(place, two)
        for turn in range(sum(sizes)):
            commits[turn not in places].step()
        for each in commits:
            each.finish()
        yield place, *commits


@pytest.mark.parametrize(("one", "two"), [*combinations_with_replacement(PLAIN, 2)])
def test_two_at_once_end_in_one_session_with_both_changes(one: Action, two: Action) -> None:
    """Both browsers' new tokens open it, and nothing that either wrote is lost."""
    for place, first, second in interleaved(one, two):
        assert not first.finish().lost
        assert not second.finish().lost
        wanted = {"user": "ann", "cart": ["tea"], **CHANGES[one], **CHANGES[two]}
        assert place.shows(first.browser) == place.shows(second.browser) == wanted
        assert first.browser.token is not None
        assert second.browser.token is not None
        assert first.browser.token.key == second.browser.token.key
        assert first.browser.token != second.browser.token


@pytest.mark.parametrize(("one", "two"), [*product(PLAIN, LOGOUTS)])
def test_a_logout_beside_it_wins(one: Action, two: Action) -> None:
    """Whoever took it over a moment before or after is out, and so is whoever presents it again."""
    for place, first, second in interleaved(one, two):
        assert second.browser.token is None
        for wait in (0, 11):
            place.clock.advance(wait)
            assert place.shows(first.browser) == {}
            assert dict(place.browser().arrive()) == {}


@pytest.mark.parametrize(("one", "two"), [*product(PLAIN, LOGINS)])
def test_nobody_joins_a_login_beside_it(one: Action, two: Action) -> None:
    """The login's session is the login's alone."""
    for place, first, second in interleaved(one, two):
        assert place.shows(second.browser)["root"] is True
        for wait in (0, 11):
            place.clock.advance(wait)
            assert place.shows(first.browser) == {}
            assert dict(place.browser().arrive()) == {}


@pytest.mark.parametrize("login", [login_by_owner, login_by_rotation])
def test_nobody_joins_a_login_that_follows(login: Action) -> None:
    """Within the grace, whoever presents the old session gets into what it became, but not once there was a login."""
    place = Place()
    victim, thief, late = place.browser(), place.browser(), Commit(place, write)
    with victim.visit() as session:
        read(session)
    victim.old = None
    with thief.visit() as session:
        read(session)
    with victim.visit() as session:
        login(session)
    assert late.finish().cookie is not late.browser.token
    assert late.browser.token is None
    with place.browser().visit() as session:
        assert dict(session) == {}
    place.clock.advance(11)
    assert place.shows(victim)["root"] is True
    assert place.shows(thief) == {}


@pytest.mark.parametrize("change", [login_by_owner, login_by_rotation])
def test_who_joins_may_log_in(change: Action) -> None:
    """Then the one that took it over is out, at once or after the grace."""
    place = Place()
    first, second = place.browser(), place.browser()
    with first.visit() as session:
        read(session)
    with second.visit() as session:
        change(session)
    if change is login_by_owner:
        assert place.shows(first) == {}
    place.clock.advance(11)
    assert place.shows(first) == {}
    assert place.shows(second)["root"] is True


@pytest.mark.parametrize("verb", ["save", "reload", "transaction"])
@pytest.mark.parametrize("joins", [False, True])
def test_save_reload_and_transactions_work_in_that_request(verb: str, joins: bool) -> None:
    """In the one that takes it over, and in one that joins it."""
    place = Place()
    if joins:
        with place.browser().visit() as session:
            read(session)
    browser = place.browser()
    with browser.visit() as session:
        if verb == "transaction":
            for draft in session.transaction():
                draft["cart"].append("milk")
        else:
            getattr(session, verb)()
            session["cart"].append("milk")
    assert place.shows(browser) == {"user": "ann", "cart": ["tea", "milk"]}


@pytest.mark.parametrize("action", PLAIN)
@pytest.mark.parametrize("slow", [True, False])
def test_a_crash_after_any_operation_logs_nobody_out(action: Action, slow: bool) -> None:
    """The browser tries again; and what seemed to have crashed may go on."""
    for done in range(count(action, action)):
        place = Place()
        crashed = Commit(place, action)
        for _ in range(done):
            crashed.step()
        again = place.browser()
        with again.visit() as session:
            read(session)
        if slow:
            crashed.finish()
        assert place.shows(again)["user"] == "ann"
        place.clock.advance(11)
        assert dict(place.browser().arrive()) == {}
        with again.visit() as session:
            session.clear()
        assert dict(place.browser().arrive()) == {}


@pytest.mark.parametrize("action", LOGINS)
def test_a_login_that_crashes_after_any_operation_lets_nobody_in(action: Action) -> None:
    """It has to be done again, at worst with an empty session."""
    for done in range(count(action, action)):
        place = Place()
        crashed = Commit(place, action)
        for _ in range(done):
            crashed.step()
        with place.browser().visit() as session:
            assert dict(session) in ({}, {"user": "ann", "cart": ["tea"]})
        with place.browser().visit() as session:
            assert "root" not in session


def test_the_outage_between_two_operations_is_503_and_tried_again() -> None:
    """Not a logout."""
    place = Place()
    browser = place.browser()
    session = browser.arrive()
    session["seen"] = True
    store = place.sessions.access.store
    create, calls = store.create, []

    def failing(key: str, record: Any) -> bool:
        calls.append(key)
        if len(calls) == 2:
            raise StoreError("away")
        return create(key, record)

    store.create = failing  # type: ignore[method-assign]
    with pytest.raises(SessionUnavailable):
        browser.leave(session)
    with browser.visit() as session:
        assert session["user"] == "ann"
    assert place.shows(browser) == {"user": "ann", "cart": ["tea"], "seen": True}


def test_presented_later_it_is_nobody() -> None:
    """After the grace, whether what it became lives or not; and within it, once that has ended."""
    place = Place()
    browser = place.browser()
    with browser.visit() as session:
        write(session)
    place.clock.advance(11)
    with place.browser().visit() as session:
        assert dict(session) == {}
    with browser.visit() as session:
        session.clear()
    with place.browser().visit() as session:
        assert dict(session) == {}


def test_after_the_headers_it_is_left_for_the_next_request() -> None:
    """Its token could not be told: who reads it in a streamed body stays logged in."""
    place = Place()
    browser = place.browser()
    session = browser.arrive()
    session.seal()
    assert session["user"] == "ann"
    browser.leave(session)
    with browser.visit() as session:
        write(session)
    assert place.shows(browser)["seen"] is True


def test_its_id_is_the_one_that_it_keeps() -> None:
    """`session.id`, asked before it is stored."""
    place = Place()
    browser = place.browser()
    with browser.visit() as session:
        read(session)
        before = session.id
    assert browser.token is not None
    assert browser.token.key == before


def test_what_a_session_cannot_hold_is_left_out() -> None:
    """Names of our own fields, which would be proofs, and texts that are not Unicode."""
    own = "unsticky.proof:x"
    plain, encoded = takeover.kept({"a": 1, own: 61, "b": "\ud800", "\ud800": 1})
    assert plain == {"a": 1}
    assert encoded.keys() == {"a"}


@pytest.mark.parametrize("spelling", ["last letter", "padding", "noise"])
def test_one_signature_has_many_spellings_and_one_mark(spelling: str) -> None:
    """base64 ignores letters that are none, and the last bits of the last one: it is presented again all the same."""
    signer = Signer("key")
    text = signer.sign("payload").decode()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = {
        "last letter": text[:-1] + letters[letters.index(text[-1]) ^ 1],
        "padding": text + "=",
        "noise": f"{text[:-1]}!!!!{text[-1]}",
    }[spelling]
    assert signer.unsign(other) == b"payload"
    assert takeover.canonical(other) == takeover.canonical(text) == text


def test_what_is_not_shown() -> None:
    """The mark is a secret."""
    assert repr(Place().browser().old) == "<OldSession>"


@pytest.mark.parametrize("at_once", [False, True])
def test_two_clients_with_the_same_cookie_have_a_session_each(at_once: bool) -> None:
    """What two visitors did alike in one second is one text. A login of the one must not be a login of the other."""
    place = Place()
    ann, bob = (
        Browser(place.sessions, old=OldSession({"lang": "en"}, "its secret", place.clock.time() + 500, client))
        for client in ("ann's", "bob's")
    )
    if at_once:
        one, two = ann.arrive(), bob.arrive()
        assert one["lang"] == two["lang"] == "en"
        ann.leave(one)
        bob.leave(two)
    else:
        for each in (ann, bob):
            with each.visit() as session:
                assert session["lang"] == "en"
    ann.old = bob.old = None
    with ann.visit() as session:
        session["user"] = "ann"
    assert place.shows(bob) == {"lang": "en"}
    with ann.visit() as session:
        session.clear()
    assert place.shows(bob) == {"lang": "en"}
    place.clock.advance(11)
    thief = Browser(place.sessions, old=OldSession({"lang": "en"}, "its secret", place.clock.time() + 400, "a thief's"))
    assert dict(thief.arrive()) == {}
