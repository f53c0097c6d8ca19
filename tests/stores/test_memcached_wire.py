"""Memcached's protocol: replies in pieces, and what is none."""

from __future__ import annotations

import pytest

from support.memcached import NONSENSE
from unsticky.errors import StoreError
from unsticky.stores.memcached_wire import Reply, ReplyReader


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"STORED\r\n", Reply("STORED")),
        (b"NOT_STORED\r\n", Reply("NOT_STORED")),
        (b"END\r\n", Reply("END")),
        (b"VALUE k 0 5\r\n\r\nEND\r\nEND\r\n", Reply("VALUE", b"\r\nEND")),
        (b"VALUE k 0 0 7\r\n\r\nEND\r\n", Reply("VALUE", b"", 7)),
        (b"VALUE k 4294967295 2 18446744073709551615\r\nab\r\nEND\r\n", Reply("VALUE", b"ab", 2**64 - 1)),
        (b"SERVER_ERROR out of memory\r\n", Reply("SERVER_ERROR", b"SERVER_ERROR out of memory")),
        (b"ERROR\r\n", Reply("ERROR", b"ERROR")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_reply_in_pieces(said: bytes, reply: Reply, step: int) -> None:
    """However the bytes arrive, the reply is whole with its last one and not before."""
    reader = ReplyReader(b"k")
    pieces = [said[n : n + step] for n in range(0, len(said), step)]
    assert [reader.feed(piece) for piece in pieces] == [None] * (len(pieces) - 1) + [reply]


@pytest.mark.parametrize("said", NONSENSE, ids=repr)
def test_nonsense_is_refused(said: bytes) -> None:
    """Other words, other keys, other lengths, and anything after a reply: none is taken for an answer."""
    with pytest.raises(StoreError, match=r"answered nonsense$"):
        ReplyReader(b"k").feed(said)


@pytest.mark.parametrize("said", NONSENSE, ids=repr)
def test_nonsense_in_pieces_is_refused(said: bytes) -> None:
    """Byte by byte too, unless it begins with a whole reply: the rest of that is found before the next use."""
    reader = ReplyReader(b"k")

    def feed() -> None:
        for n in range(len(said)):
            if reader.feed(said[n : n + 1]) is not None:
                assert said[n + 1 :]
                raise StoreError("the rest is found later")

    with pytest.raises(StoreError):
        feed()
