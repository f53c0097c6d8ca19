"""Tokens: what the client holds, and what the store may know of it."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsticky.session.token import Token, TokenSigner


def fresh() -> Token:
    return Token.new(secrets.token_bytes)


@pytest.mark.parametrize("keys", [(), ("key",), ("new", "old")])
def test_round_trip(keys: tuple[str, ...]) -> None:
    """A token survives its text, signed or not."""
    token, signer = fresh(), TokenSigner(keys)
    assert signer.loads(signer.dumps(token)) == token


def test_has_the_promised_entropy() -> None:
    """128 bits name the session, 256 bits prove it."""
    token = fresh()
    assert (len(token.handle), len(token.secret)) == (22, 43)


def test_newest_key_signs_and_older_ones_verify() -> None:
    """Keys rotate without logging anybody out; a key that is gone no longer verifies."""
    token = fresh()
    old = TokenSigner(["old"]).dumps(token)
    rotated = TokenSigner(["new", "old"])
    assert rotated.loads(old) == token
    assert TokenSigner(["new"]).loads(rotated.dumps(token)) == token
    assert TokenSigner(["new"]).loads(old) is None


def test_unsigned_tokens_are_refused_when_there_is_a_key() -> None:
    """And signed ones where there is none: nothing is stripped off and believed."""
    token = fresh()
    assert TokenSigner(["key"]).loads(TokenSigner().dumps(token)) is None
    assert TokenSigner().loads(TokenSigner(["key"]).dumps(token)) is None


@given(st.text(max_size=300))
def test_junk_is_refused(text: str) -> None:
    """Anything at all may stand in a cookie."""
    assert TokenSigner(["key"]).loads(text) is None


@given(st.data())
def test_every_changed_character_is_noticed(data: st.DataObject) -> None:
    """A signature covers handle and secret."""
    text = TokenSigner(["key"]).dumps(Token("h" * 22, "s" * 43))
    place = data.draw(st.integers(0, 65))
    forged = text[:place] + data.draw(st.sampled_from("xyzXYZ019-_.")) + text[place + 1 :]
    assert forged == text or TokenSigner(["key"]).loads(forged) is None


def test_one_good_cookie_among_junk_is_taken_and_two_are_not() -> None:
    """Two different valid tokens are ambiguous: a neighbour domain may have planted one."""
    signer = TokenSigner(["key"])
    mine, other = fresh(), fresh()
    assert signer.choose(["junk", signer.dumps(mine), "", signer.dumps(mine)]) == mine
    assert signer.choose([signer.dumps(mine), signer.dumps(other)]) is None
    assert signer.choose([]) is None


def test_forged_texts_do_not_push_out_remembered_ones() -> None:
    """Whoever sends junk costs the others nothing; and what is remembered has a bound."""
    signer = TokenSigner(["key"])
    mine = signer.dumps(fresh())
    seen = signer.loads(mine)
    assert all(signer.loads(f"{n:0110}") is None for n in range(3000))
    assert signer.loads(mine) is seen
    for _ in range(3000):
        signer.loads(signer.dumps(fresh()))
    assert signer.loads(mine) is not seen
    assert signer.loads(mine) == seen


def test_nothing_of_the_token_shows() -> None:
    """Neither the repr nor what the store sees contains a part of it."""
    token = fresh()
    for text in (repr(token), token.key, token.proof):
        assert token.handle not in text
        assert token.secret not in text


def test_rotation_keeps_the_key() -> None:
    """Nothing is renamed: only the proof changes."""
    token = fresh()
    rotated = token.rotated(secrets.token_bytes)
    assert rotated.key == token.key
    assert rotated.proof != token.proof
