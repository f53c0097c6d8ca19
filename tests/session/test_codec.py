"""Every type that Flask's sessions take comes back as it was; what can't is refused with its place."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from unsticky.errors import SessionValueError
from unsticky.session.codec import are_plainly, decode, encode, is_plainly

EXACT = [
    None, True, False, 0, -1, 2**63, -(2**63), 2**200, 1.5, math.inf, "", "ä\x00", b"", b"\xff",
    [], [1, [2, (3,)]], (), (1, (2,)), {}, {"a": {"b": [1]}}, {1: "one", None: 2, (1, 2): 3},
    {1, 2}, frozenset({"a"}), set(), Markup("<b>"), UUID(int=7), Decimal("1.10"),
    datetime(2026, 11, 23, 12, 30, 1, 5, tzinfo=UTC), datetime(2026, 1, 1), date(2026, 1, 1), time(1, 2, 3),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))), timedelta(days=-1, microseconds=3),
    {" t": "not-a-tuple"}, [{"when": (Markup("x"), {1})}],
]  # fmt: skip


def same(left: Any, right: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize("value", EXACT, ids=repr)
def test_comes_back_exactly(value: object) -> None:
    """Value and type survive."""
    assert same(decode(encode(value, "")), value)


class Color(str, Enum):  # noqa: UP042 - as older code has it
    RED = "red"


class Level(IntEnum):
    HIGH = 3


Point = namedtuple("Point", "x y")


@dataclass
class Item:
    name: str
    tags: tuple[str, ...]


class Html:
    def __html__(self) -> str:
        return "<i>"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Color.RED, "red"), (Level.HIGH, 3), (Point(1, 2), (1, 2)), (OrderedDict(a=1), {"a": 1}),
        (bytearray(b"x"), b"x"), (Item("a", ("b",)), {"name": "a", "tags": ("b",)}), (Html(), Markup("<i>")),
    ],
)  # fmt: skip
def test_subclasses_are_kept_as_flask_keeps_them(value: object, kept: object) -> None:
    """A subclass is kept as its plain type, a dataclass as a dict, an HTML object as Markup."""
    assert same(decode(encode(value, "")), kept)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC)) | st.uuids() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(plain)
def test_anything_plain_comes_back(value: object) -> None:
    """Round trip, and equal values have equal bytes."""
    data = encode(value, "")
    assert same(decode(data), value)
    assert encode(decode(data), "") == data


@given(st.sets(st.integers() | st.text()))
def test_equal_sets_have_equal_bytes(value: set[object]) -> None:
    """Whatever order a set happens to be filled in: a reader must not write."""
    assert encode(value, "") == encode(set(reversed(list(value))), "")  # noqa: C414


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "s['k']: object can't be stored in a session"),
        ({"a": [1, {"b": object()}]}, "s['k']['a'][1]['b']: object can't be stored in a session"),
        ({"a": (1, Html)}, "s['k']['a'][1]: a class can't be stored in a session"),
        (["\ud800"], "s['k'][0]: the text has surrogates"),
        ({"x": print}, "s['k']['x']: builtin_function_or_method can't be stored"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_with_its_place(value: object, place: str) -> None:
    """The message names the innermost place, and never the value."""
    with pytest.raises(SessionValueError) as caught:
        encode(value, "s['k']")
    assert str(caught.value).startswith(place)
    assert isinstance(caught.value, TypeError)


def test_endless_and_deep_values_are_refused() -> None:
    """A list that contains itself, and one that no reader could decode."""
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(SessionValueError, match="contains itself"):
        encode(endless, "s")


@given(st.binary(max_size=60))
def test_garbage_never_does_more_than_raise_value_error(data: bytes) -> None:
    """Bytes that no codec of ours made are refused, whatever they are."""
    try:
        decode(data)
    except ValueError:
        pass


def test_the_stored_format_stays() -> None:
    """Bytes written by the first release can be read by every later one."""
    assert decode(bytes.fromhex("c7040193010203")) == (1, 2, 3)
    assert decode(b"\xd8\x05" + UUID(int=7).bytes) == UUID(int=7)
    assert decode(b"\xc7\x0a\x062026-01-01") == datetime(2026, 1, 1)


@dataclass(frozen=True)
class Place:
    x: int


@pytest.mark.parametrize("value", [{Place(1): 1}, {Place(1)}, {(Place(1), 2): 1}, frozenset([(Place(1),)])], ids=repr)
def test_what_could_not_be_read_again_is_refused(value: object) -> None:
    """A dataclass comes back as a dict, and a dict is no key."""
    with pytest.raises(SessionValueError, match="a key or a member of a set"):
        encode(value, "s")


def test_a_time_whose_offset_depends_on_the_date_is_refused() -> None:
    """It would come back without its zone."""
    with pytest.raises(SessionValueError, match="offset depends on the date"):
        encode(time(12, tzinfo=ZoneInfo("Europe/Berlin")), "s")


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ([[1, 2]], [(1, 2)]), ([[1]], [{1}]), ({"a": [1]}, {"a": frozenset({1})}), (["<b>"], [Markup("<b>")]),
        ([str(UUID(int=1))], [UUID(int=1)]), (["2026-01-01T00:00:00"], [datetime(2026, 1, 1)]),
        (["1.5"], [Decimal("1.5")]), ([1], [True]), ([1], [1.0]), ([0.0], [-0.0]),
    ],
    ids=repr,
)  # fmt: skip
def test_the_quick_comparison_overlooks_no_type(stored: Any, now: Any) -> None:
    """Inside of values, where msgpack writes both alike."""
    data = encode(stored, "")
    assert encode(now, "") != data
    assert is_plainly(stored, data)
    assert are_plainly([stored, {}], [data, encode({}, "")])
    assert not is_plainly(now, data)
    assert not are_plainly([now, {}], [data, encode({}, "")])


@given(
    plain := st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner, max_size=3),
    ),
    plain,
)
def test_what_is_plainly_stored_is_stored(left: Any, right: Any) -> None:
    """The quick comparison never says yes where the exact one says no."""
    if is_plainly(right, encode(left, "")):
        assert encode(right, "") == encode(left, "")
