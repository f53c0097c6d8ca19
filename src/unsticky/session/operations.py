"""What a session asks of the store, as values: decisions yield them, a driver does them and sends the result back.

`ask` does one: it returns what a Store answers, and what to await of an AsyncStore.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

from .store import Change, Record

T = TypeVar("T")


class Load(NamedTuple):
    """Answered with a Record or None."""

    key: str

    def ask(self, store: Any) -> Any:
        return store.load(self.key)


class Create(NamedTuple):
    """Answered with True, or False if a live record exists."""

    key: str
    record: Record

    def ask(self, store: Any) -> Any:
        return store.create(self.key, self.record)


class Update(NamedTuple):
    """Answered with Applied."""

    key: str
    change: Change

    def ask(self, store: Any) -> Any:
        return store.update(self.key, self.change)


class Delete(NamedTuple):
    """Answered with None."""

    key: str

    def ask(self, store: Any) -> Any:
        return store.delete(self.key)


Operation = Load | Create | Update | Delete
Steps = Generator[Operation, Any, T]
