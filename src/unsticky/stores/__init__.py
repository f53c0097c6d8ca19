"""Session stores: a URL's scheme says which, and its module is imported only when it is opened.

Each module offers `open_store(url, clock, timeout)` and `open_async_store(url, clock, timeout)`. Opening does no I/O:
a store that is away is found by the first verb, as a StoreError.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import cast

from ..clock import Clock
from ..errors import Problem, SettingsError
from ..scalars import StoreURL
from ..session.store import AsyncStore, Store
from .memcached_url import memcached_hosts
from .postgres_url import postgres_target
from .redis_url import redis_target
from .urls import memory_name, nearest, split, sqlite_path

# scheme: (module, how its URL is checked, the extra that brings its driver)
_KINDS: dict[str, tuple[str, Callable[[str], object], str]] = {
    "memcached": ("memcached", memcached_hosts, ""),
    "memory": ("memory", memory_name, ""),
    "postgres": ("postgres", postgres_target, "postgres"),
    "postgresql": ("postgres", postgres_target, "postgres"),
    "sqlite": ("sqlite", sqlite_path, ""),
    **{
        server + suffix: ("redis", redis_target, "")
        for server in ("redis", "rediss", "valkey", "valkeys")
        for suffix in ("", "+sentinel", "+cluster")
    },
}


def check_url(url: str) -> str | None:
    """What is wrong with the URL, or None. Imports no driver; the message shows no password."""
    try:
        scheme = split(url).scheme
        if scheme not in _KINDS:
            return _no_such(scheme)
        _KINDS[scheme][1](url)
    except ValueError as error:
        return str(error)
    return None


def open_store(url: StoreURL | str, *, clock: Clock, timeout: float) -> Store:
    """The store for threads. `timeout` is the deadline of one operation in seconds. Raises SettingsError."""
    return cast(Store, _module(url).open_store(str(url), clock, timeout))


def open_async_store(url: StoreURL | str, *, clock: Clock, timeout: float) -> AsyncStore:
    """The store for event loops. `timeout` is the deadline of one operation in seconds. Raises SettingsError."""
    return cast(AsyncStore, _module(url).open_async_store(str(url), clock, timeout))


def _module(url: str) -> ModuleType:
    problem = check_url(url)
    if problem is not None:
        raise _wrong(problem)
    module, _, extra = _KINDS[split(url).scheme]
    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("unsticky"):
            raise
        raise _wrong(f"the driver is not installed: pip install 'unsticky[{extra}]'") from error


def _wrong(message: str) -> SettingsError:
    return SettingsError("session store", [Problem("session.store", message)])


def _no_such(scheme: str) -> str:
    known = tuple(sorted(_KINDS))
    listed = ", ".join(f"{name}://" for name in known)
    if not scheme:
        return f'expected a URL such as "sqlite:///sessions.db"; known: {listed}'
    return f'unknown store "{scheme}"{nearest(scheme, known) or ";"} known: {listed}'
