"""The hash ring of Envoy's ring_hash, entry by entry."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from math import ceil

from xxhash import xxh64_intdigest

from .endpoint import EndpointState


class Ring:
    """Each endpoint owns entries in proportion to its weight, at the hashes of "{address}_{i}" (xxh64, seed 0).

    `minimum` and `maximum` bound the number of entries as in Envoy's ring_hash_lb: the lightest endpoint gets a whole
    number of them. Raises ValueError when they cross.
    """

    __slots__ = ("_owners", "hashes")

    def __init__(self, states: Sequence[EndpointState], minimum: int, maximum: int) -> None:
        if not 1 <= minimum <= maximum:
            raise ValueError(f"expected ring sizes with 1 <= minimum <= maximum, got {minimum} and {maximum}")
        entries = sorted(
            (xxh64_intdigest(f"{state.endpoint.address}_{i}".encode()), place)
            for place, (state, count) in enumerate(zip(states, _counts(states, minimum, maximum), strict=True))
            for i in range(count)
        )
        self.hashes = [point for point, _ in entries]
        self._owners = [states[place] for _, place in entries]

    def first(self, key: int, members: Collection[EndpointState]) -> EndpointState:
        """The first owner at or after `key`, around the ring, that is in `members`."""
        owners = self._owners
        start = bisect_left(self.hashes, key)
        for index in range(start, start + len(owners)):
            owner = owners[index % len(owners)]
            if owner in members:
                return owner
        # Only when weights are so unequal that `maximum` left an endpoint without entries.
        return next(iter(members))


def _counts(states: Sequence[EndpointState], minimum: int, maximum: int) -> list[int]:
    """Entries per endpoint, by running sums, as Envoy rounds them."""
    total = sum(state.endpoint.weight for state in states)
    weights = [state.endpoint.weight / total for state in states]
    scale = min(ceil(min(weights) * minimum) / min(weights), float(maximum))
    counts, current, target = [], 0, 0.0
    for weight in weights:
        target += scale * weight
        count = max(0, ceil(target - current))
        counts.append(count)
        current += count
    return counts
