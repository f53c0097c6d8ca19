"""What a session means, request by request; the interleavings are written out, nothing is left to chance."""

from __future__ import annotations

import asyncio
import copy
import json
from itertools import count
from operator import itemgetter
from typing import Any
from uuid import UUID

import pytest
from markupsafe import Markup

from session.visits import Browser
from support.counting import CountingStore
from support.waiting import eventually
from unsticky.errors import (
    DamagedRecord,
    SessionConflict,
    SessionHeadersSent,
    SessionUnavailable,
    SessionValueError,
    StoreError,
)
from unsticky.scalars import Duration, Secret, StoreURL
from unsticky.session.breaker import Breaker
from unsticky.session.commit import Committed, Cookie
from unsticky.session.options import SessionOptions
from unsticky.session.session import Session
from unsticky.session.store import Change
from unsticky.session.token import Token
from unsticky.sessions import Sessions
from unsticky.testing import FakeClock

names = count()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sessions(clock: FakeClock) -> Sessions:
    return make(clock)


def make(clock: FakeClock, **options: Any) -> Sessions:
    settings = SessionOptions(store=StoreURL("memory://"), idle_timeout=Duration(1000), **options)
    sessions = Sessions(settings, clock=clock)
    sessions.access.store = CountingStore(sessions.access.store)
    return sessions


@pytest.fixture
def browser(sessions: Sessions) -> Browser:
    return Browser(sessions)


@pytest.fixture
def calls(sessions: Sessions) -> list[str]:
    return sessions.access.store.calls


def test_what_is_written_is_read(browser: Browser) -> None:
    """The plain thing."""
    with browser.visit() as session:
        session["user"] = "ann"
    with browser.visit() as session:
        assert session["user"] == "ann"
        assert dict(session) == {"user": "ann"} == {**session}
        assert json.dumps(session) == '{"user": "ann"}'


def test_an_unused_session_costs_nothing(browser: Browser, calls: list[str]) -> None:
    """No store call, no cookie, whether there is a session or not."""
    with browser.visit():
        pass
    assert calls == []
    with browser.visit() as session:
        session["a"] = 1
    calls.clear()
    with browser.visit() as session:
        repr(session)
    assert calls == []
    assert browser.last.cookie is Cookie.KEEP


def test_reading_writes_nothing(browser: Browser, calls: list[str]) -> None:
    """One load, no write, no cookie."""
    with browser.visit() as session:
        session["cart"] = [{"item": (1, UUID(int=1))}]
    calls.clear()
    with browser.visit() as session:
        assert session["cart"] == [{"item": (1, UUID(int=1))}]
    assert calls == ["load"]
    assert browser.last.cookie is Cookie.KEEP


def test_an_empty_new_session_is_not_stored(browser: Browser, calls: list[str]) -> None:
    """Reading, or writing and taking back, makes no record: anybody could fill the store otherwise."""
    with browser.visit() as session:
        assert session.get("a") is None
    with browser.visit() as session:
        session["a"] = 1
        del session["a"]
    assert calls == []
    assert browser.token is None


def test_changes_inside_of_values_are_seen(browser: Browser) -> None:
    """Appending to a list in the session is enough."""
    with browser.visit() as session:
        session["cart"] = [{"n": 1}]
    with browser.visit() as session:
        session["cart"][0]["n"] += 1
        session["cart"].append((1,))
    with browser.visit() as session:
        assert session["cart"] == [{"n": 2}, (1,)]


@pytest.mark.parametrize(
    "reach",
    [
        lambda session: session["cart"],
        lambda session: session.get("cart"),
        lambda session: session.setdefault("cart", []),
        lambda session: dict(session)["cart"],
        lambda session: {**session}["cart"],
        lambda session: session.copy()["cart"],
        lambda session: (session | {})["cart"],
        lambda session: next(value for name, value in session.items() if name == "cart"),
        lambda session: next(value for value in session.values() if isinstance(value, list)),
        lambda session: itemgetter("cart")(session),
        lambda session: matched(session),
    ],
)
def test_changes_inside_are_seen_however_the_value_was_reached(browser: Browser, reach: Any) -> None:
    """Only values that nobody has had are taken as unchanged unseen: each way to get one counts."""
    with browser.visit() as session:
        session.update(cart=["tea"], user="ada")
    with browser.visit() as session:
        reach(session).append("milk")
    with browser.visit() as session:
        assert session == {"cart": ["tea", "milk"], "user": "ada"}


def matched(session: Any) -> Any:
    match session:
        case {"user": "ada", **others}:
            return others["cart"]


def test_what_was_saved_may_still_change(browser: Browser) -> None:
    """The application keeps the list that it has assigned."""
    cart = ["tea"]
    with browser.visit() as session:
        session["cart"] = cart
        session.save()
        cart.append("milk")
    with browser.visit() as session:
        for draft in session.transaction():
            cart = draft["cart"]
            cart.append("jam")
        cart.append("salt")
    with browser.visit() as session:
        assert session["cart"] == ["tea", "milk", "jam", "salt"]


def test_a_misspelt_attribute_is_an_error(browser: Browser) -> None:
    """`session.ower = ...` must not seem to have logged somebody in."""
    with browser.visit() as session, pytest.raises(AttributeError):
        session.ower = "ada"  # type: ignore[attr-defined]


def test_an_equal_value_of_another_type_is_seen(browser: Browser) -> None:
    """True for 1, a tuple for a list."""
    with browser.visit() as session:
        session.update(a=1, b=[1], c=0.0)
    with browser.visit() as session:
        session.update(a=True, b=(1,), c=-0.0)
    with browser.visit() as session:
        assert session["a"] is True
        assert session["b"] == (1,)
        assert str(session["c"]) == "-0.0"


@pytest.mark.parametrize("order", ["first", "second"])
def test_parallel_writes_of_different_keys_both_survive(browser: Browser, order: str) -> None:
    """The lost update that every Python session library has."""
    with browser.visit() as session:
        session["start"] = 0
    one, two = browser.arrive(), browser.arrive()
    one["a"] = 1
    two["b"] = 2
    for session in (one, two) if order == "first" else (two, one):
        browser.leave(session)
    with browser.visit() as session:
        assert dict(session) == {"start": 0, "a": 1, "b": 2}


def test_same_key_last_writer_wins_and_removal_is_a_write(browser: Browser) -> None:
    """Per key, not per session."""
    with browser.visit() as session:
        session.update(a=0, b=0)
    one, two = browser.arrive(), browser.arrive()
    one["a"] = 1
    two["a"] = 2
    del two["b"]
    browser.leave(two)
    browser.leave(one)
    with browser.visit() as session:
        assert dict(session) == {"a": 1}


@pytest.mark.parametrize("writes", [False, True])
def test_a_slow_request_does_not_undo_a_logout(browser: Browser, writes: bool) -> None:
    """Reader or writer: the record stays deleted, and the client gets no cookie back."""
    with browser.visit() as session:
        session["user"] = "ann"
    stolen = browser.token
    slow = browser.arrive()
    assert slow["user"] == "ann"
    with browser.visit() as session:
        session.clear()
    if writes:
        slow["late"] = 1
    committed = browser.sessions.commit(slow)
    assert committed.cookie is Cookie.KEEP
    assert committed.lost is writes
    browser.token = stolen
    with browser.visit() as session:
        assert dict(session) == {}


def test_clear_ends_the_session_and_later_writes_begin_another(browser: Browser) -> None:
    """The usual login: clear, then write. Safe from fixation."""
    with browser.visit() as session:
        session["basket"] = 1
    before = browser.token
    with browser.visit() as session:
        session.clear()
        session["user"] = "ann"
    assert browser.token is not None
    assert before is not None
    assert browser.token.key != before.key
    with browser.visit() as session:
        assert dict(session) == {"user": "ann"}
    browser.token = before
    with browser.visit() as session:
        assert dict(session) == {}


def test_clear_without_a_session_sets_no_cookie(browser: Browser, calls: list[str]) -> None:
    """There is nothing to end."""
    with browser.visit() as session:
        session.clear()
    assert calls == []
    assert browser.last.cookie is Cookie.KEEP


def test_removing_the_last_key_ends_the_session(browser: Browser) -> None:
    """One by one, as Flask's `session.pop("user")` does it."""
    with browser.visit() as session:
        session["user"] = 1
    with browser.visit() as session:
        session.pop("user")
    assert browser.last.cookie is Cookie.DELETE


def test_removing_the_last_key_spares_what_a_parallel_request_wrote(browser: Browser) -> None:
    """The record goes only if no field is left by then."""
    with browser.visit() as session:
        session["user"] = 1
    slow = browser.arrive()
    slow.pop("user")
    with browser.visit() as session:
        session["other"] = 2
    browser.leave(slow)
    assert browser.last.cookie is not Cookie.DELETE
    with browser.visit() as session:
        assert dict(session) == {"other": 2}


def test_unknown_tokens_are_not_adopted(browser: Browser, sessions: Sessions) -> None:
    """A client can't choose its session: that would be fixation."""
    planted = Token("h" * 22, "s" * 43)
    browser.token = planted
    with browser.visit() as session:
        assert session.new
        session["user"] = "ann"
    assert browser.token is not None
    assert browser.token.key != planted.key
    assert sessions.access.store.load(planted.key) is None


def test_the_right_handle_with_a_wrong_secret_is_nobody(browser: Browser) -> None:
    """Who reads the store's keys can't become a user."""
    with browser.visit() as session:
        session["user"] = "ann"
    mine = browser.token
    assert mine is not None
    browser.token = Token(mine.handle, "s" * 43)
    with browser.visit() as session:
        assert dict(session) == {}
        session["x"] = 1
    browser.token = mine
    with browser.visit() as session:
        assert dict(session) == {"user": "ann"}


def test_idle_timeout(browser: Browser, clock: FakeClock) -> None:
    """It lives on while it is used, at least the timeout and at most the touch interval longer."""
    with browser.visit() as session:
        session["a"] = 1
    for _ in range(5):
        clock.advance(999)
        with browser.visit() as session:
            assert session["a"] == 1
    clock.advance(1061)
    with browser.visit() as session:
        assert dict(session) == {}


def test_touch_is_throttled(browser: Browser, clock: FakeClock, calls: list[str]) -> None:
    """A reader writes at most once per touch interval (here 60 s), and the cookie goes with the touch."""
    with browser.visit() as session:
        session["a"] = 1
    calls.clear()
    for _ in range(6):
        clock.advance(20)
        with browser.visit() as session:
            assert session["a"] == 1
    assert calls == ["load", "load", "load", "update"] * 2
    assert browser.last.cookie is Cookie.REFRESH


def test_a_request_that_does_not_use_the_session_does_not_extend_it(browser: Browser, clock: FakeClock) -> None:
    """Otherwise a page that polls keeps a user logged in for ever."""
    with browser.visit() as session:
        session["a"] = 1
    for _ in range(3):
        clock.advance(600)
        with browser.visit():
            pass
    with browser.visit() as session:
        assert dict(session) == {}


def test_absolute_timeout(clock: FakeClock) -> None:
    """However busy it is."""
    browser = Browser(make(clock, absolute_timeout=Duration(3000)))
    with browser.visit() as session:
        session["a"] = 1
    for _ in range(4):
        clock.advance(700)
        with browser.visit() as session:
            assert session["a"] == 1
            session["n"] = clock.time()
    clock.advance(700)
    with browser.visit() as session:
        assert dict(session) == {}


def test_rotation_keeps_the_data_and_serves_requests_in_flight(browser: Browser, clock: FakeClock) -> None:
    """The old token reads and writes for the grace, then no longer."""
    with browser.visit() as session:
        session["a"] = 1
    old = browser.token
    slow = browser.arrive()
    with browser.visit() as session:
        session.rotate()
    assert browser.token != old
    slow["b"] = 2
    assert browser.sessions.commit(slow).cookie is not browser.token
    late = Browser(browser.sessions, old)
    clock.advance(9)
    with late.visit() as session:
        assert dict(session) == {"a": 1, "b": 2}
        session["c"] = 3
    assert late.last.cookie is Cookie.KEEP, "the old token must not be sent again: it would replace the new one"
    clock.advance(2)
    with late.visit() as session:
        assert dict(session) == {}
    with browser.visit() as session:
        assert dict(session) == {"a": 1, "b": 2, "c": 3}


def test_strict_rotation_ends_the_old_token_and_late_writes(browser: Browser) -> None:
    """After a change of rights nothing that began before may write."""
    with browser.visit() as session:
        session["a"] = 1
    old = browser.token
    slow = browser.arrive()
    slow["late"] = 1
    with browser.visit() as session:
        session.rotate(strict=True)
    assert browser.sessions.commit(slow).lost
    with Browser(browser.sessions, old).visit() as session:
        assert dict(session) == {}
    with browser.visit() as session:
        assert dict(session) == {"a": 1}


def test_a_strict_rotation_ends_one_that_ran_beside_it(browser: Browser, clock: FakeClock) -> None:
    """The strict one loaded before the other committed, so it never saw that token, which must be worth nothing.

    Found by tests/history.py.
    """
    with browser.visit() as session:
        session["a"] = 1
    graceful, strict = Browser(browser.sessions, browser.token), browser
    first, second = strict.arrive(), graceful.arrive()
    assert first["a"] == second["a"] == 1
    second.rotate()
    graceful.leave(second)
    first.rotate(strict=True)
    strict.leave(first)
    for _ in range(2):
        with graceful.visit() as session:
            assert dict(session) == {}
        with strict.visit() as session:
            assert session["a"] == 1
        clock.advance(5)


def test_a_double_clicked_login_leaves_both_good_until_one_is_used(browser: Browser, clock: FakeClock) -> None:
    """Whichever cookie the client kept works; the other ends after the grace."""
    with browser.visit() as session:
        session["a"] = 1
    one, two = Browser(browser.sessions, browser.token), Browser(browser.sessions, browser.token)
    first, second = one.arrive(), two.arrive()
    first.rotate()
    second.rotate()
    one.leave(first)
    two.leave(second)
    clock.advance(100)
    with two.visit() as session:
        assert session["a"] == 1
    with one.visit() as session:
        assert session["a"] == 1
    clock.advance(11)
    alive = []
    for each in (one, two):
        with each.visit() as session:
            alive.append(dict(session) == {"a": 1})
    assert alive == [True, False] or alive == [False, True]


def test_owner_rotates_strictly(browser: Browser, sessions: Sessions) -> None:
    """Setting it is the login; it is in the record for those who list sessions by user."""
    with browser.visit() as session:
        session["a"] = 1
    old = browser.token
    with browser.visit() as session:
        session.owner = 42
        assert session.owner == "42"
    assert browser.token is not None
    assert browser.token != old
    record = sessions.access.store.load(browser.token.key)
    assert record is not None
    assert record.owner == "42"
    with browser.visit() as session:
        assert session.owner == "42"
        session.owner = "42"
    assert browser.last.cookie is Cookie.KEEP
    with browser.visit() as session:
        session.owner = None
    with browser.visit() as session:
        assert session.owner is None


def test_the_store_holds_no_token(browser: Browser, sessions: Sessions) -> None:
    """Neither handle nor secret, in no field and no key."""
    with browser.visit() as session:
        session["a"] = 1
    token = browser.token
    assert token is not None
    record = sessions.access.store.load(token.key)
    assert token.secret not in repr(record)
    assert token.handle not in repr(record)


def test_values_of_a_newer_version_are_hidden_and_kept(browser: Browser, sessions: Sessions) -> None:
    """During a rolling deploy an older replica must not delete what it can't read."""
    with browser.visit() as session:
        session["a"] = 1
    token = browser.token
    assert token is not None
    newer = b"\xd4\x63\x00"
    sessions.access.store.update(token.key, Change(generation=0, put={"future": newer}))
    with browser.visit() as session:
        assert dict(session) == {"a": 1}
        del session["a"]
    record = sessions.access.store.load(token.key)
    assert record is not None
    assert record.fields["future"] == newer


def test_a_reader_does_not_write_because_the_codec_changed(browser: Browser, sessions: Sessions) -> None:
    """Other bytes for the same value are left alone."""
    with browser.visit() as session:
        session["n"] = [1]
    token = browser.token
    assert token is not None
    sessions.access.store.update(token.key, Change(generation=0, put={"n": b"\x91\xcc\x01"}))
    sessions.access.store.calls.clear()
    with browser.visit() as session:
        assert session["n"] == [1]
    assert sessions.access.store.calls == ["load"]


def test_an_outage_is_raised_at_first_use_and_remembered(browser: Browser, sessions: Sessions) -> None:
    """One store call; nothing is written afterwards, and no cookie is touched."""
    with browser.visit() as session:
        session["a"] = 1
    sessions.access.store.away = True
    sessions.access.store.calls.clear()
    session = browser.arrive()
    for _ in range(2):
        with pytest.raises(SessionUnavailable):
            session.get("a")
    assert sessions.access.store.calls == ["load"]
    assert browser.sessions.commit(session).cookie is Cookie.KEEP
    with browser.visit():
        pass


def test_an_outage_at_commit_is_raised(browser: Browser, sessions: Sessions) -> None:
    """The host answers 503: what was written is not promised."""
    session = browser.arrive()
    session["a"] = 1
    sessions.access.store.away = True
    with pytest.raises(SessionUnavailable):
        browser.leave(session)


def test_headers_sent(browser: Browser) -> None:
    """No session can begin or rotate then; one that exists can still change."""
    session = browser.arrive()
    session.seal()
    with pytest.raises(SessionHeadersSent, match="Write to the session before the first byte"):
        session["a"] = 1
    with browser.visit() as session:
        session["a"] = 1
    session = browser.arrive()
    session["b"] = 1
    browser.leave(session)
    session.seal()
    session["c"] = 1
    with pytest.raises(SessionHeadersSent):
        session.rotate()
    browser.sessions.commit(session)
    with browser.visit() as session:
        assert dict(session) == {"a": 1, "b": 1, "c": 1}


def test_bad_values_and_keys_name_their_place(browser: Browser) -> None:
    """At the commit, for values may change until then; keys at once."""
    session = browser.arrive()
    session["cart"] = [1, {"x": object()}]
    with pytest.raises(SessionValueError, match=r"session\['cart'\]\[1\]\['x'\]: object can't be stored"):
        browser.leave(session)
    with pytest.raises(SessionValueError, match="keys are texts, not int"):
        session[1] = 1  # type: ignore[index]
    with pytest.raises(SessionValueError, match="reserved"):
        session["unsticky.proof:x"] = 1


USES: list[Any] = [list, len, bool, reversed, dict, copy.copy, copy.deepcopy]
USES += [lambda s: s["a"], lambda s: s.get("a"), lambda s: "a" in s, lambda s: s == {}, lambda s: {**s}]
USES += [lambda s: s.keys(), lambda s: s.values(), lambda s: s.items(), lambda s: s.copy(), lambda s: s | {}]
USES += [lambda s: {} | s, lambda s: s.setdefault("a", 1), lambda s: s.pop("zz", None), lambda s: s.update({})]
USES += [lambda s: s.popitem(), lambda s: s.owner, lambda s: s.new, lambda s: s.rotate(), lambda s: s.clear()]


@pytest.mark.parametrize("use", USES)
def test_every_way_to_use_it_loads_it(browser: Browser, calls: list[str], use: Any) -> None:
    """Also where no framework announces the use, as with `scope["session"]`."""
    with browser.visit() as session:
        session["a"] = 1
    calls.clear()
    session = browser.arrive()
    use(session)
    assert calls == ["load"]
    assert session.accessed


def test_copies_are_plain_dicts(browser: Browser) -> None:
    """A second session object of one request would write twice."""
    with browser.visit() as session:
        session["a"] = [1]
        for other in (session.copy(), copy.copy(session), copy.deepcopy(session), session | {}, {} | session):
            assert type(other) is dict
            assert other == {"a": [1]}


def test_a_session_without_a_request_is_a_dict() -> None:
    """As Starlette's own tests make one."""
    session = Session({"a": 1})
    assert session.pop("b", None) is None
    assert not session.accessed
    session |= {"b": 2}
    assert dict(session) == {"a": 1, "b": 2}
    assert session.modified


def test_two_tokens_presented_at_once_do_not_end_each_other(browser: Browser, clock: FakeClock) -> None:
    """After a double-clicked login both cookies may arrive in overlapping requests: one must live on."""
    with browser.visit() as session:
        session["a"] = 1
    one, two = Browser(browser.sessions, browser.token), Browser(browser.sessions, browser.token)
    first, second = one.arrive(), two.arrive()
    first.rotate()
    second.rotate()
    one.leave(first)
    two.leave(second)
    clock.advance(100)
    first, second = one.arrive(), two.arrive()
    assert (first["a"], second["a"]) == (1, 1)
    one.leave(first)
    assert two.leave(second).cookie is Cookie.KEEP, "a token on its way out is not sent again"
    clock.advance(11)
    alive = []
    for each in (one, two):
        with each.visit() as session:
            alive.append(dict(session) == {"a": 1})
    assert alive == [True, False]


def test_a_logout_counts_even_if_what_follows_cannot_be_stored(browser: Browser) -> None:
    """And a second commit, of an error page, still tells the client."""
    with browser.visit() as session:
        session["a"] = 1
    stolen = browser.token
    session = browser.arrive()
    session.clear()
    session["x"] = object()
    with pytest.raises(SessionValueError):
        browser.leave(session)
    with Browser(browser.sessions, stolen).visit() as session:
        assert dict(session) == {}


def test_a_logout_is_tried_again_after_an_outage(browser: Browser, sessions: Sessions) -> None:
    """The key to delete is not forgotten before it is deleted."""
    with browser.visit() as session:
        session["a"] = 1
    session = browser.arrive()
    session.clear()
    sessions.access.store.away = True
    with pytest.raises(SessionUnavailable):
        browser.leave(session)
    sessions.access.store.away = False
    assert browser.leave(session).cookie is Cookie.DELETE


def test_the_owner_alone_is_a_session(browser: Browser) -> None:
    """`session.owner = user.id` may be all that a login writes, and the last key's removal spares it."""
    with browser.visit() as session:
        session.clear()
        session.owner = "u1"
    with browser.visit() as session:
        assert session.owner == "u1"
        session["a"] = 1
    with browser.visit() as session:
        del session["a"]
    with browser.visit() as session:
        assert session.owner == "u1"
        session.clear()
    assert browser.token is None


def test_a_reader_is_served_though_its_touch_cannot_be_written(
    browser: Browser, sessions: Sessions, clock: FakeClock
) -> None:
    """A locked or full store refuses writers only."""
    with browser.visit() as session:
        session["a"] = 1
    clock.advance(100)
    session = browser.arrive()
    assert session["a"] == 1
    sessions.access.store.away = True
    assert browser.leave(session).cookie is Cookie.KEEP


def test_ended_sessions_are_cleared_in_the_background(clock: FakeClock) -> None:
    """While new sessions come in, at most every ten minutes: no timer, no cron job, no file that grows for ever."""
    sessions = Sessions(SessionOptions(store=StoreURL("memory://"), idle_timeout=Duration(10)), clock=clock)
    old = Browser(sessions)
    with old.visit() as session:
        session["a"] = 1
    clock.advance(2000)
    with Browser(sessions).visit() as session:
        session["b"] = 1
    eventually(lambda: sessions.access.store.purge() == 0 and len(sessions.access.store._shelf.records) == 1)  # type: ignore[attr-defined]
    assert old.token is not None
    assert sessions.access.store.load(old.token.key) is None


@pytest.mark.parametrize("name", ["\ud800", "a\udfff"])
def test_surrogates_are_refused_at_once(browser: Browser, name: str) -> None:
    """In keys and owners."""
    session = browser.arrive()
    with pytest.raises(SessionValueError, match="surrogates"):
        session[name] = 1
    with pytest.raises(SessionValueError, match="surrogates"):
        session.owner = name


def test_two_sessions_compare_by_what_is_in_them(browser: Browser) -> None:
    """Loaded or not."""
    with browser.visit() as session:
        session["a"] = 1
    assert browser.arrive() == browser.arrive()


def test_a_write_within_the_touch_interval_moves_no_clock(
    browser: Browser, sessions: Sessions, clock: FakeClock
) -> None:
    """The touch lags behind as a reader's does; the session lives its idle timeout all the same."""
    with browser.visit() as session:
        session["a"] = 1
    begun = clock.time()
    clock.advance(59)
    with browser.visit() as session:
        session["a"] = 2
    assert browser.token is not None
    record = sessions.access.store.load(browser.token.key)
    assert record is not None
    assert record.touched == begun
    clock.advance(1000)
    assert dict(browser.arrive()) == {"a": 2}


def test_renewal_gives_another_token_in_time(clock: FakeClock) -> None:
    """A token older than the timeout is replaced by a request that uses it; those in flight are served on."""
    browser = Browser(make(clock, renewal_timeout=Duration(300)))
    with browser.visit() as session:
        session["a"] = 1
    tokens = [browser.token]
    for _ in range(6):
        clock.advance(100)
        with browser.visit() as session:
            assert session["a"] == 1
        if browser.token != tokens[-1]:
            tokens.append(browser.token)
    assert len(tokens) == 3
    with Browser(browser.sessions, tokens[1]).visit() as session:
        assert session["a"] == 1
    clock.advance(11)
    with Browser(browser.sessions, tokens[1]).visit() as session:
        assert dict(session) == {}


def test_sizes_are_limited(clock: FakeClock) -> None:
    """Per key and per session; what was there stays, and the message names place, size and setting."""
    browser = Browser(make(clock, maximum_value_size=1000, maximum_session_size=1500))
    with browser.visit() as session:
        session["a"] = "x" * 900
    session = browser.arrive()
    session["b"] = "x" * 1000
    with pytest.raises(SessionValueError, match=r"session\['b'\]: takes 1,003 bytes; a key may take 1,000 "):
        browser.leave(session)
    session = browser.arrive()
    session["b"] = "x" * 900
    with pytest.raises(SessionValueError, match=r"session: takes 1,808 bytes; it may take 1,500 .*session_size"):
        browser.leave(session)
    with browser.visit() as session:
        assert dict(session) == {"a": "x" * 900}
        session["a"] = ""
        session["b"] = "x" * 900


def test_save_and_reload(browser: Browser) -> None:
    """Saved at once, for others to see; the client is told with the response."""
    session = browser.arrive()
    session["a"] = 1
    session.save()
    assert session.id is not None
    assert browser.sessions.find(session.id) is not None
    session["b"] = 2
    session.reload()
    assert dict(session) == {"a": 1}
    browser.leave(session)
    assert browser.token is not None
    slow = browser.arrive()
    assert dict(slow) == {"a": 1}
    with browser.visit() as session:
        session["a"] = 3
        session.rotate()
    slow.reload()
    assert dict(slow) == {"a": 3}
    with browser.visit() as session:
        session.clear()
        session.save()
    assert browser.last.cookie is Cookie.DELETE
    slow.reload()
    assert dict(slow) == {}
    slow["late"] = 1
    assert isinstance(browser.sessions.commit(slow).cookie, Token)


def test_a_saved_rotation_is_told_once(browser: Browser) -> None:
    """The newest token counts, however often the session is saved."""
    with browser.visit() as session:
        session["a"] = 1
    session = browser.arrive()
    session.rotate()
    session.save()
    session["b"] = 1
    session.save()
    browser.leave(session)
    assert isinstance(browser.last.cookie, Token)
    with browser.visit() as session:
        assert dict(session) == {"a": 1, "b": 1}


@pytest.mark.parametrize("verb", ["save", "transaction"])
def test_a_saved_touch_is_told(browser: Browser, clock: FakeClock, verb: str) -> None:
    """Else the cookie of an app that saves at each request would end while its session lives."""
    with browser.visit() as session:
        session["a"] = 1
    clock.advance(500)
    session = browser.arrive()
    session["b"] = 1
    if verb == "save":
        session.save()
    for draft in session.transaction() if verb == "transaction" else ():
        draft["c"] = 1
    browser.leave(session)
    assert browser.last == Committed(Cookie.REFRESH, browser.token)
    with browser.visit() as session:
        session["c"] = 2
        session.save()
        session.clear()
        session.save()
    assert browser.last.cookie is Cookie.DELETE


def test_a_damaged_record_is_no_session(browser: Browser, sessions: Sessions, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could read it, now or later: its client begins anew, and the log says so."""
    with browser.visit() as session:
        session["a"] = 1
    load = sessions.access.store.load

    def damaged(key: str) -> Any:
        raise DamagedRecord("a record is damaged")

    sessions.access.store.load = damaged
    with browser.visit() as session:
        assert dict(session) == {}
        assert session.new
        session["b"] = 1
    assert "can't be read" in caplog.text
    sessions.access.store.load = load
    with browser.visit() as session:
        assert dict(session) == {"b": 1}


def test_with_read_only_outages_a_session_is_empty_and_refuses_writes(clock: FakeClock) -> None:
    """Pages that only show who is logged in go on; no cookie is touched, and no write is promised."""
    browser = Browser(make(clock, on_outage="read_only"))
    with browser.visit() as session:
        session["a"] = 1
    store = browser.sessions.access.store
    store.away = True
    with browser.visit() as session:
        assert session.available is False
        assert session.get("a") is None
        for write in (lambda s: s.update(b=1), lambda s: s.clear(), lambda s: s.setdefault("c", 1)):
            with pytest.raises(SessionUnavailable):
                write(session)
        with pytest.raises(SessionUnavailable):
            session.owner = "u"
        with pytest.raises(SessionUnavailable):
            session.rotate(strict=True)
        with pytest.raises(SessionUnavailable):
            session.pop("a", None)  # it may be there: a logout must not seem to succeed
    assert browser.last.cookie is Cookie.KEEP
    store.away = False
    with browser.visit() as session:
        assert session.available
        assert dict(session) == {"a": 1}


def test_the_breaker_spares_a_store_that_fails(clock: FakeClock) -> None:
    """After five failures it is not asked for a second; then one request tries."""
    sessions = make(clock)
    sessions.access._breaker = Breaker(5, 1.0)
    browser, store = Browser(sessions), sessions.access.store
    with browser.visit() as session:
        session["a"] = 1
    store.away = True
    store.calls.clear()

    def use() -> None:
        with pytest.raises(SessionUnavailable):
            browser.arrive().get("a")

    for _ in range(20):
        use()
    assert store.calls == ["load"] * 5
    clock.advance(1)
    use()
    use()
    assert store.calls == ["load"] * 6
    store.away = False
    clock.advance(1)
    for _ in range(3):
        assert browser.arrive()["a"] == 1
    assert store.calls == ["load"] * 9


def test_its_id_can_be_asked_before_it_is_used(browser: Browser, calls: list[str]) -> None:
    """As outbound calls do that hash by it: of a new client nothing is looked up, and the id is the one that stays."""
    session = browser.arrive()
    asked = session.id
    assert calls == []
    session["a"] = 1
    browser.leave(session)
    assert calls == ["create"]
    assert browser.token is not None
    assert browser.token.key == asked
    first = browser.token
    with browser.visit() as session:
        assert session.id == asked
        session.clear()
        session["b"] = 1
    assert browser.token.key != asked
    assert browser.token != first


class Failing:
    """A store whose next call of the verb `fails` does so, once."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.fails = ""

    def __getattr__(self, verb: str) -> Any:
        def call(*arguments: Any) -> Any:
            if verb != self.fails:
                return getattr(self._store, verb)(*arguments)
            self.fails = ""
            raise StoreError("refused")

        return call


def failing(sessions: Sessions) -> Failing:
    sessions.access.store = store = Failing(sessions.access.store)
    return store


def test_a_logout_that_a_save_could_not_write_is_written_by_the_commit(browser: Browser, sessions: Sessions) -> None:
    """The app went on after the failure: the client gets the new session, and the old one ends."""
    with browser.visit() as session:
        session["a"] = 1
    old = Browser(sessions, browser.token)
    session = browser.arrive()
    session.clear()
    session["user"] = "ann"
    failing(sessions).fails = "delete"
    with pytest.raises(SessionUnavailable):
        session.save()
    browser.leave(session)
    with browser.visit() as session:
        assert dict(session) == {"user": "ann"}
    with old.visit() as session:
        assert not session


@pytest.mark.parametrize("before", [False, True])
def test_a_token_is_told_though_the_save_failed_after_it_was_stored(clock: FakeClock, before: bool) -> None:
    """Counting the owner's sessions failed; the login itself is in the store, and the commit went well."""
    sessions = make(clock, maximum_sessions=2)
    browser = Browser(sessions)
    if before:
        with browser.visit() as session:
            session["a"] = 1
    session = browser.arrive()
    session["user"] = session.owner = "ann"
    store, update = failing(sessions), sessions.access.store.update if before else sessions.access.store.create

    def then_fail(key: str, argument: Any) -> Any:
        if key.startswith("v1:"):
            store.fails = "load"
        return update(key, argument)

    setattr(store, "update" if before else "create", then_fail)
    with pytest.raises(SessionUnavailable):
        session.save()
    browser.leave(session)
    with browser.visit() as session:
        assert session["user"] == "ann"


def test_a_slow_request_does_not_send_the_token_of_before_a_rotation(browser: Browser, sessions: Sessions) -> None:
    """It would take the new one's place at the client, and end with the grace. What it wrote is stored."""
    with browser.visit() as session:
        session["a"] = 1
    slow = browser.arrive()
    slow["b"] = 2
    with browser.visit() as session:
        session.rotate()
    done = sessions.commit(slow)
    assert (done.cookie, done.token) == (Cookie.KEEP, None)
    slow["c"] = 3
    assert sessions.commit(slow).token is None
    with browser.visit() as session:
        assert dict(session) == {"a": 1, "b": 2, "c": 3}


def test_a_reader_is_served_though_its_token_cannot_be_renewed(clock: FakeClock) -> None:
    """As with a touch. Its old token is not sent again, for the renewal may have been applied."""
    sessions = make(clock, renewal_timeout=Duration(100))
    browser = Browser(sessions)
    with browser.visit() as session:
        session["a"] = 1
    clock.advance(150)
    session = browser.arrive()
    assert session["a"] == 1
    failing(sessions).fails = "update"
    assert browser.leave(session)[:2] == (Cookie.KEEP, None)


def test_what_makes_room_is_counted(clock: FakeClock) -> None:
    """One large key may take another's place."""
    browser = Browser(make(clock, maximum_session_size=1000))
    with browser.visit() as session:
        session["a"] = "x" * 800
    with browser.visit() as session:
        del session["a"]
        session["b"] = "x" * 800
    with browser.visit() as session:
        assert list(session) == ["b"]


def test_a_subclass_of_str_names_no_reserved_key(browser: Browser) -> None:
    """Jinja's Markup, for one."""
    session = browser.arrive()
    with pytest.raises(SessionValueError, match="reserved"):
        session[Markup("unsticky.proof:x")] = 1


def test_no_session_begins_after_the_headers(browser: Browser, sessions: Sessions, calls: list[str]) -> None:
    """A WebSocket that was refused has nothing to carry its token: a record would wait for nobody."""
    session = browser.arrive()
    session["a"] = 1
    session.seal()
    calls.clear()
    assert sessions.commit(session).cookie is Cookie.KEEP
    assert calls == []


def test_a_damaged_record_closes_the_breaker(clock: FakeClock) -> None:
    """A store that answers is not away, whatever it answers."""
    sessions = make(clock)
    sessions.access._breaker = breaker = Breaker(2, 1.0)
    browser = Browser(sessions)
    with browser.visit() as session:
        session["a"] = 1
    for error in (StoreError, DamagedRecord, StoreError):

        def load(key: str, error: type[StoreError] = error) -> None:
            raise error("of the test")

        sessions.access.store.load = load
        session = browser.arrive()
        assert session.available is (error is DamagedRecord)
    assert not breaker.is_open


def test_two_tasks_that_load_at_once_share_one_session(browser: Browser, clock: FakeClock) -> None:
    """Else a change inside of a value that the first one got would be looked for in the second one's."""
    with browser.visit() as session:
        session["cart"] = []
    shared = browser.arrive()
    binding = shared.opened()
    assert binding is not None
    assert browser.token is not None
    first, second = binding.loading(), binding.loading()
    for one in (first, second):
        assert next(one).key == browser.token.key
    store = browser.sessions.access.store
    for one in (first, second):
        with pytest.raises(StopIteration):
            one.send(store.load(browser.token.key))
        if one is first:
            shared["cart"].append(1)
    browser.leave(shared)
    with browser.visit() as session:
        assert session["cart"] == [1]


def test_reloading_drops_what_was_never_saved(browser: Browser, calls: list[str]) -> None:
    """In a new session, and in one that begins after a logout, too; the logout stays."""
    with browser.visit() as session:
        session["a"] = session.owner = "ann"
        session.reload()
        assert dict(session) == {}
    assert browser.token is None
    with browser.visit() as session:
        session["a"] = 1
    with browser.visit() as session:
        session.clear()
        session["b"] = 1
        session.reload()
        assert dict(session) == {}
    assert browser.last.cookie is Cookie.DELETE
    assert calls == ["create", "load", "delete"]


def test_a_replica_without_the_keys_leaves_encrypted_sessions_alone(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It lacks its environment, say: nobody is logged out, nothing is written beside, and the log says why."""
    store = StoreURL(f"memory://keys{next(names)}")
    sealed, plain = (
        Sessions(SessionOptions(store=store, encryption_keys=keys), clock=clock)
        for keys in ((Secret("a key of sixteen letters or more"),), ())
    )
    browser = Browser(sealed)
    with browser.visit() as session:
        session["user"] = "ann"
    visitor = Browser(plain, browser.token)
    with pytest.raises(SessionUnavailable):
        visitor.arrive().get("user")
    with pytest.raises(SessionUnavailable):
        visitor.arrive()["more"] = 1
    assert "no `encryption_keys` are set here" in caplog.text
    with browser.visit() as session:
        assert dict(session) == {"user": "ann"}


@pytest.mark.parametrize("owner", [True, 1.5, object(), ["u"], b"u"])
def test_an_owner_is_a_text_a_number_or_a_uuid(browser: Browser, owner: Any) -> None:
    """The repr of a user object would name nobody, and nothing could be listed or revoked by it."""
    session = browser.arrive()
    with pytest.raises(SessionValueError, match="a user's id is a text, an int or a UUID, not"):
        session.owner = owner
    session.owner = UUID(int=7)
    assert session.owner == str(UUID(int=7))


def test_threads_and_loops_of_one_app_have_one_memory(clock: FakeClock) -> None:
    """`memory://` is private to an app, not to a way of asking."""
    sessions = Sessions(SessionOptions(store=StoreURL("memory://")), clock=clock)
    browser = Browser(sessions)
    with browser.visit() as session:
        session.owner = 42

    async def listed() -> int:
        return len(await sessions.list_async(42))

    assert asyncio.run(listed()) == len(sessions.list(42)) == 1
    assert Sessions(SessionOptions(store=StoreURL("memory://")), clock=clock).list(42) == []


def test_a_save_that_was_dropped_is_told(browser: Browser) -> None:
    """Who asks for a save has to know; at the end of the request a late write is dropped in silence."""
    with browser.visit() as session:
        session["a"] = 1
    slow = browser.arrive()
    slow["b"] = 1
    with browser.visit() as session:
        session.clear()
    with pytest.raises(SessionConflict, match="ended elsewhere"):
        slow.save()
    assert dict(slow) == {}
    assert browser.sessions.commit(slow).cookie is Cookie.KEEP
