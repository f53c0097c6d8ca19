"""Which modules are the app's own, and which dicts hold its variables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from ...guard.snapshot import Namespace


def packages_of(app: Any) -> tuple[str, ...]:
    """The packages of the module that holds the app object, of Flask's import name, and of the app's views."""
    named = getattr(app, "import_name", None)
    found = {named} if isinstance(named, str) else set()
    found.update(name for name in (*_holders(app), *map(_module, _views(app)), _module(app)) if not _is_installed(name))
    return tuple(sorted({name.partition(".")[0] for name in found if name}))


def is_own(packages: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a module's name is of `packages`."""
    exact = frozenset(packages)
    below = tuple(f"{package}." for package in packages)
    return lambda name: isinstance(name, str) and (name in exact or name.startswith(below))


def namespaces(app: Any, own: Callable[[str], bool]) -> list[Namespace]:
    """The variables of the modules, and what hangs on the app object."""
    found = [
        Namespace(f"{name}:", vars(module))
        for name, module in list(sys.modules.items())
        if own(name) and isinstance(module, ModuleType)
    ]
    for attribute in ("config", "extensions"):
        held = getattr(app, attribute, None)
        if isinstance(held, dict):
            found.append(Namespace(f"app.{attribute}['", held, "']"))
    state = getattr(getattr(app, "state", None), "_state", None)
    if isinstance(state, dict):
        found.append(Namespace("app.state.", state))
    return found


def _holders(app: Any) -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and any(value is app for value in list(vars(module).values())):
            yield name


def _views(app: Any) -> Iterator[Any]:
    functions = getattr(app, "view_functions", None)
    if isinstance(functions, Mapping):
        yield from functions.values()
    for route in getattr(app, "routes", None) or ():
        if (endpoint := getattr(route, "endpoint", None)) is not None:
            yield endpoint
        elif route is not app:
            yield from _views(route)


def _module(thing: Any) -> str:
    name = getattr(thing, "__module__", "")
    return name if isinstance(name, str) else ""


def _is_installed(name: str) -> bool:
    """Of a library, or of Python itself."""
    top = name.partition(".")[0]
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return installed or top in sys.stdlib_module_names - {"__main__"} or top == "unsticky"
