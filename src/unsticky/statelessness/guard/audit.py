"""What requests write to the local disk: one audit hook of the interpreter, for all guards of the process.

An audit hook can't be removed, so it is installed once, with the first guard, and asks for little when there is none.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from threading import Lock
from typing import Any, Protocol
from urllib.parse import unquote

from ...errors import LocalStateRefused

_EVENTS = frozenset(
    {"open", "os.rename", "os.link", "os.truncate", "sqlite3.connect", "tempfile.mkstemp", "tempfile.mkdtemp"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Record:
    """What one request does. It is found by its Context, so tasks and threads that it starts count as the request."""

    # Most requests change nothing of this: what is not set costs nothing.
    naming: Callable[[], str] | None = None
    number = 0
    alone = False
    before: Any = None  # fingerprints of the armed variables
    written: dict[str, Any] | None = None  # by path
    temporary: set[str] | None = None  # paths that `tempfile` made
    left = False
    over = False

    def __init__(self, guard: Watching) -> None:
        self.guard = guard

    @property
    def endpoint(self) -> str:
        """Method and route, as far as they are known by now: "POST /add/<item>"."""
        return "" if self.naming is None else self.naming()


class Watching(Protocol):
    """A guard, as the hook sees it."""

    def wrote(self, record: Record | None, kind: str, path: str) -> None:
        """Something is about to be written. Raises LocalStateRefused to prevent it."""


current: ContextVar[Record | None] = ContextVar("unsticky_guarded", default=None)
_guards: dict[int, weakref.ref[Watching]] = {}
unowned_temporary: deque[str] = deque(maxlen=256)  # what `tempfile` made for threads that know of no request
_installing = Lock()
_installed = False


def watch(guard: Watching) -> None:
    """Tell it from now on, as long as it lives."""
    global _installed
    _guards[id(guard)] = weakref.ref(guard, partial(_forget, id(guard)))
    with _installing:
        if not _installed:
            sys.addaudithook(_hook)
            _installed = True


def _forget(key: int, _: object) -> None:
    _guards.pop(key, None)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Nothing but a refusal may come out of here: it would be an error of the app's `open`."""
    if event not in _EVENTS or not _guards:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
        return
    try:
        record = current.get()
        guard = record.guard if record is not None else list(_guards.values())[-1]()
        if guard is not None:
            _tell(guard, record, event, arguments)
    except LocalStateRefused:
        raise
    except Exception:  # a path that can't be read, the interpreter's end
        return


def _tell(guard: Watching, record: Record | None, event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith("tempfile."):
        made = os.path.realpath(os.fsdecode(arguments[0]))
        if record is None:
            unowned_temporary.append(made)
        else:
            record.temporary = record.temporary or set()
            record.temporary.add(made)
        return
    if event == "sqlite3.connect":
        path = database(arguments[0])
        if path:
            guard.wrote(record, "sqlite", path)
        return
    target = arguments[1 if event in ("os.rename", "os.link") else 0]
    if not isinstance(target, int):
        guard.wrote(record, "file", os.fsdecode(target))


def database(name: Any) -> str:
    """The file that SQLite may write to; "" if it is in memory, or read only."""
    text = os.fsdecode(name)
    if not text.startswith("file:"):
        return "" if text == ":memory:" else text
    path, _, query = text.removeprefix("file:").partition("?")
    options = query.partition("#")[0].split("&")
    if path == ":memory:" or not {"mode=ro", "mode=memory", "immutable=1"}.isdisjoint(options):
        return ""
    path = unquote(path)
    return path.removeprefix("//localhost") if path.startswith("//localhost/") else path.removeprefix("//")
