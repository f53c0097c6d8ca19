"""A few endpoints of many for each process (gRFC A68 random_subsetting, by rendezvous hash)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

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


def watched(
    states: Iterable[EndpointState], fit: Collection[EndpointState], size: int, *, zones: bool
) -> tuple[EndpointState, ...]:
    """Whom a process must know the health of: of each level (and zone) its subset, and all who would be in it if fit.

    That is, in its order, all up to the `size`th fit one. Checks don't grow with the pool, and who comes back is seen.
    """
    found: list[EndpointState] = []
    enough: dict[tuple[int, str | None], int] = {}
    for state in sorted(states, key=lambda state: state.place):
        group = state.endpoint.priority, state.endpoint.locality if zones else None
        if enough.get(group, 0) < size:
            enough[group] = enough.get(group, 0) + (state in fit)
            found.append(state)
    return tuple(found)
