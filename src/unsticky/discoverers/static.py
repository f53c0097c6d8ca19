"""Endpoints that do not change: for tests and tools, and as the simplest example of a discovery."""

from __future__ import annotations

from collections.abc import Iterable

from ..routing.call import Endpoint


class StaticDiscovery:
    """Finds what it was given."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = frozenset(endpoints)

    def discover(self) -> frozenset[Endpoint]:
        return self._endpoints
