"""`app.config` and `app.state` that tell of changes, or refuse them, once the app has served a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import LocalStateRefused

_OF_DICTS = ("__setitem__", "__delitem__", "__ior__", "update", "setdefault", "pop", "popitem", "clear")
_OF_STATES = ("__setattr__", "__delattr__", "__setitem__", "__delitem__")
_NAMED = frozenset({"__setitem__", "__delitem__", "__setattr__", "__delattr__", "pop", "setdefault"})


def freeze(app: Any, refused: Callable[[str], LocalStateRefused | None]) -> None:
    """In place: whoever holds the object sees it. `refused` is told the name, and gives what to raise; None: go on."""
    config, state = getattr(app, "config", None), getattr(app, "state", None)
    if isinstance(config, dict):
        _refuse(config, _OF_DICTS, "app.config['{}']", refused)
    if isinstance(getattr(state, "_state", None), dict):
        _refuse(state, _OF_STATES, "app.state.{}", refused)


def _refuse(
    thing: Any, methods: tuple[str, ...], form: str, refused: Callable[[str], LocalStateRefused | None]
) -> None:
    """Give it a class of the same layout, whose writing methods refuse."""
    kind = type(thing)
    if "_unsticky_frozen" in vars(kind):
        return
    replaced: dict[str, Any] = {
        name: _refusing(getattr(kind, name), form, refused, named=name in _NAMED)
        for name in methods
        if hasattr(kind, name)
    }
    frozen = type(kind.__name__, (kind,), {"_unsticky_frozen": True, "__module__": kind.__module__, **replaced})
    try:
        object.__setattr__(thing, "__class__", frozen)  # State has a __setattr__ of its own
    except TypeError:  # a class of another layout: it is left as it is
        return


def _refusing(method: Any, form: str, refused: Callable[[str], LocalStateRefused | None], *, named: bool) -> Any:
    def refusing(self: Any, *arguments: Any, **more: Any) -> Any:
        if method.__name__ == "setdefault" and arguments[0] in self:
            return method(self, *arguments, **more)
        key = arguments[0] if named and arguments else "..."
        told = key if isinstance(key, str) and key.isidentifier() else "..."
        error = refused(form.format(told))
        if error is not None:
            raise error
        return method(self, *arguments, **more)

    return refusing
