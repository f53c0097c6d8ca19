"""A few endpoints of many for each process (gRFC A68 random_subsetting, by rendezvous hash)."""

from __future__ import annotations

from collections.abc import Sequence

from xxhash import xxh64_intdigest

from .endpoint import EndpointState


def place(address: str, seed: int) -> int:
    """Where an endpoint stands in the order of a process with this seed."""
    return xxh64_intdigest(address.encode(), seed)


def subset(states: Sequence[EndpointState], size: int | None) -> tuple[EndpointState, ...]:
    """The `size` of `states` whose place is lowest, in the order that they came in.

    A68 cuts before it looks at health; here it is fit endpoints that are cut, so that the next in this process's order
    steps in for one that fails, and only for that one: no process is left without while others have endpoints.
    """
    if size is None or len(states) <= size:
        return tuple(states)
    last = sorted(state.place for state in states)[size - 1]
    return tuple(state for state in states if state.place <= last)
