"""Data into options. Every problem is kept, with its path, until the whole source has been read."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import MISSING, dataclass, field
from typing import Final, TypeVar, cast

from ..errors import Problem, SettingsError
from .environment import Variable
from .leaves import read_leaf, shown
from .relations import relations_of
from .shapes import Leaf, ListOf, Shape, Table, TableOf, shape_of, suggest, table_of
from .sources import Found
from .tree import Settings

T = TypeVar("T")
BAD: Final = object()  # stands for a value that had a problem


def read(found: Found) -> Settings:
    """The settings of a source, or a SettingsError with all its problems."""
    reader = _Reader(list(found.problems))
    settings = reader.value(shape_of(Settings), found.data, "")
    if reader.problems:
        raise SettingsError(found.title, reader.problems)
    return cast(Settings, settings)


def read_as(kind: type[T], data: Mapping[str, object]) -> T:
    """`data` as the options class `kind`, by the same rules. Raises SettingsError with all its problems."""
    reader = _Reader()
    found = reader.value(shape_of(cast(Hashable, kind)), data, "")
    if reader.problems:
        raise SettingsError(kind.__name__, reader.problems)
    return cast(T, found)


@dataclass(slots=True)
class _Reader:
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: str, message: str) -> object:
        self.problems.append(Problem(path, message))
        return BAD

    def value(self, shape: Shape, raw: object, path: str) -> object:
        """`raw` as `shape` wants it, or BAD with its problems noted."""
        if isinstance(raw, Variable):
            path = raw.name
        if isinstance(shape, Leaf):
            return self.leaf(shape, raw, path)
        if isinstance(raw, Variable) and not (isinstance(shape, Table) and shape.shorthand and raw.text[:1] != "{"):
            try:
                raw = raw.parts()
            except ValueError as error:
                return self.refuse(path, str(error))
        if isinstance(shape, ListOf):
            return self.items(shape, raw, path)
        return self.pairs(shape, raw, path) if isinstance(shape, TableOf) else self.table(shape, raw, path)

    def leaf(self, leaf: Leaf, raw: object, path: str) -> object:
        try:
            return read_leaf(leaf, raw.text, lenient=True) if isinstance(raw, Variable) else read_leaf(leaf, raw)
        except ValueError as error:
            return self.refuse(path, str(error))

    def items(self, shape: ListOf, raw: object, path: str) -> object:
        if shape.single and isinstance(raw, str):
            value = self.value(shape.item, raw, path)
            return BAD if value is BAD else shape.build((value,))
        if isinstance(raw, str | bytes) or not isinstance(raw, Sequence | Set):
            return self.refuse(path, f"expected a list, got {shown(raw)}")
        if shape.nonempty and not raw:
            return self.refuse(path, "expected at least one")
        values = [self.value(shape.item, item, f"{path}[{index}]") for index, item in enumerate(raw)]
        return BAD if BAD in values else shape.build(values)

    def pairs(self, shape: TableOf, raw: object, path: str) -> object:
        given = table_of(raw)
        if given is None:
            return self.refuse(path, f"expected a table, got {shown(raw)}")
        values: dict[str, object] = {}
        for name, item in given.items():
            key = self.key(shape, name, f"{path}.{_key(name)}", values)
            value = self.value(shape.value, item, f"{path}.{_key(name)}")
            if key is not None and value is not BAD:
                values[key] = value
        return values

    def key(self, shape: TableOf, name: str, path: str, taken: Mapping[str, object]) -> str | None:
        try:
            key = shape.key.read(str(name))
        except ValueError as error:
            self.refuse(path, f"a name here must be {str(error).removeprefix('expected ')}")
            return None
        if key in taken:
            self.refuse(path, f'the same name as "{key}": case does not tell names apart')
        return key

    def table(self, shape: Table, raw: object, path: str) -> object:
        if shape.shorthand and isinstance(raw, str | Variable):
            # A text alone: problems are those of the field, at the place where the text stands.
            given: Mapping[str, object] | None = {shape.shorthand: raw}
            return self.fields(shape, given or {}, path, short=True)
        given = table_of(raw)
        if given is None:
            form = f"a table or a text for its {shape.shorthand}" if shape.shorthand else "a table"
            return self.refuse(path, f"expected {form}, got {shown(raw)}")
        return self.fields(shape, given, path)

    def fields(self, shape: Table, given: Mapping[str, object], path: str, *, short: bool = False) -> object:
        values: dict[str, object] = {}
        bad: set[str] = set()
        for name, item in given.items():
            here = path if short else f"{path}.{_key(name)}".lstrip(".")
            value = self.named(shape, name, item, here)
            (bad.add(name) if value is BAD else values.update({name: value}))
        missing = [n for n, f in shape.fields.items() if f.default is MISSING and n not in values]
        for name in set(missing) - bad:
            self.refuse(f"{path}.{name}".lstrip("."), "required, but not set")
        if missing:
            return BAD
        return self.related(shape.type(**values), bad, path)

    def named(self, shape: Table, name: str, raw: object, path: str) -> object:
        known = shape.fields.get(name)
        if known is None:
            return self.refuse(path, f"unknown key, {suggest(str(name), shape.fields)}")
        return None if raw is None and known.optional else self.value(known.shape, raw, path)

    def related(self, options: object, bad: Set[str], path: str) -> object:
        """Fields are judged together only when each of them is right by itself."""
        for relation in relations_of(options):
            if not bad & relation.fields:
                for problem in relation.check(options):
                    self.refuse(f"{path}.{problem.path}".strip("."), problem.message)
        return options


def _key(name: object) -> str:
    return name if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
