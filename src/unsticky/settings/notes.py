"""What of settings has no effect, though it may be meant: a table that is still to be filled, checks without a path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields

from ..errors import Problem
from ..routing.health import checked
from ..routing.options import HealthOptions, PoolOptions
from .shapes import table_of
from .sources import Found

_EMPTY = {
    "fallback": "is empty, so calls have no fallback: it needs pool or status",
    "hedge": "is empty, so no attempt is hedged: it needs after or quantile",
}


def notes(name: str, options: PoolOptions, found: Found) -> Iterator[Problem]:
    """Of one pool; the paths are within it. None of them keeps an app from starting."""
    given = _given(name, found)
    for table, message in _EMPTY.items():
        if table in given and table_of(given[table]) == {}:
            yield Problem(table, message)
    if not checked(options.health):
        for field in _set(options.health):
            yield Problem(
                f"health.{field}", 'has no effect in an app: there are no checks without path or type = "tcp"'
            )


def _given(name: str, found: Found) -> Mapping[str, object]:
    pools = table_of(found.data.get("pools")) or {}
    return next((table_of(pool) or {} for key, pool in pools.items() if str(key).lower() == name), {})


def _set(options: HealthOptions) -> Iterator[str]:
    for field in fields(options):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if getattr(options, field.name) != default:
            yield field.name
