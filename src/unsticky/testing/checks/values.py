"""Names and values: any text, any bytes, and many of them."""

from __future__ import annotations

from dataclasses import replace

from ...session.store import Applied, Change
from ..trial import Trial, refused, same

_APPLIED = Applied.APPLIED
_ODD = ["", " ", "a b", ":", "::x", "é", "日本", "\N{PILE OF POO}", "\0", "a\r\nb", "g", "k", "=", "-", "x" * 1000]
_NO_TEXT = "\ud800"  # a lone surrogate: UTF-8 can't hold it


def odd_field_names(trial: Trial) -> None:
    """Names are any text; none collides with what the store keeps beside the fields."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    fields = {name: f"value of {name!r}".encode() for name in _ODD}
    one.create(key, trial.record(**fields))
    same(two.load(key), trial.record(**fields), "what is loaded")
    put = dict.fromkeys(_ODD[1::2], b"new")
    change = Change(0, drop=frozenset(_ODD[::2]), expect=dict(fields), put=put)
    same(one.update(key, change), _APPLIED, "update that expects all, drops half and puts half")
    same(two.load(key), trial.record(**put), "what is loaded then")


def binary_values(trial: Trial) -> None:
    """Values are any bytes."""
    one, two = trial.replica(), trial.replica()
    for value in (b"", b"\0", b"\r\n$5\r\nhello\r\nEND\r\n", bytes(range(256)), b"\xff" * 300):
        key = trial.key()
        one.create(key, trial.record(a=value))
        same(one.update(key, Change(0, expect={"a": value}, put={"b": value})), _APPLIED, "update")
        same(two.load(key), trial.record(a=value, b=value), "what is loaded")


def a_large_value(trial: Trial) -> None:
    """A value of `largest_value` bytes, less some for the rest, is created, expected and replaced."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    value = (bytes(range(256)) * (trial.limits.largest_value // 256))[:-300]
    same(one.create(key, trial.record(a=value)), True, "create")
    same(two.load(key), trial.record(a=value), "what is loaded")
    same(two.update(key, Change(0, expect={"a": value}, put={"a": value[::-1]})), _APPLIED, "update")
    same(one.load(key), trial.record(a=value[::-1]), "what is loaded then")


def many_fields(trial: Trial) -> None:
    """`most_fields` fields are created, replaced, expected and dropped in one step each."""
    one, two, key = trial.replica(), trial.replica(), trial.key()
    fields = {f"f{n}": b"%d" % n for n in range(min(trial.limits.most_fields, trial.limits.largest_value // 24))}
    one.create(key, trial.record(**fields))
    new = dict.fromkeys(fields, b"new")
    same(one.update(key, Change(0, put=new, expect=dict(fields))), _APPLIED, "update that expects and puts all")
    same(two.load(key), trial.record(**new), "what is loaded")
    same(one.update(key, Change(0, drop=frozenset(fields), delete_if_only="~")), Applied.EMPTIED, "drop of all")
    one.create(key, trial.record())
    same(one.update(key, Change(0, put=fields)), _APPLIED, "update of an empty record that puts all")
    same(one.update(key, Change(0, drop=frozenset(fields))), _APPLIED, "update that drops all")
    same(two.load(key), trial.record(), "what is loaded then")


def a_change_that_fails_writes_nothing(trial: Trial) -> None:
    """A name or owner that UTF-8 can't hold is a ValueError before anything is written, wherever it stands."""
    one, key, other = trial.replica(), trial.key(), trial.key()
    kept = trial.record(a=b"1")
    one.create(key, kept)
    for wrong in (
        Change(0, put={"a": b"2", _NO_TEXT: b"x", "z": b"3"}, owner="o"),
        Change(0, put={"a": b"2"}, drop=frozenset({_NO_TEXT})),
        Change(0, put={"a": b"2"}, expect={_NO_TEXT: None}),
        Change(0, put={"a": b"2"}, owner=_NO_TEXT),
    ):
        refused(lambda wrong=wrong: one.update(key, wrong), "update with a lone surrogate")  # type: ignore[misc]
        same(one.load(key), kept, "the record after it")
    refused(lambda: one.create(other, trial.record(a=b"1", **{_NO_TEXT: b"2"})), "create with such a field")
    refused(lambda: one.create(other, replace(kept, owner=_NO_TEXT)), "create with such an owner")
    same(one.load(other), None, "load after it")
    same(one.update(key, Change(0, put={"b": b"2"})), _APPLIED, "update after them all")
