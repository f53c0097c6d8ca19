"""Requests of one browser, interleaved at random with time, rotations and logouts, against a model that is a dict."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from session.visits import Browser
from unsticky.errors import SessionConflict
from unsticky.scalars import Duration, StoreURL
from unsticky.session.options import SessionOptions
from unsticky.session.session import Session
from unsticky.sessions import Sessions
from unsticky.testing import FakeClock

keys = st.sampled_from("abc")
values = st.one_of(st.none(), st.integers(0, 3), st.lists(st.integers(0, 3), max_size=2), st.just((1,)), st.booleans())
IDLE = 1000.0


class Open:
    """A request under way: the session, what it began with, and what the request did to it."""

    def __init__(self, session: Session, era: int) -> None:
        self.session = session
        self.loaded = copy.deepcopy(session)  # a plain dict
        self.era = era
        self.put: dict[str, Any] = {}
        self.drop: set[str] = set()


class Machine(RuleBasedStateMachine):
    """The model holds what the store must hold: each commit's own keys, in the order of the commits."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        options = SessionOptions(store=StoreURL("memory://"), idle_timeout=Duration(IDLE))
        self.browser = Browser(Sessions(options, clock=self.clock))
        self.model: dict[str, Any] = {}
        self.era = 0  # raised by every end and every strict rotation: older requests write no more
        with self.browser.visit() as session:
            session["a"] = 0
        self.model["a"] = 0

    def read(self) -> dict[str, Any]:
        return dict(self.browser.arrive())

    def restart(self) -> None:
        """The session ended: begin another, as a next visitor would."""
        self.era += 1
        with self.browser.visit() as session:
            session["a"] = 0
        self.model = {"a": 0}

    @rule(target=requests)
    def arrive(self) -> Open:
        return Open(self.browser.arrive(), self.era)

    @rule(request=requests, key=keys, value=values)
    def assign(self, request: Open, key: str, value: Any) -> None:
        request.session[key] = value
        request.put[key] = value
        request.drop.discard(key)

    @rule(request=requests, key=keys)
    def change_inside(self, request: Open, key: str) -> None:
        inside = request.session.get(key)
        if isinstance(inside, list):
            inside.append(9)
            request.put[key] = list(inside)

    @rule(request=requests, key=keys)
    def remove(self, request: Open, key: str) -> None:
        if key in request.session and len(request.session) > 1:
            del request.session[key]
            request.put.pop(key, None)
            request.drop.add(key)

    def written_by(self, request: Open) -> tuple[dict[str, Any], set[str]]:
        wrote = {key: value for key, value in request.put.items() if not same(request.loaded.get(key, ...), value)}
        return wrote, request.drop & request.loaded.keys()

    @rule(request=consumes(requests))
    def leave(self, request: Open) -> None:
        """Only what really differs from what it loaded is written; it is gone if the session ended meanwhile."""
        wrote, dropped = self.written_by(request)
        before = self.browser.token
        self.browser.leave(request.session)
        if request.era != self.era:
            self.browser.token = before  # whatever it wrote was dropped, and it sent no cookie
            return
        self.model = {key: value for key, value in (self.model | wrote).items() if key not in dropped}
        if not self.model:
            self.restart()

    @rule(key=keys)
    def transact(self, key: str) -> None:
        """A count in a request of its own, between those that are open."""
        with self.browser.visit() as session:
            for draft in session.transaction():
                before = draft.get(key)
                draft[key] = before + 1 if type(before) is int else 0
        before = self.model.get(key)
        self.model[key] = before + 1 if type(before) is int else 0

    @rule(request=requests, key=keys)
    def transact_inside(self, request: Open, key: str) -> None:
        """In an open request: what it has changed so far is written first, and the count is of what is stored."""
        wrote, dropped = self.written_by(request)
        try:
            for draft in request.session.transaction():
                draft[key] = [draft.get(key)]
        except SessionConflict:
            assert request.era != self.era
            return
        if request.era != self.era:
            return  # it was ended; the transaction wrote into nothing
        self.model = {name: value for name, value in (self.model | wrote).items() if name not in dropped}
        self.model[key] = [self.model.get(key)]
        request.loaded = copy.deepcopy(request.session)
        request.put, request.drop = {}, set()

    @rule(strict=st.booleans())
    def rotate(self, strict: bool) -> None:
        before = self.browser.token
        with self.browser.visit() as session:
            session.rotate(strict=strict)
        assert self.browser.token != before
        self.era += strict

    @rule()
    def logout(self) -> None:
        with self.browser.visit() as session:
            session.clear()
        assert self.browser.token is None
        self.restart()

    @rule(seconds=st.floats(0.1, 90))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def use(self) -> None:
        with self.browser.visit() as session:
            len(session)

    @rule()
    def expire(self) -> None:
        self.clock.advance(IDLE + 61)
        assert self.read() == {}
        self.browser.token = None
        self.restart()

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        with self.browser.visit() as session:
            assert same(dict(session), self.model), (dict(session), self.model)


def same(left: Any, right: Any) -> bool:
    """Equal in value and type."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
