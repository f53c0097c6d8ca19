"""The judge of histories: hand-made ones that it must object to, and ones that it must not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from support.history_check import Op, check

S = {"sid": "s"}


class History:
    """Requests of one session, a number each; begun at 0..1 with the token "t0" and `a` = "a0"."""

    def __init__(self) -> None:
        self.ops = [Op(0, "s", 0, 1, "ok", {"sid": "s", "a": "a0"}, "begin", received="t0", seen={})]

    def do(self, start: float, end: float, does: Any = "", token: str = "t0", **more: Any) -> History:
        """A request; without an outcome it is one that was answered."""
        op = Op(len(self.ops), "s", start, end, "ok", does=does, presented=token, seen={**S, "a": "a0"})
        self.ops.append(replace(op, **more))
        return self

    def write(self, start: float, end: float, value: str | None, key: str = "a", **more: Any) -> History:
        return self.do(start, end, writes={key: value}, **more)

    def lost(self, start: float, end: float, value: str, **more: Any) -> History:
        """A write without an answer."""
        return self.write(start, end, value, outcome="unknown", seen=None, **more)

    def read(self, start: float, end: float, token: str = "t0", **seen: str) -> History:
        return self.do(start, end, token=token, seen={**S, **seen})

    def nothing(self, start: float, end: float, token: str = "t0") -> History:
        """A request that did not find the session."""
        return self.do(start, end, token=token, seen={})

    def kinds(self) -> list[str]:
        return [finding.kind for finding in check(self.ops)]


GOOD: Mapping[str, History] = {
    "a session that is only read": History().read(2, 3, a="a0"),
    "a write is seen": History().write(2, 3, "a1").read(4, 5, a="a1"),
    "a read beside a write sees the old value": History().write(2, 5, "a1").read(3, 4, a="a0"),
    "a read beside a write sees the new value": History().write(2, 5, "a1").read(3, 4, a="a1"),
    "two writes beside each other end either way": History().write(2, 5, "a1").write(3, 4, "a2").read(6, 7, a="a1"),
    "a removal is seen": History().write(2, 3, None).read(4, 5),
    "a removal of what was not there is none": History().write(2, 3, None, "b").write(2.5, 4, "b1", "b")
    .read(5, 6, a="a0", b="b1"),
    "parallel writes of different keys": History().write(2, 4, "b1", "b").write(2, 4, "c1", "c")
    .read(5, 6, a="a0", b="b1", c="c1"),
    "an unanswered write may be seen": History().lost(2, 3, "a1").read(4, 5, a="a1"),
    "an unanswered write may not be seen": History().lost(2, 3, "a1").read(4, 5, a="a0"),
    "an unanswered write may come late": History().lost(2, 3, "a1").read(4, 5, a="a0").read(6, 7, a="a1"),
    "an unanswered write may be overwritten": History().lost(2, 3, "a1").write(4, 5, "a2").read(6, 7, a="a2"),
    "an unanswered write may overwrite later": History().lost(2, 3, "a1").write(4, 5, "a2").read(6, 7, a="a1"),
    "a refused request did nothing": History().write(2, 3, "a1", outcome="refused", seen=None).read(4, 5, a="a0"),
    "a logout": History().do(2, 3, "clear").nothing(4, 5),
    "a write that meets a logout is dropped": History().write(2, 5, "a1").do(3, 4, "clear").nothing(6, 7),
    "a read beside a logout": History().do(2, 5, "clear").read(3, 4, a="a0"),
    "an unanswered logout that did nothing": History().do(2, 3, "clear", outcome="unknown", seen=None)
    .read(4, 5, a="a0"),
    "an unanswered logout that did": History().do(2, 3, "clear", outcome="unknown", seen=None).nothing(4, 5),
    "a logout that found nothing ends nothing": History().do(2, 3, "clear", token="junk", seen={}).read(4, 5, a="a0"),
    "a rotation, and its old token in the grace": History().do(2, 3, "rotate", received="t1").read(4, 5, a="a0")
    .read(4, 5, "t1", a="a0"),
    "a rotated token ends": History().do(2, 3, "rotate", received="t1").nothing(20, 21),
    "two rotations at once": History().do(2, 3, "rotate", received="t1").do(2, 3, "rotate", received="t2")
    .read(4, 5, "t1", a="a0").read(4, 5, "t2", a="a0"),
    "a strict rotation": History().do(2, 3, "strict", received="t1").nothing(4, 5).read(4, 5, "t1", a="a0"),
    "a write that meets a strict rotation is dropped": History().write(2, 5, "a1").do(3, 4, "strict", received="t1")
    .read(6, 7, "t1", a="a0"),
    "a strict rotation that lost": History().do(2, 4, "strict", received="t1").do(2, 4, "strict", writes={"a": "x"})
    .read(5, 6, "t1", a="a0"),
    "a token that came of a strict rotation's": History().do(2, 3, "strict", received="t1")
    .do(4, 5, "rotate", "t1", received="t2").read(6, 7, "t2", a="a0"),
    "a slow write that meets a strict rotation may come first": History().write(2, 5, "a1")
    .do(2, 3, "strict", received="t1").read(4, 4.5, "t1", a="a1").read(6, 7, "t1", a="a1"),
    "an owner's change": History().do(2, 3, "owner", received="t1").read(4, 5, "t1", a="a0"),
    "a token that never was": History().nothing(2, 3, "junk"),
}  # fmt: skip

BAD: Mapping[str, tuple[str, History]] = {
    "an acknowledged write is not there": ("lost write", History().write(2, 3, "a1").read(4, 5, a="a0")),
    "a key is gone": ("lost write", History().read(4, 5)),
    "one of two parallel writes is not there": (
        "lost write",
        History().write(2, 4, "b1", "b").write(2, 4, "c1", "c").read(5, 6, a="a0", c="c1"),
    ),
    "a removed key is back": ("lost write", History().write(2, 3, None).read(4, 5, a="a0")),
    "an older write is back": (
        "lost write",
        History().write(2, 3, "a1").write(4, 5, "a2", seen={**S, "a": "a1"}).read(6, 7, a="a2").read(8, 9, a="a1"),
    ),
    "an unanswered write is seen, and then not": (
        "lost write",
        History().lost(2, 3, "a1").read(4, 5, a="a1").read(6, 7, a="a0"),
    ),
    "a write beside a graceful rotation is lost": (
        "lost write",
        History().write(2, 5, "a1").do(3, 4, "rotate", received="t1").read(6, 7, "t1", a="a0"),
    ),
    "a write after a strict rotation is lost": (
        "lost write",
        History().do(2, 3, "strict", received="t1").write(4, 5, "a1", token="t1").read(6, 7, "t1", a="a0"),
    ),
    "the strict rotation's own write is lost": (
        "lost write",
        History().do(2, 3, "strict", received="t1", writes={"a": "a1"}).read(4, 5, "t1", a="a0"),
    ),
    "a write of a removed key is lost": (
        "lost write",
        History().write(2, 3, None).write(4, 5, "a1", seen=S).read(6, 7),
    ),
    "a session after its logout": ("resurrection", History().do(2, 3, "clear").read(4, 5, a="a0")),
    "a slow writer undoes a logout": (
        "resurrection",
        History().write(1.5, 5, "a1").do(2, 3, "clear").read(6, 7, a="a1"),
    ),
    "a value of another session": ("foreign data", History().read(2, 3, a="other")),
    "a value under another key": ("foreign data", History().read(2, 3, a="a0", b="a0")),
    "a value of the future": ("foreign data", History().read(2, 3, a="a1").write(4, 5, "a1", seen={**S, "a": "a1"})),
    "another session": ("foreign data", History().do(2, 3, seen={"sid": "other"})),
    "a refused write is seen": (
        "foreign data",
        History().write(2, 3, "a1", outcome="refused", seen=None).read(4, 5, a="a1"),
    ),
    "a write by a request that found no session is seen": (
        "foreign data",
        History().write(2, 3, "a1", token="junk", seen={}).read(4, 5, a="a1"),
    ),
    "a session is not found": ("lost session", History().nothing(2, 3)),
    "a session is not found with a new token": (
        "lost session",
        History().do(2, 3, "rotate", received="t1").nothing(4, 5, "t1"),
    ),
    "an old token after a strict rotation": (
        "ended token",
        History().do(2, 3, "strict", received="t1").read(4, 5, a="a0"),
    ),
    "an old token after an owner's change": (
        "ended token",
        History().do(2, 3, "owner", received="t1").read(4, 5, a="a0"),
    ),
    "a graceful rotation beside a strict one survives it": (
        "ended token",
        History().do(2, 5, "strict", received="t1").do(3, 4, "rotate", received="t2").read(6, 7, "t2", a="a0"),
    ),
    "a slow write comes after a strict rotation": (
        "late write",
        History()
        .write(2, 5, "a1")
        .do(2, 3, "strict", received="t1")
        .read(4, 4.5, "t1", a="a0")
        .read(6, 7, "t1", a="a1"),
    ),
    "an unanswered write comes after an owner's change": (
        "late write",
        History().lost(1.5, 2, "a1").do(2, 3, "owner", received="t1").read(4, 5, "t1", a="a0").read(6, 7, "t1", a="a1"),
    ),
    "an error": ("server error", History().do(2, 3, outcome="error", seen=None)),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_may_be_is_not_objected_to(name: str) -> None:
    """Every outcome that is promised, and every one that an unanswered request may have."""
    assert GOOD[name].kinds() == []


@pytest.mark.parametrize("name", BAD)
def test_a_history_that_must_not_be_is_found(name: str) -> None:
    """Exactly the one thing that is wrong with it."""
    kind, history = BAD[name]
    assert history.kinds() == [kind]


@pytest.mark.parametrize("name", BAD)
def test_the_order_of_the_record_does_not_matter(name: str) -> None:
    """Clients write their parts down apart from each other."""
    kind, history = BAD[name]
    assert [finding.kind for finding in check(reversed(history.ops))] == [kind]


def test_sessions_are_judged_apart() -> None:
    """What is wrong with one is found among many, and named."""
    good = [replace(op, session="good", writes={"sid": "good", "a": "a0"}) for op in History().ops]
    bad = BAD["a session after its logout"][1].ops
    [finding] = check([*good, *bad])
    assert finding.session == "s"


def test_a_finding_shows_the_requests_that_matter_and_no_others() -> None:
    """The write that was lost, what was seen instead, and who saw it."""
    history = (
        History().write(2, 3, "b1", "b").write(2, 3, "a1").read(3.5, 3.6, a="a1", b="b1").read(4, 5, a="a0", b="b1")
    )
    [finding] = check(history.ops)
    assert [op.number for op in finding.ops] == [0, 2, 4]
    assert "a = 'a0' was seen after 'a1' was acknowledged" in str(finding)
    assert "#4 4000.0..5000.0 ms" in str(finding)


def test_an_unanswered_request_is_never_over() -> None:
    """A paused replica may do its part at any later time."""
    assert Op(1, "s", 2, 3, "unknown").ended == inf
