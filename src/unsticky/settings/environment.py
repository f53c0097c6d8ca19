"""The environment, laid over a source: only names ``UNSTICKY_`` with a double underscore, and UNSTICKY_LOCALITY."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from ..errors import Problem
from .shapes import Shape, Table, TableOf, shape_of, suggest, table_of
from .tree import Settings

PREFIX = "UNSTICKY_"
PLAIN = frozenset({"UNSTICKY_LOCALITY"})  # differs from host to host, whatever the file says


@dataclass(frozen=True, slots=True)
class Variable:
    """A text from the environment, in the place of a value: it still has to be coerced."""

    name: str
    text: str

    def parts(self) -> object:
        """The text as a list or table: TOML or JSON where it has brackets, else comma separated."""
        if not self.text.lstrip().startswith(("[", "{")):
            return [Variable(self.name, part.strip()) for part in self.text.split(",") if part.strip()]
        for parse in (_json, _toml):
            try:
                return parse(self.text)
            except (ValueError, RecursionError):
                continue
        raise ValueError("expected TOML or JSON")


def _json(text: str) -> object:
    return msgspec.json.decode(text)


def _toml(text: str) -> object:
    return tomllib.loads(f"value = {text.strip()}")["value"]


def overlay(
    data: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[dict[str, object], list[str], list[Problem]]:
    """`data` with the variables in their places, the names that were used, and problems of those that fit nowhere."""
    merged = dict(data)
    used, problems = [], []
    for name, text in sorted(environ.items()):
        if not text or not (name in PLAIN or (name.startswith(PREFIX) and "__" in name.removeprefix(PREFIX))):
            continue
        try:
            _place(merged, name.removeprefix(PREFIX).split("__"), shape_of(Settings), Variable(name, text))
            used.append(name)
        except LookupError as error:
            problems.append(Problem(name, str(error.args[0])))
    return merged, used, problems


def _place(table: dict[str, object], segments: list[str], shape: Shape, variable: Variable) -> None:
    """Put `variable` where `segments` lead to. Raises LookupError if they lead nowhere."""
    segment, *rest = segments
    key, inner = _step(table, segment, shape)
    if not rest:
        table[key] = variable
        return
    below = table.get(key, {})
    if isinstance(below, Variable):
        raise LookupError(f"{below.name} sets the whole table already")
    if (inside := table_of(below)) is not None:
        # Copied on the way down: the mapping that the program gave stays as it is. Put in its place when the rest is
        # known to lead somewhere: no empty table is left behind.
        copied = dict(inside)
        _place(copied, rest, inner, variable)
        table[key] = copied


def _step(table: Mapping[str, object], segment: str, shape: Shape) -> tuple[str, Shape]:
    if isinstance(shape, TableOf):
        return _only(segment, table) or segment.lower(), shape.value
    if not isinstance(shape, Table):
        raise LookupError(f'there is no table that "{segment}" could be in')
    key = _only(segment, shape.fields)
    if key is None:
        near = suggest(segment.lower(), shape.fields, spell=str.upper)
        raise LookupError(f'unknown key "{segment}", {near}')
    return key, shape.fields[key].shape


def _only(segment: str, names: Iterable[str]) -> str | None:
    wanted = _folded(segment)
    matches = [name for name in names if _folded(name) == wanted]
    if len(matches) > 1:
        raise LookupError(f'"{segment}" may mean any of {", ".join(matches)}')
    return matches[0] if matches else None


def _folded(name: str) -> str:
    return re.sub(r"[-.]", "_", name).lower()
