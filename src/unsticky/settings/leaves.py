"""One value, converted by msgspec and held against the rules next to its field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from math import isfinite
from typing import Any

import msgspec

from .. import stores
from ..scalars import Duration, Moment, Secret, StoreURL
from .shapes import Leaf


def read_leaf(leaf: Leaf, raw: object, *, lenient: bool = False) -> object:
    """`raw` as the field has it; `lenient`: a text that stands for a number or truth. Raises ValueError in words."""
    try:
        value: Any = msgspec.convert(raw, leaf.type, strict=not lenient, dec_hook=_texts if lenient else _scalar)
    except msgspec.ValidationError:
        raise ValueError(_expected(leaf, raw)) from None
    if not _within(leaf, value):
        raise ValueError(_expected(leaf, raw))
    if leaf.type is StoreURL and (problem := stores.check_url(value)):
        raise ValueError(problem)
    return leaf.rule.read(value) if leaf.rule else value


def _scalar(type_: Any, value: object) -> object:
    """Our own scalar types, for msgspec."""
    if type_ is Duration and isinstance(value, str | int | float) and not isinstance(value, bool):
        return Duration(value)
    if type_ is Moment and isinstance(value, Moment):
        return value
    if type_ in (Secret, StoreURL) and isinstance(value, str):
        return type_(value)
    if type_ is Moment and isinstance(value, str | date):  # a file has dates of its own
        return Moment(value)
    raise ValueError("another type")


def _texts(type_: Any, value: object) -> object:
    if type_ is Duration and isinstance(value, str):
        try:
            return Duration(float(value))
        except ValueError:
            return Duration(value)
    return _scalar(type_, value)


def _within(leaf: Leaf, value: Any) -> bool:
    if leaf.nonempty:
        return bool(value)
    if not isinstance(value, int | float):
        return True
    return (
        isfinite(value)
        and (leaf.least is None or value >= leaf.least)
        and (leaf.above is None or value > leaf.above)
        and (leaf.most is None or value <= leaf.most)
    )


def _expected(leaf: Leaf, raw: object) -> str:
    if leaf.type is Secret or (leaf.type is StoreURL and isinstance(raw, str)):
        return f"expected {leaf.allowed}"  # what was given may be a secret
    words = [choice for choice in leaf.choices if isinstance(choice, str)]
    near = get_close_matches(raw, words, n=1) if isinstance(raw, str) else []
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"expected {leaf.allowed}, got {shown(raw)}{hint}"


def shown(raw: object) -> str:
    """A value for a message: short, and of lists and tables only what they are."""
    if isinstance(raw, Mapping):
        return "a table"
    if isinstance(raw, Sequence) and not isinstance(raw, str | bytes):
        return "a list"
    if isinstance(raw, bool):
        return str(raw).lower()
    text = f'"{raw}"' if isinstance(raw, str) else repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."
