"""What the request that is being served means for a call: its deadline, and its client's leaving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..context import Client, current_arrival
from ..errors import ClientDisconnected, DeadlineExceeded, RoutingError
from ..pools import Served
from ..routing.call import Outcome
from .library import Library


def inbound_client(request: Any) -> Client | None:
    """Whose leaving cancels this call, if anybody's does."""
    arrival = current_arrival()
    if arrival is None or arrival.client is None:
        return None
    given = request.extensions.get("unsticky")
    return None if isinstance(given, Mapping) and given.get("inbound") is False else arrival.client


def disconnected(library: Library, served: Served, request: Any) -> RoutingError:
    """What a call raises whose inbound client went away."""
    name = served.pool.name
    text = f"pool {name!r}: cancelled, because the client of the request that is being served went away"
    return library.raised(ClientDisconnected(text, pool=name), None, request)


def exceeded(pool: str, end: Outcome | RoutingError, count: int) -> DeadlineExceeded:
    """What a call raises, after `count` attempts, that failed for want of the inbound request's time."""
    attempts = end.attempts if isinstance(end, RoutingError) else ()
    listed = f": {'; '.join(map(str, attempts))}" if attempts else ""
    made = f"{count} attempt{'s'[: count != 1]}{listed}"
    text = f"pool {pool!r}: the inbound request's deadline left no more time, after {made}"
    return DeadlineExceeded(text, pool=pool, attempts=attempts)
