"""RESP as bytes: replies cut anywhere, and bytes that are no reply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unsticky.stores.redis_resp import PARTIAL, ErrorReply, ReplyError, ReplyParser, pack, whole_reply

bulks = st.one_of(st.none(), st.binary(max_size=30), st.just(b"\r\n"), st.just(b"$3\r\n"))
scalars = st.one_of(st.integers(-(2**63), 2**63 - 1), bulks)
arrays = st.recursive(st.lists(scalars, max_size=5), lambda inner: st.lists(st.one_of(scalars, inner), max_size=3))
replies = st.lists(st.one_of(scalars, arrays, st.lists(st.binary(max_size=9), max_size=9)))


def depth(reply: Any) -> int:
    return 1 + max(map(depth, reply), default=0) if isinstance(reply, list) else 0


def spoken(reply: Any) -> bytes:
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(spoken, reply))
    if reply is None:
        return b"$-1\r\n"
    return b":%d\r\n" % reply if isinstance(reply, int) else b"$%d\r\n%b\r\n" % (len(reply), reply)


@given(replies, st.lists(st.integers(1, 20)))
def test_replies_cut_anywhere(expected: list[Any], cuts: list[int]) -> None:
    """However the bytes come, the replies are the same."""
    assume(all(depth(reply) <= 8 for reply in expected))
    data = b"".join(map(spoken, expected))
    parser, found = ReplyParser(), []
    for size in (*cuts, len(data)):
        found += parser.feed(data[:size])
        data = data[size:]
    assert found == expected


def test_a_byte_at_a_time() -> None:
    """Statuses and errors too; of an error only its code is kept."""
    parser, found = ReplyParser(), []
    for byte in b"+OK\r\n-WRONGTYPE private\r\n*0\r\n*2\r\n:1\r\n-ERR x\r\n":
        found += parser.feed(bytes([byte]))
    assert found[0] == b"OK"
    assert isinstance(found[1], ErrorReply)
    assert found[1].code == "WRONGTYPE"
    assert found[2] == []
    assert found[3][0] == 1


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1\r\n", b"\r\n", b"$x\r\n", b":x\r\n", b"*x\r\n", b"*1\r\n" * 9, b"%1\r\n", b"$1\r\nabc\r\n"],
)
def test_no_reply(data: bytes) -> None:
    """What can't be a reply to what we ask is an error at once."""
    with pytest.raises(ReplyError):
        list(ReplyParser().feed(data))


@pytest.mark.parametrize(
    "items",
    [
        [b"a\r\n$1\r\nb", b"c"],
        [b"$1\r\nb", b"$1\r\nb"],
        [b"", b"\r\n", b""],
        [b"x" * 9000, b"y"],
        [b"y", b"x" * 8185],
        [b"%d" % n for n in range(2000)],
    ],
    ids=lambda items: repr(items[0][:9]),
)
def test_values_that_look_like_replies(items: list[bytes]) -> None:
    """Line ends and lengths within values, and arrays larger than what is cut at once."""
    data = spoken(items) + spoken([b"next"])
    assert list(ReplyParser().feed(data)) == [items, [b"next"]]
    parser, found = ReplyParser(), []
    for start in range(0, len(data), 997):
        found += parser.feed(data[start : start + 997])
    assert found == [items, [b"next"]]
    assert parser.between


@given(st.binary(max_size=40), st.binary(max_size=3))
def test_a_whole_reply(value: bytes, more: bytes) -> None:
    """The quick way takes a value that is all there is, and leaves everything else to the parser."""
    data = spoken(value)
    assert whole_reply(data) == value
    if more:
        assert whole_reply(data + more) is PARTIAL
    for cut in range(len(data)):
        assert whole_reply(data[:cut]) is PARTIAL


@pytest.mark.parametrize(
    "data", [b"", b"$-1\r\n", b"$-2\r\n", b"$x\r\nabc\r\n", b"+OK\r\n", b"$3\r\nabcde", b"$\r\n\r\n"]
)
def test_no_whole_reply(data: bytes) -> None:
    """What is no value, or not as long as it says."""
    assert whole_reply(data) is PARTIAL


def test_lengths_that_lie_in_an_array() -> None:
    """No value is ever cut short or made longer."""
    for data in (b"*2\r\n$2\r\nabc\r\n$1\r\na\r\n", b"*1\r\n$3\r\na\r\nb\r\n"):
        with pytest.raises(ReplyError):
            list(ReplyParser().feed(data))
    parser = ReplyParser()
    assert list(parser.feed(b"*1\r\n$03\r\nabc\r\n$1")) == [[b"abc"]]
    assert not parser.between


def test_no_array_is_none() -> None:
    """A null array is None, alone and among others."""
    assert list(ReplyParser().feed(b"*-1\r\n*2\r\n*-1\r\n*0\r\n")) == [None, [None, []]]


def test_pack() -> None:
    """Words of all kinds, by their length in bytes."""
    assert pack("SET", "é", b"\r\n", 12) == b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$2\r\n\r\n\r\n$2\r\n12\r\n"
