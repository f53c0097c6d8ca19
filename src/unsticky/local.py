"""What is local to a replica on purpose."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")
_declared: dict[int, tuple[object, str]] = {}  # by id; the value is kept, so that its id stays its own


def replica_local(value: T, *, why: str) -> T:
    """`value` itself, declared to be local to each replica on purpose: `unsticky check` and the guard pass over it.

        METRICS = replica_local(Counter(), why="scraped from each replica")

    Meant for objects that change in place, where they are made. Raises TypeError for one that can't change, such as a
    number or a text: allow its variable by name instead (`--allow shop:hits`).
    """
    if not why:
        raise ValueError("replica_local: say why, for those who read it later")
    if isinstance(value, (str, bytes, int, float, complex, bool, tuple, frozenset, type(None))):
        raise TypeError(f"replica_local: a {type(value).__name__} can't change; allow its variable by name instead")
    _declared[id(value)] = value, why
    return value


def is_replica_local(value: object) -> bool:
    """Whether it was declared so."""
    return id(value) in _declared
