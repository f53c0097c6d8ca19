"""What a session asks of the store, as values: decisions yield them, a driver does them and sends the result back."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

from .store import Change, Record

T = TypeVar("T")


class Load(NamedTuple):
    """Answered with a Record or None."""

    key: str


class Create(NamedTuple):
    """Answered with True, or False if a live record exists."""

    key: str
    record: Record


class Update(NamedTuple):
    """Answered with Applied."""

    key: str
    change: Change


class Delete(NamedTuple):
    """Answered with None."""

    key: str


Operation = Load | Create | Update | Delete
Steps = Generator[Operation, Any, T]
