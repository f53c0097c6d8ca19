"""Every value that an app's modules and its app object hold, by name, as fingerprints. Finds who changed, never what.

A walk of a small app takes less than a millisecond; it is for tests and development, not for production.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import sqlite3
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from pathlib import PurePath
from random import Random
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any
from uuid import UUID

from ..local import is_replica_local

MOST = 50_000  # values; a larger app is looked at no further
_DEEPEST = 12
_ATOMS = (
    str, bytes, bytearray, int, float, complex, bool, type(None), range,
    date, time, timedelta, Decimal, UUID, PurePath,  # with what they keep of themselves by the way
)  # fmt: skip
_PASSED_TYPES = (ModuleType, BuiltinFunctionType, type(os.environ.__class__))
_OF_FRAMEWORKS = frozenset(
    {"_got_first_request", "jinja_env", "jinja_loader", "middleware_stack", "openapi_schema"}
)  # made by the first request
PASSED_PREFIXES = (  # of types: machinery of the interpreter, of frameworks and of drivers, and our own
    "logging", "threading", "_thread", "asyncio", "weakref", "concurrent", "jinja2", "werkzeug.routing", "unsticky",
    "opentelemetry", "httpx", "httpcore", "sqlalchemy.", "psycopg", "redis.", "pymongo",
)  # fmt: skip

DIRECTORY = "the working directory"
OF_FILE, OF_MEMORY = ".total_changes", ".changes_in_memory"  # of an SQLite connection, by where its database is

Held = dict[str, str]
Named = Mapping[str, Any]  # values by name, "shop.catalog:CACHE"


def variables(packages: tuple[str, ...]) -> Named:
    """Those of all loaded modules of `packages`."""
    named: dict[str, Any] = {}
    for name, module in sorted(sys.modules.items()):
        if isinstance(module, ModuleType) and _belongs(name, packages):
            for variable, value in list(vars(module).items()):
                if not variable.startswith("__"):
                    named[f"{name}:{variable}"] = value
    return named


def held(packages: tuple[str, ...], roots: Mapping[str, Any], key: bytes) -> Held:
    """Fingerprints of the values of all loaded modules of `packages`, of further `roots`, and of the process itself.

    What a module has a name for is named by it, wherever else it can be reached from.
    """
    named = variables(packages)
    walk = Walk(key, named)
    for name, value in {**named, **roots}.items():
        walk.value(name, value, 0)
    for variable, text in os.environ.items():
        walk.value(f"os.environ[{variable!r}]", text, 0)
    with contextlib.suppress(OSError):  # it was removed
        walk.value(DIRECTORY, os.getcwd(), 0)
    return walk.found


def fingerprint(text: str, key: bytes) -> str:
    """Of a value's repr; it tells whether two are the same, and nothing else."""
    return blake2b(text.encode("utf-8", "replace"), key=key, digest_size=8).hexdigest()


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The names whose values changed, came or went. What is inside of one that changed is not named again."""
    changed = {name.partition(" (")[0] for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    kept: list[str] = []
    for name in sorted(changed):
        if not any(name.startswith((f"{other}[", f"{other}.")) for other in kept):
            kept.append(name)
    return [name for name in kept if name.rpartition(".")[2] not in _OF_FRAMEWORKS]


def place(variable: str) -> str:
    """ "shop/catalog.py:12", where a module's variable gets its value first; "" if that can't be seen."""
    module_name, _, rest = variable.partition(":")
    name = rest.split("[")[0].split(".")[0].split(" ")[0]
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if not file or not name:
        return ""
    try:
        with open(file, encoding="utf-8") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return ""
    line = next((getattr(node, "lineno", 0) for node in ast.walk(tree) if name in _bound(node)), 0)
    return f"{os.path.relpath(file)}:{line}" if line else ""


def _has_file(connection: sqlite3.Connection) -> bool:
    return any(file for _, _, file in connection.execute("pragma database_list"))


def _in_memory(value: Any) -> Iterator[sqlite3.Connection]:
    """The databases in memory of an engine of SQLAlchemy: its pool holds them as long as it lives."""
    if type(value).__module__ == "sqlalchemy.engine.base" and (pool := getattr(value, "pool", None)) is not None:
        for record in (vars(pool).get("connection"), *getattr(pool, "_all_conns", ())):  # of a static one, by thread
            connection = getattr(record, "dbapi_connection", None)
            if isinstance(connection, sqlite3.Connection) and not _has_file(connection):
                yield connection


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        yield from (one.id for one in ast.walk(target) if isinstance(one, ast.Name))


def _belongs(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


class Walk:
    """One look at everything."""

    def __init__(self, key: bytes, named: Named) -> None:
        self.found: Held = {}
        self._key = key
        self._named = {id(value): name for name, value in reversed(list(named.items()))}
        self._seen: dict[int, Any] = {}  # by id; the object is kept, so that its id stays its own

    def value(self, name: str, value: Any, depth: int) -> None:
        if len(self.found) >= MOST or depth > _DEEPEST:
            return
        if isinstance(value, _ATOMS):
            self._note(name, repr(value))
            return
        if (
            self._named.get(id(value), name) != name
            or id(value) in self._seen
            or isinstance(value, _PASSED_TYPES)
            or is_replica_local(value)
        ):
            return
        self._seen[id(value)] = value
        self._note(name, type(value).__qualname__)
        try:
            self._inside(name, value, depth + 1)
        except Exception:  # an object that does not let itself be looked at
            return

    def _inside(self, name: str, value: Any, depth: int) -> None:
        if isinstance(value, Mapping):
            self.mapping(name, value, depth)
        elif isinstance(value, (list, tuple, deque)):
            self._note(f"{name} (length)", str(len(value)))
            for number, item in enumerate(value):
                self.value(f"{name}[{number}]", item, depth)
        elif isinstance(value, (set, frozenset)):
            self._note(f"{name} (members)", repr(sorted(map(repr, value))))
        elif isinstance(value, FunctionType):
            self._function(name, value, depth)
        elif isinstance(value, MethodType):
            self.value(name + ".__self__", value.__self__, depth)
        elif isinstance(value, type):
            self._class(name, value, depth)
        else:
            self._instance(name, value, depth)

    def mapping(self, name: str, value: Mapping[Any, Any], depth: int) -> None:
        self._note(f"{name} (length)", str(len(value)))
        for key, item in list(value.items()):
            shown = repr(key) if isinstance(key, _ATOMS) and len(repr(key)) <= 40 else f"<{type(key).__name__}>"
            self.value(f"{name}[{shown}]", item, depth)

    def _function(self, name: str, function: FunctionType, depth: int) -> None:
        for number, cell in enumerate(function.__closure__ or ()):
            try:
                self.value(f"{name}.{function.__code__.co_freevars[number]}", cell.cell_contents, depth)
            except ValueError:  # an empty cell
                pass
        for number, default in enumerate(function.__defaults__ or ()):
            self.value(f"{name} (default {number + 1})", default, depth)
        self._attributes(name, vars(function), depth)

    def _class(self, name: str, kind: type, depth: int) -> None:
        if kind.__module__ in sys.builtin_module_names:
            return
        self._attributes(name, {key: item for key, item in vars(kind).items() if not key.startswith("__")}, depth)

    def _instance(self, name: str, value: Any, depth: int) -> None:
        for connection in _in_memory(value):
            self.value(f"{name}.connection", connection, depth)
        if type(value).__module__.startswith(PASSED_PREFIXES) and not isinstance(value, threading.local):
            return
        if isinstance(value, Random):
            self._note(f"{name}.getstate()", repr(value.getstate()))
        elif isinstance(value, sqlite3.Connection):
            self._note(f"{name}{OF_FILE if _has_file(value) else OF_MEMORY}", str(value.total_changes))
        elif isinstance(value, (itertools.count, itertools.cycle)):
            self._note(f"{name} (position)", repr(value))
        elif isinstance(value, GeneratorType):
            self._note(f"{name} (position)", str(value.gi_frame and value.gi_frame.f_lasti))
            self.mapping(f"{name}.gi_frame.f_locals", value.gi_frame.f_locals if value.gi_frame else {}, depth)
        elif callable(getattr(value, "cache_info", None)):
            self._note(f"{name}.cache_info()", repr(value.cache_info()))
        self._attributes(name, getattr(value, "__dict__", {}), depth)
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                    self.value(f"{name}.{slot}", getattr(value, slot), depth)

    def _attributes(self, name: str, attributes: Mapping[str, Any], depth: int) -> None:
        for key, item in list(attributes.items()):
            if not (key.startswith("__") and key.endswith("__")):
                self.value(f"{name}.{key}", item, depth)

    def _note(self, name: str, text: str) -> None:
        self.found[name] = fingerprint(text, self._key)
