"""What is done about an attempt that did not go well: decisions alone, one outcome after the other."""

from __future__ import annotations

from typing import Any

import pytest

from unsticky.errors import StoreError
from unsticky.stores.redis_cluster import SLOTS, Cluster, slot
from unsticky.stores.redis_resp import Command, ErrorReply, LostError, late, pack
from unsticky.stores.redis_route import Ask, Leave, Node, Pause, Route, Single, course
from unsticky.stores.redis_sentinel import Sentinels

A, B, C = Node("a", 1), Node("b", 2), Node("c", 3)
S, T = Node("s", 26379, True), Node("t", 26379, True)
READ = Command(b"read", b"k", repeatable=True)
WRITE = Command(b"write", b"k", lambda: b"whole", write=True)
SENT, UNSENT = LostError("lost", sent=True), LostError("lost", sent=False)
REFUSED = LostError("refused", sent=False, opening=True)
NOW = 0.0
MASTER, SLAVE = [b"master", 0, []], [b"slave", b"x", 1, b"connected", 0]


def answered(route: Route, command: Command, first: Any, *outcomes: Any, now: float = 0.0) -> tuple[Any, list[Any]]:
    """The result, and the steps that were taken. `outcomes` are those of the steps that ask."""
    ask = route.aim(command, now)
    steps = course(route, command, ask, first if ask is not None else None)
    queue = list(outcomes) if ask is not None else [first, *outcomes]
    taken: list[Any] = []
    outcome = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as stop:
            assert queue == []
            return stop.value, taken
        taken.append(step)
        outcome = queue.pop(0) if isinstance(step, Ask) else None


def nodes(steps: list[Any]) -> list[Node]:
    return [step.node for step in steps if isinstance(step, Ask)]


def ranges(*spans: tuple[int, int, Node]) -> Any:
    return [[first, last, [node.host.encode(), node.port, b"id", []]] for first, last, node in spans]


@pytest.fixture
def cluster() -> Cluster:
    """Its first half is at A, the second at B."""
    route = Cluster([A])
    answered(route, READ, ranges((0, 8191, A), (8192, SLOTS - 1, B)), [])
    return route


# The numbers of https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ and of redis-cli's
# CLUSTER KEYSLOT.
@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("123456789", 0x31C3),
        ("", 0),
        ("foo", 12182),
        ("bar", 5061),
        ("hello", 866),
        ("{user1000}.following", slot(b"user1000")),
        ("foo{{bar}}zap", slot(b"{bar")),
        ("foo{bar}{zap}", 5061),
        ("foo{bar", slot(b"foo{bar")),
    ],
)
def test_slots(key: str, number: int) -> None:
    """CRC16 of what counts of a key, with the specification's examples."""
    assert slot(key.encode()) == number


def test_an_unknown_script_is_sent_whole() -> None:
    """Once: a server that then still does not know it is wrong."""
    noscript = ErrorReply("NOSCRIPT x")
    result, steps = answered(Single(A), WRITE, noscript, 1)
    assert (result, [step.packed for step in steps]) == (1, [b"whole"])
    with pytest.raises(StoreError, match="NOSCRIPT"):
        answered(Single(A), WRITE, noscript, noscript)


@pytest.mark.parametrize("trouble", [SENT, late(), ErrorReply("OOM x")], ids=["lost", "late", "refused"])
def test_a_write_that_may_be_applied_is_not_repeated(cluster: Cluster, trouble: Any) -> None:
    """Nor is one that timed out, or was refused for good."""
    for route in (Single(A), cluster):
        with pytest.raises(StoreError):
            answered(route, WRITE, trouble)


def test_one_server_is_tried_once_more() -> None:
    """A read, or what was not sent, on a new connection; a server that refuses connections is not."""
    assert answered(Single(A), READ, SENT, [])[0] == []
    assert answered(Single(A), WRITE, UNSENT, 1)[0] == 1
    assert answered(Single(A), WRITE, ErrorReply("READONLY x"), 1) == (1, [Leave(A), Ask(A, b"write", True)])
    for first, second in ((SENT, SENT), (UNSENT, UNSENT)):
        with pytest.raises(StoreError, match="lost"):
            answered(Single(A), READ, first, second)
    for trouble in (REFUSED, ErrorReply("LOADING x"), ErrorReply("MOVED 1 b:2")):
        with pytest.raises(StoreError):
            answered(Single(A), READ, trouble)


def test_sentinels_are_asked_first_and_believed_if_the_server_agrees() -> None:
    """The one that knew comes first next time; afterwards the primary is asked on its open connection only."""
    route = Sentinels([S, T], "shop")
    result, steps = answered(route, READ, UNSENT, [b"a", b"1"], MASTER, [b"x"])
    assert result == [b"x"]
    assert nodes(steps) == [S, T, A, A]
    assert steps[1].packed == pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop")
    assert steps[2].packed == pack("ROLE")
    assert sum(step.share for step in steps[:2]) < 1
    assert route.aim(WRITE, NOW) == Ask(A, b"write", write=True, open_only=True)
    assert nodes(answered(route, WRITE, UNSENT, [b"b", b"2"], MASTER, 1)[1]) == [T, B, B]
    assert route.aim(WRITE, NOW) == Ask(B, b"write", write=True, open_only=True)


def test_the_primary_is_confirmed_every_second() -> None:
    """By one caller; sentinels that are away change nothing, and one that names another primary moves all."""
    route = Sentinels([S, T], "shop")
    answered(route, READ, [b"a", b"1"], MASTER, [])
    assert nodes(answered(route, READ, [], now=0.9)[1]) == []
    assert nodes(answered(route, READ, late(), [], now=2.5)[1]) == [S, A]
    assert route.aim(READ, 3.0) == Ask(A, b"read", open_only=True)
    assert nodes(answered(route, READ, [b"b", b"2"], SLAVE, [], now=4.0)[1]) == [T, B, A]
    assert nodes(answered(route, READ, [b"a", b"1"], [], now=6.0)[1]) == [T, A]
    steps = answered(route, WRITE, [b"b", b"2"], MASTER, 1, now=8.0)[1]
    assert nodes(steps) == [T, B, B]
    assert Leave(A) in steps


@pytest.mark.parametrize("code", ["READONLY", "LOADING", "MASTERDOWN"])
def test_a_primary_that_is_none_any_more(code: str) -> None:
    """Its refusal applied nothing: it is left, and the write goes to the new one, without an error."""
    route = Sentinels([S], "shop")
    answered(route, READ, [b"a", b"1"], MASTER, [])
    result, steps = answered(route, WRITE, ErrorReply(f"{code} x"), [b"b", b"2"], MASTER, 1)
    assert result == 1
    assert steps[0] == Leave(A)
    assert nodes(steps) == [S, B, B]
    assert Leave(A) in steps[1:]


@pytest.mark.parametrize(
    "answers",
    [(None,), ([b"a", b"1"], SLAVE), ([b"a"],), (ErrorReply("NOAUTH x"),), ([b"a", b"1"], late()), (REFUSED,)],
)
def test_sentinels_without_an_answer_are_asked_again(answers: Any) -> None:
    """With a pause, which gives up when there is no time left for it."""
    route = Sentinels([S], "shop")
    result, steps = answered(route, READ, *answers, [b"b", b"2"], MASTER, [b"x"])
    assert result == [b"x"]
    assert [type(step) for step in steps if not isinstance(step, Ask)][-1:] == [Pause]


def test_a_cluster_is_learned_from_any_of_its_servers() -> None:
    """One that is away, or knows nothing, is passed over."""
    route = Cluster([A, B, C])
    result, steps = answered(route, READ, REFUSED, [], ranges((0, SLOTS - 1, C)), [b"x"])
    assert result == [b"x"]
    assert nodes(steps) == [A, B, C, C]
    assert route.aim(READ, NOW) == Ask(C, b"read")


def test_a_server_without_a_name_is_the_one_that_was_asked() -> None:
    """As behind NAT, or with an unknown endpoint."""
    for host in (b"", b"?", None):
        route = Cluster([A])
        answered(route, READ, [[0, SLOTS - 1, [host, 7, b"id"]]], [])
        assert route.aim(READ, NOW) == Ask(Node("a", 7), b"read")


def test_a_server_that_hangs_is_looked_up_again(cluster: Cluster) -> None:
    """The command that found out fails; the next one asks another server who has the slot now, once."""
    ask = cluster.aim(WRITE, NOW)
    assert ask is not None
    other = B if ask.node == A else A
    with pytest.raises(StoreError, match="in time"):
        answered(cluster, WRITE, late())
    assert nodes(answered(cluster, WRITE, ranges((0, SLOTS - 1, C)), 1)[1]) == [other, C]
    assert cluster.aim(WRITE, NOW) == Ask(C, b"write", write=True)


def test_a_primary_that_hangs_is_looked_up_again() -> None:
    """At once, not a second later."""
    route = Sentinels([S], "shop")
    answered(route, READ, [b"a", b"1"], MASTER, [])
    with pytest.raises(StoreError, match="in time"):
        answered(route, WRITE, late())
    assert nodes(answered(route, WRITE, [b"b", b"2"], MASTER, 1)[1]) == [S, B, B]


def test_moved_changes_the_map(cluster: Cluster) -> None:
    """The command goes where it is told; the other slots are asked for, from the server that now has this one."""
    number = slot(b"k")
    moved = ErrorReply(f"MOVED {number} c:3")
    result, steps = answered(cluster, WRITE, moved, ranges((0, SLOTS - 1, C)), 1)
    assert result == 1
    assert nodes(steps) == [C, C]
    assert {cluster.aim(Command(b"", key), NOW) for key in (b"k", b"foo", b"bar")} == {Ask(C, b"")}
    assert Leave(A) in steps


def test_moved_is_followed_if_the_map_can_not_be_had(cluster: Cluster) -> None:
    """At least this slot's place is known."""
    moved = ErrorReply(f"MOVED {slot(b'k')} c:3")
    assert nodes(answered(cluster, WRITE, moved, late(), 1)[1]) == [C, C]
    assert cluster.aim(WRITE, NOW) == Ask(C, b"write", write=True)


def test_ask_is_for_one_command(cluster: Cluster) -> None:
    """ASKING goes first, before the script's text too; the map stays."""
    before = cluster.aim(WRITE, NOW)
    result, steps = answered(cluster, WRITE, ErrorReply(f"ASK {slot(b'k')} ::1:3"), ErrorReply("NOSCRIPT x"), 1)
    assert result == 1
    assert [(step.node.host, step.asking, step.packed) for step in steps] == [
        ("::1", True, b"write"),
        ("::1", True, b"whole"),
    ]
    assert cluster.aim(WRITE, NOW) == before


@pytest.mark.parametrize("target", ["x", "1", "1 b", "1 b:x", "x b:2"])
def test_a_redirection_that_makes_no_sense(cluster: Cluster, target: str) -> None:
    """It is a StoreError."""
    with pytest.raises(StoreError, match="nonsense"):
        answered(cluster, WRITE, ErrorReply(f"MOVED {target}"))


@pytest.mark.parametrize("trouble", [ErrorReply("CLUSTERDOWN x"), UNSENT, REFUSED])
def test_a_cluster_in_trouble_is_looked_at_again(cluster: Cluster, trouble: Any) -> None:
    """By another server than the one in trouble; the second time after a pause."""
    all_at = ranges((0, SLOTS - 1, C))
    ask = cluster.aim(WRITE, NOW)
    assert ask is not None
    other = B if ask.node == A else A
    result, steps = answered(cluster, WRITE, trouble, all_at, trouble, all_at, 1)
    assert result == 1
    assert nodes(steps)[:2] == [other, C]
    assert any(isinstance(step, Pause) for step in steps)


def test_tryagain(cluster: Cluster) -> None:
    """The same server, a moment later: the first time at once."""
    ask = cluster.aim(WRITE, NOW)
    again = ErrorReply("TRYAGAIN x")
    result, steps = answered(cluster, WRITE, again, again, 1)
    assert result == 1
    assert [step for step in steps if isinstance(step, Ask)] == [ask, ask]


@pytest.mark.parametrize(
    "reply",
    [[[0, SLOTS, [b"a", 1]]], [[5, 4, [b"a", 1]]], [[0]], [[0, 1, []]], [7], b"x", 7, None, [], [[0, 1, [b"a", b"x"]]]],
    ids=repr,
)
def test_a_map_that_makes_no_sense(reply: Any) -> None:
    """It is not used; after a pause it is asked for again."""
    result, steps = answered(Cluster([A]), READ, reply, ranges((0, SLOTS - 1, B)), [b"x"])
    assert result == [b"x"]
    assert any(isinstance(step, Pause) for step in steps)
