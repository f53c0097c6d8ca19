"""The JSON Schema (draft 2020-12) of a settings file, made from the same tree that is read.

``schema.json`` next to this file is its result, so that editors can use it: ``#:schema`` in TOML. After a change of
options, write it anew: ``python -m unsticky.settings.schema``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from ..scalars import Duration, Moment, Secret, StoreURL
from .shapes import Field, Leaf, ListOf, Shape, Table, TableOf, shape_of
from .tree import Settings

_DURATION = r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"
_TYPES = {bool: "boolean", int: "integer", float: "number"}


def shipped() -> str:
    """The schema as text, as it is in the package."""
    return files(__package__).joinpath("schema.json").read_text("utf-8")


def generate() -> str:
    """The schema as text, made anew."""
    tables: dict[str, Any] = {}
    root = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of unsticky",
        **_table(_as_table(shape_of(Settings)), tables),
    }
    text = msgspec.json.encode(root | {"$defs": dict(sorted(tables.items()))})
    return msgspec.json.format(text, indent=2).decode() + "\n"


def _as_table(shape: Shape) -> Table:
    assert isinstance(shape, Table)
    return shape


def _table(table: Table, tables: dict[str, Any]) -> dict[str, Any]:
    required = [name for name, field in table.fields.items() if field.default is MISSING]
    return {
        "type": "object",
        "description": (table.type.__doc__ or "").split("\n")[0],
        "properties": {name: _field(field, tables) for name, field in table.fields.items()},
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _field(field: Field, tables: dict[str, Any]) -> dict[str, Any]:
    if isinstance(field.shape, Table):
        return _shape(field.shape, tables)
    known = field.default is not MISSING and field.default is not None and not isinstance(field.shape, TableOf)
    return {
        **({"description": field.description} if field.description else {}),
        **_shape(field.shape, tables),
        **({"default": plain(field.default)} if known else {}),
    }


def _shape(shape: Shape, tables: dict[str, Any]) -> dict[str, Any]:
    match shape:
        case Leaf():
            return _leaf(shape)
        case ListOf():
            item = _shape(shape.item, tables)
            kind = {"type": "array", "items": item} | ({"minItems": 1} if shape.nonempty else {})
            return {"anyOf": [item, kind]} if shape.single else kind
        case TableOf():
            names = {"propertyNames": {"pattern": shape.key.pattern}}
            return {"type": "object", **names, "additionalProperties": _shape(shape.value, tables)}
        case Table():
            return _reference(shape, tables)


def _reference(table: Table, tables: dict[str, Any]) -> dict[str, Any]:
    name = table.type.__name__.removesuffix("Options").lower()
    if name not in tables:
        tables[name] = _table(table, tables)
    reference = {"$ref": f"#/$defs/{name}"}
    if table.shorthand is None:
        return reference
    return {"anyOf": [_shape(table.fields[table.shorthand].shape, tables), reference]}


def _leaf(leaf: Leaf) -> dict[str, Any]:
    if leaf.choices:
        return {"enum": list(leaf.choices)}
    names = {"least": "minimum", "above": "exclusiveMinimum", "most": "maximum"}
    range_ = {names[name]: getattr(leaf, name) for name in names if getattr(leaf, name) is not None}
    if leaf.type is Duration:
        number = {"type": "number", "minimum": 0} | range_
        return {"anyOf": [{"type": "string", "pattern": _DURATION}, number]}
    if leaf.type in _TYPES:
        return {"type": _TYPES[leaf.type], **range_}
    return {
        "type": "string",
        **({"minLength": 1} if leaf.nonempty else {}),
        **({"pattern": leaf.rule.pattern} if leaf.rule else {}),
        **({"format": "uri"} if leaf.type is StoreURL else {}),
        **({"writeOnly": True} if leaf.type is Secret else {}),
    }


def masked_path(path: str) -> str:
    """Without what its query says, which may be a key: "/up?token=***"."""
    path, mark, query = path.partition("?")
    return path + mark + "&".join(f"{name}{equals}***" for name, equals, _ in _parts(query)) if query else path + mark


def _parts(query: str) -> Iterator[tuple[str, str, str]]:
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        yield (name, equals, value) if equals else ("", "", name)


def plain(value: object) -> object:
    """A value as a file spells it; sets sorted."""
    if isinstance(value, Duration | Moment):
        return value.text
    if isinstance(value, StoreURL):
        return value.masked
    if isinstance(value, Secret):
        return "***"
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, frozenset):
        return sorted(plain(item) for item in value)  # type: ignore[type-var]
    return [plain(item) for item in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


if __name__ == "__main__":
    Path(__file__).with_name("schema.json").write_text(generate(), "utf-8")
