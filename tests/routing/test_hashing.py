"""Hash keys: their form, their values and how they combine."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsticky.routing.hashing import HashKey, call_key, combine, hash_text, parse_hash_key, parse_hash_keys
from unsticky.routing.options import HashKeyOptions


@dataclass
class Source:
    """An outbound GET /items?id=7 inside a request with a session."""

    calls: list[str] = field(default_factory=list)

    def path(self) -> str | None:
        return "/items"

    def query(self, name: str) -> str | None:
        return {"id": "7"}.get(name)

    def header(self, name: str) -> str | None:
        return {"x-tenant": "acme"}.get(name)

    def cookie(self, name: str) -> str | None:
        return {"Region": "eu"}.get(name)

    def inbound_header(self, name: str) -> str | None:
        return {"x-user": "u1"}.get(name)

    def session(self) -> str | None:
        return "v1:abc"


def keys(*texts: str) -> tuple[HashKey, ...]:
    """As in the settings; an "!" marks a terminal one."""
    return parse_hash_keys(HashKeyOptions(key=text.rstrip("!"), terminal=text.endswith("!")) for text in texts)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("path", HashKey("path"), "/items"),
        ("session", HashKey("session"), "v1:abc"),
        ("query:id", HashKey("query", "id"), "7"),
        ("header:X-Tenant", HashKey("header", "x-tenant"), "acme"),
        ("cookie:Region", HashKey("cookie", "Region"), "eu"),
        ("inbound-header:X-User", HashKey("inbound-header", "x-user"), "u1"),
    ],
)
def test_forms(text: str, key: HashKey, value: str) -> None:
    """Each form is parsed, and takes its value from the right place."""
    assert parse_hash_key(text) == key
    assert call_key([key], Source()) == hash_text(value)


@pytest.mark.parametrize("text", ["", "query", "query:", "header", "path:x", "session:", "Path", "body", "jwt:sub"])
def test_junk_is_refused(text: str) -> None:
    """With a message that says what is allowed."""
    with pytest.raises(ValueError, match=r'expected "path", "query:NAME".*got'):
        parse_hash_key(text)


def test_values_combine_in_order() -> None:
    """The policies' order matters, absent ones are passed over, and without any there is no key."""
    both = call_key(keys("header:x-tenant", "path"), Source())
    assert both == combine(hash_text("acme"), hash_text("/items"))
    assert both != call_key(keys("path", "header:x-tenant"), Source())
    assert call_key(keys("cookie:none", "path"), Source()) == hash_text("/items")
    assert call_key(keys("cookie:none"), Source()) is None
    assert call_key((), Source()) is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("header:x-tenant!", "path"), ["acme"]),
        (("header:none!", "path"), ["/items"]),
        (("cookie:none", "path!", "session"), ["/items"]),
        (("header:x-tenant", "cookie:none!", "path"), ["acme"]),  # there is a hash: the terminal key ends the list
        (("path", "header:x-tenant!", "session"), ["/items", "acme"]),
        (("header:none!", "cookie:none!"), []),
    ],
)
def test_a_terminal_key_ends_the_list_once_there_is_a_hash(texts: tuple[str, ...], expected: list[str]) -> None:
    """Envoy's `terminal`, gRFC A42."""
    key: int | None = None
    for value in expected:
        key = combine(key, hash_text(value))
    assert call_key(keys(*texts), Source()) == key


@pytest.mark.parametrize(
    ("key", "more", "expected"), [(None, 5, 5), (1, 0, 2), (1 << 63, 0, 1), (1 << 63, 1, 0), (3, 6, 0)]
)
def test_combine_is_rotate_then_xor(key: int | None, more: int, expected: int) -> None:
    """gRFC A42."""
    assert combine(key, more) == expected


def test_hash_is_xxh64_seed_0() -> None:
    """The published digests of the empty text and of "a", and nonsense that no codec takes."""
    assert hash_text("") == 0xEF46DB3751D8E999
    assert hash_text("a") == 0xD24EC4F1A98C6E5B
    assert isinstance(hash_text("\ud800"), int)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_keys_stay_64_bits(hashes: list[int]) -> None:
    """Whatever is combined."""
    key: int | None = None
    for one in hashes:
        key = combine(key, one)
    assert key is not None
    assert 0 <= key < 2**64
