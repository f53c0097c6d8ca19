"""The hash ring of Envoy's ring_hash, entry by entry."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from math import ceil

from xxhash import xxh64_intdigest

from .endpoint import EndpointState

_SLICE = 500  # entries that are made before others get their turn: less than a millisecond


class Ring:
    """Each endpoint owns entries in proportion to its weight, at the hashes of "{address}_{i}" (xxh64, seed 0).

    The entries are sorted into sectors of about eight each, so that a lookup takes the same time for any size.
    """

    __slots__ = ("_owners", "_sectors", "_shift", "hashes")

    def __init__(self, hashes: Sequence[int], owners: list[EndpointState], sectors: Sequence[int], shift: int) -> None:
        """`sectors[n]`: the first entry whose hash, shifted right by `shift` bits, is `n` or more."""
        self.hashes = hashes
        self._owners = owners
        self._sectors = sectors
        self._shift = shift

    def home(self, key: int) -> EndpointState:
        """The owner of the first entry at or after `key`, around the ring."""
        sector = key >> self._shift
        index = bisect_left(self.hashes, key, self._sectors[sector], self._sectors[sector + 1])
        return self._owners[index if index < len(self._owners) else 0]

    def owners(self, key: int) -> Iterator[EndpointState]:
        """The owners of all entries, from that one on. Their order is that of Envoy's further attempts."""
        start = bisect_left(self.hashes, key)
        for index in range(start, start + len(self._owners)):
            yield self._owners[index % len(self._owners)]


def building(states: Sequence[EndpointState], minimum: int, maximum: int) -> Generator[None, None, Ring]:
    """Makes the ring in slices of less than a millisecond.

    `minimum` and `maximum` bound the number of entries as in Envoy's ring_hash_lb: the lightest endpoint gets a whole
    number of them. Raises ValueError when they cross.
    """
    if not 1 <= minimum <= maximum:
        raise ValueError(f"expected ring sizes with 1 <= minimum <= maximum, got {minimum} and {maximum}")
    counts = counted(states, minimum, maximum)
    bits = max(0, sum(counts).bit_length() - 4)
    sectors: list[list[tuple[int, int]]] = [[] for _ in range(1 << bits)]
    made = 0
    for place, (state, count) in enumerate(zip(states, counts, strict=True)):
        for i in range(count):
            point = xxh64_intdigest(f"{state.endpoint.address}_{i}".encode())
            sectors[point >> 64 - bits].append((point, place))
            if (made := made + 1) % _SLICE == 0:
                yield
    return (yield from _joined(sectors, states, 64 - bits))


def _joined(
    sectors: list[list[tuple[int, int]]], states: Sequence[EndpointState], shift: int
) -> Generator[None, None, Ring]:
    hashes, starts, owners = array("Q"), array("L"), list[EndpointState]()
    for index, entries in enumerate(sectors):
        starts.append(len(hashes))
        entries.sort()
        hashes.extend([point for point, _ in entries])
        owners.extend([states[place] for _, place in entries])
        if index % (_SLICE // 8) == 0:
            yield
    starts.append(len(hashes))
    return Ring(hashes, owners, starts, shift)


def counted(states: Sequence[EndpointState], minimum: int, maximum: int) -> list[int]:
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
