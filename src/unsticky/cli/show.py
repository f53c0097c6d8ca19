"""Settings as text: TOML, with the source of each value behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass

import msgspec

from ..routing.options import EndpointOptions, HashKeyOptions, HealthOptions
from ..settings import Found, Settings
from ..settings.environment import Variable
from ..settings.schema import masked_path, plain
from ..settings.shapes import table_of

ORIGIN_COLUMN = 50


def lines(settings: Settings, found: Found) -> Iterator[str]:
    """The text, line by line. Secrets, and passwords in URLs, are masked."""
    yield f"# {found.name}: {found.how}"
    for name in found.variables:
        yield f"# {name}: from the environment"
    yield from _table(settings, found.data, found.name, "")


def _table(options: object, given: object, source: str, path: str) -> Iterator[str]:
    """A table and those below it. `given` is what the source says of it."""
    values = dict(table_of(options) or {})
    if isinstance(options, HealthOptions) and options.path:
        values["path"] = masked_path(options.path)
    below = {name: value for name, value in values.items() if table_of(value) is not None}
    if len(below) < len(values):
        yield f"\n[{path}]" if path else ""
    for name, value in values.items():
        if name not in below:
            yield from _value(name, value, _origin(given, name, source))
    for name, value in below.items():
        key = _key(name)
        inner = _given(given, name)
        if isinstance(inner, Variable):
            yield f"# {inner.name} sets this table:"
        yield from _table(value, inner, source, f"{path}.{key}".lstrip("."))


def _value(name: str, value: object, origin: str) -> Iterator[str]:
    if value is None:
        yield _with(f"# {name} is not set", "")
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        yield _with(f"{name} = [", origin)
        yield from (f"    {_inline(item)}," for item in value)
        yield "]"
    else:
        yield _with(f"{name} = {_text(plain(value))}", origin)


def _inline(value: object) -> str:
    """A value within a line; a table as short as a person would write it."""
    if not (is_dataclass(value) or isinstance(value, Mapping)):
        return _text(plain(value))
    told = _told(value)
    if len(told) == 1 and isinstance(value, EndpointOptions | HashKeyOptions):
        return _inline(*told.values())
    return "{ " + ", ".join(f"{_key(name)} = {_inline(inner)}" for name, inner in told.items()) + " }"


def _told(table: object) -> Mapping[str, object]:
    """Of options, what differs from the defaults."""
    if isinstance(table, Mapping):
        return table
    assert is_dataclass(table)
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(table)}
    return {name: getattr(table, name) for name in defaults if getattr(table, name) != defaults[name]}


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else _text(name)


def _text(value: object) -> str:
    """JSON's texts, numbers, truths and flat lists are TOML's too."""
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def _with(text: str, origin: str) -> str:
    return f"{text:<{ORIGIN_COLUMN}} # {origin}" if origin else text


def _origin(given: object, name: str, source: str) -> str:
    value = _given(given, name)
    if isinstance(value, Variable):
        return value.name
    return "default" if value is None else source


def _given(given: object, name: str) -> object:
    """What the source says of `name`; the names of pools in any case."""
    if isinstance(given, Variable):
        return given
    for key, value in (table_of(given) or {}).items():
        if str(key).lower() == name.lower():
            return value
    return None
