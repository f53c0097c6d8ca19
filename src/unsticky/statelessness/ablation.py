"""Puts one variable back to what it was. If one replica then answers as another one did, it is the variable's doing.

What it held is kept by reference and put back in place, for others hold the same dict or object; nothing is copied.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from ast import literal_eval
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from .walk import DIRECTORY, OF_MEMORY, PASSED_PREFIXES, Named, Walk

_DEEPEST = 12
_MOST = 20_000  # objects
_LARGEST = 1 << 26  # bytes of a file
_BESIDE = ("-wal", "-shm", "-journal")  # of an SQLite database
_INSIDE = (".cache_info()", ".getstate()", OF_MEMORY)  # what the walk tells of an object's inside

PutBack = Callable[[], None]


def keep(name: str, named: Named, roots: Mapping[str, Any]) -> PutBack | None:
    """To be called before each request: what `name` is now, it is again. None if that can't be done.

    `name`: as `walk.differences` names it; it need not be there yet, then it is taken away.
    """
    if name.startswith("os.environ["):
        return _keep_environment(str(literal_eval(name[len("os.environ[") : -1])))
    if name == DIRECTORY:
        return partial(os.chdir, os.getcwd())
    chain = _chain(name, named, roots)
    return _keep_found(chain, name) if chain else None


def holders(name: str, named: Named, roots: Mapping[str, Any]) -> list[Any]:
    """The objects that lead to a variable, from outside, as far as it is there."""
    return [value for _, value in _chain(name, named, roots)]


def keep_file(path: str) -> PutBack | None:
    """The same for a file, and for what SQLite keeps beside it. Only for a disk of one's own."""
    files = [Path(path), *(Path(path + suffix) for suffix in _BESIDE)]
    try:
        if any(file.exists() and file.stat().st_size > _LARGEST for file in files):
            return None
        return partial(_write_back, [(file, file.read_bytes() if file.exists() else None) for file in files])
    except OSError:
        return None


class _Find(Walk):
    """The way to a variable: each object that holds the next one, with the walk's name for it."""

    def __init__(self, named: Named, wanted: str) -> None:
        super().__init__(b"", named)
        self._wanted = wanted
        self.chain: list[tuple[str, Any]] = []

    def value(self, name: str, value: Any, depth: int) -> None:
        if self._wanted == name or self._wanted.startswith((f"{name}[", f"{name}.", f"{name} (")):
            self.chain.append((name, value))
            super().value(name, value, depth)

    def _note(self, name: str, text: str) -> None: ...


def _chain(name: str, named: Named, roots: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The way to a variable, as far as it is there."""
    found = _Find(named, name)
    for root, value in {**named, **roots}.items():
        found.value(root, value, 0)
    return found.chain


def _keep_found(chain: list[tuple[str, Any]], wanted: str) -> PutBack | None:
    name, value = chain[-1]
    rest = wanted[len(name) :]
    if rest and rest not in _INSIDE:
        return _away(value, rest)
    contents = _Contents()
    contents.keep(value, 0)
    bind = None if rest else _binding(chain)
    puts = [*([bind] if bind else []), *contents.puts]
    return partial(_all, puts) if puts else None


def _binding(chain: list[tuple[str, Any]]) -> PutBack | None:
    """The name, key or attribute holds that very object again."""
    name, value = chain[-1]
    module, _, variable = name.partition(":")
    if len(chain) == 1:
        return partial(setattr, sys.modules[module], variable, value) if module in sys.modules else None
    holder, accessor = chain[-2][1], name[len(chain[-2][0]) :]
    if isinstance(holder, (dict, list)):
        keys = holder if isinstance(holder, dict) else range(len(holder))
        return next((partial(holder.__setitem__, key, value) for key in keys if accessor == f"[{key!r}]"), None)
    attribute = accessor.removeprefix(".")
    if isinstance(holder, FunctionType) and attribute in holder.__code__.co_freevars:
        return partial(_set_cell, holder, attribute, value)
    return partial(setattr, holder, attribute, value) if attribute.isidentifier() else None


def _away(holder: Any, accessor: str) -> PutBack | None:
    """What was not there before the first request."""
    if isinstance(holder, dict):
        return partial(_drop_key, holder, accessor)
    attribute = accessor.removeprefix(".")
    return partial(_drop_attribute, holder, attribute) if attribute.isidentifier() else None


class _Contents:
    """What is inside of a value, as far as it can be put back in place."""

    def __init__(self) -> None:
        self.puts: list[PutBack] = []
        self._seen: dict[int, Any] = {}

    def keep(self, value: Any, depth: int) -> None:
        passed = isinstance(value, (ModuleType, BuiltinFunctionType, str, bytes, int, float, type(None)))
        if passed or id(value) in self._seen or depth > _DEEPEST or len(self._seen) > _MOST:
            return
        self._seen[id(value)] = value
        for item in self._inside(value):
            self.keep(item, depth + 1)

    def _inside(self, value: Any) -> list[Any]:
        if isinstance(value, dict):
            held = list(dict.items(value))
            self.puts.append(partial(_fill_dict, value, held))
            return [item for _, item in held]
        if isinstance(value, (list, deque, bytearray)):
            self.puts.append(partial(_fill, value, list(value)))
            return list(value)
        if isinstance(value, set):
            self.puts.append(partial(_fill_set, value, set(value)))
            return []
        if isinstance(value, (tuple, frozenset)):
            return list(value)
        if isinstance(value, Random):
            self.puts.append(partial(value.setstate, value.getstate()))
            return []
        if isinstance(value, sqlite3.Connection):
            self.puts.append(partial(value.deserialize, value.serialize()))
            return []
        if callable(forget := getattr(value, "cache_clear", None)):
            self.puts.append(forget)
        return self._attributes(value)

    def _attributes(self, value: Any) -> list[Any]:
        if type(value).__module__.startswith(PASSED_PREFIXES):
            return []
        held = {key: item for key, item in getattr(value, "__dict__", {}).items() if not _is_dunder(key)}
        for kind in () if isinstance(value, type) else type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else slots
            held |= {name: getattr(value, name) for name in names if not _is_dunder(name) and hasattr(value, name)}
        self.puts.append(partial(_set_attributes, value, held))
        if isinstance(value, FunctionType):
            cells = {name: cell.cell_contents for name, cell in _cells(value)}
            self.puts += [partial(_set_cell, value, name, item) for name, item in cells.items()]
            return [*held.values(), *cells.values(), *(value.__defaults__ or ())]
        return list(held.values())


def _cells(function: FunctionType) -> list[tuple[str, Any]]:
    """Those that hold something."""
    found = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [(name, cell) for name, cell in found if cell != type(cell)()]


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _all(puts: list[PutBack]) -> None:
    for put in puts:
        put()


def _fill_dict(holder: dict[Any, Any], held: list[tuple[Any, Any]]) -> None:
    kind: Any = OrderedDict if isinstance(holder, OrderedDict) else dict  # not what a subclass makes of it
    kind.clear(holder)
    for key, item in held:
        kind.__setitem__(holder, key, item)


def _fill(holder: Any, held: list[Any]) -> None:
    holder.clear()
    holder.extend(held)


def _fill_set(holder: set[Any], held: set[Any]) -> None:
    holder.clear()
    holder.update(held)


def _set_attributes(holder: Any, held: Mapping[str, Any]) -> None:
    for name in [name for name in getattr(holder, "__dict__", {}) if name not in held and not _is_dunder(name)]:
        delattr(holder, name)
    for name, item in held.items():
        if getattr(holder, "__dict__", {}).get(name, holder) is not item:
            try:
                setattr(holder, name, item)
            except AttributeError:  # read only
                pass


def _set_cell(function: FunctionType, name: str, item: Any) -> None:
    (function.__closure__ or ())[function.__code__.co_freevars.index(name)].cell_contents = item


def _drop_key(holder: dict[Any, Any], accessor: str) -> None:
    for key in [key for key in holder if accessor.startswith(f"[{key!r}]")]:
        del holder[key]


def _drop_attribute(holder: Any, name: str) -> None:
    if name in getattr(holder, "__dict__", {}):
        delattr(holder, name)


def _keep_environment(name: str) -> PutBack:
    return partial(_set_environment, name, os.environ.get(name))


def _set_environment(name: str, text: str | None) -> None:
    if text is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = text


def _write_back(held: list[tuple[Path, bytes | None]]) -> None:
    for file, data in held:
        if data is None:
            file.unlink(missing_ok=True)
        elif not file.exists() or file.read_bytes() != data:
            file.write_bytes(data)
