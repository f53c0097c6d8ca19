"""A store that writes down which verbs were used, and that can be away."""

from __future__ import annotations

from typing import Any

from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change, Record


class CountingStore:
    """Passes on to a real store."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.calls: list[str] = []
        self.away = False

    def _call(self, verb: str, *arguments: Any) -> Any:
        self.calls.append(verb)
        if self.away:
            raise StoreError("refused")
        return getattr(self.store, verb)(*arguments)

    def load(self, key: str) -> Record | None:
        return self._call("load", key)

    def create(self, key: str, record: Record) -> bool:
        return self._call("create", key, record)

    def update(self, key: str, change: Change) -> Applied:
        return self._call("update", key, change)

    def delete(self, key: str) -> None:
        self._call("delete", key)

    def close(self) -> None:
        self.store.close()
