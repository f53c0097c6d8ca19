"""The tree of option classes as data: what the reader, the environment and the JSON Schema all walk."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta

from ..rules import OneOrMore, Rule, Shorthand
from ..scalars import DURATION_FORM, MOMENT_FORM, Duration, Moment, Secret, StoreURL


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value."""

    type: Any
    rule: Rule | None = None
    least: float | None = None
    above: float | None = None  # exclusive
    most: float | None = None
    nonempty: bool = False

    @property
    def choices(self) -> tuple[str | int, ...]:
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def allowed(self) -> str:
        """What may stand here, in words."""
        if self.choices:
            return f"one of {quoted(self.choices)}"
        return _WORDS[self.type] + (" that is not empty" if self.nonempty else self._range())

    def _range(self) -> str:
        if self.least is not None and self.most is not None:
            return f" from {self.least:g} to {self.most:g}"
        if self.above is not None:
            return f", more than {self.above:g}"
        return f", at least {self.least:g}" if self.least is not None else ""


_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    Duration: DURATION_FORM,
    Moment: MOMENT_FORM,
    Secret: "a text",
    StoreURL: 'a URL such as "sqlite:///sessions.db"',
}


@dataclass(frozen=True, slots=True)
class ListOf:
    """Several values, in order or (`build` is frozenset) not."""

    item: Shape
    build: Callable[[Iterable[object]], object]
    nonempty: bool
    single: bool = False  # one item may stand for the list of it


@dataclass(frozen=True, slots=True)
class TableOf:
    """A table whose keys the user chooses."""

    key: Rule
    value: Shape


@dataclass(frozen=True, slots=True)
class Table:
    """A table with the fields of a dataclass."""

    type: type
    fields: Mapping[str, Field]
    shorthand: str | None


Shape = Leaf | ListOf | TableOf | Table


@dataclass(frozen=True, slots=True)
class Field:
    """A key of a table."""

    shape: Shape
    default: object  # MISSING: the key is required
    optional: bool  # None means unset
    description: str


@cache
def shape_of(type_: Any, metadata: tuple[object, ...] = ()) -> Shape:
    """The shape of a type as an annotation has it; `metadata` is what stood around it."""
    origin, args = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return shape_of(args[0], (*metadata, *args[1:]))
    if origin in (Union, types.UnionType):
        [inner] = [arg for arg in args if arg is not types.NoneType]
        return shape_of(inner, metadata)
    if origin in (tuple, frozenset):
        single = any(isinstance(item, OneOrMore) for item in metadata)
        return ListOf(shape_of(args[0]), origin, bool(_bound(metadata, "min_length")), single)
    if origin is Mapping:
        [rule] = [item for item in get_args(args[0])[1:] if isinstance(item, Rule)]
        return TableOf(rule, shape_of(args[1]))
    return _table(type_, metadata) if is_dataclass(type_) else _leaf(type_, metadata)


def _leaf(type_: Any, metadata: tuple[object, ...]) -> Leaf:
    rule = next((item for item in metadata if isinstance(item, Rule)), None)
    least, above, most = (_bound(metadata, name) for name in ("ge", "gt", "le"))
    return Leaf(type_, rule, least, above, most, bool(_bound(metadata, "min_length")))


def _bound(metadata: tuple[object, ...], name: str) -> float | None:
    return next(
        (getattr(item, name) for item in metadata if isinstance(item, Meta) and getattr(item, name) is not None), None
    )


def _table(type_: Any, metadata: tuple[object, ...]) -> Table:
    hints = get_type_hints(type_, include_extras=True)
    shorthand = next((item.key for item in metadata if isinstance(item, Shorthand)), None)
    return Table(type_, {field.name: _field(field, hints[field.name]) for field in fields(type_)}, shorthand)


def _field(field: Any, hint: Any) -> Field:
    shape = shape_of(hint)
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return Field(shape, default, default is None, _description(hint, shape))


def _description(hint: Any, shape: Shape) -> str:
    for item in get_args(hint)[1:]:
        if isinstance(item, Meta) and item.description:
            return item.description
    return (shape.type.__doc__ or "").split("\n")[0] if isinstance(shape, Table) else ""


def table_of(value: object) -> Mapping[str, object] | None:
    """What a table holds: a mapping, or ready options, whose fields count as given. None if it is no table."""
    if isinstance(value, Mapping):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def suggest(word: str, allowed: Iterable[str], *, spell: Callable[[str], str] = str) -> str:
    """The nearest name, or where none is near all of them."""
    names = list(allowed)
    near = get_close_matches(word, names, n=1)
    return f'did you mean "{spell(near[0])}"?' if near else f"allowed: {', '.join(spell(name) for name in names)}"


def quoted(names: Iterable[str | int]) -> str:
    return ", ".join(f'"{name}"' if isinstance(name, str) else str(name) for name in names)
