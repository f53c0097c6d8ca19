"""Rendezvous hashing (Thaler and Ravishankar, 1998; weights by Schindelhauer and Schomaker, 2005)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log

from xxhash import xxh64_intdigest

from .endpoint import EndpointState


class Rendezvous:
    """Each endpoint has a score for each key; the greatest is the key's home. All are looked at: for small pools.

    The score is weight / -ln(u), `u` in (0, 1) being xxh64 of the key's 8 bytes, little endian, seeded with xxh64 of
    the endpoint's address. No key moves but those of an endpoint that goes, and those that one which comes wins.
    """

    __slots__ = ("_equal", "_seeds", "_states", "_weights")

    def __init__(self, states: Sequence[EndpointState]) -> None:
        self._states = list(states)
        self._seeds = [xxh64_intdigest(state.endpoint.address.encode()) for state in states]
        self._weights = [state.endpoint.weight for state in states]
        self._equal = min(self._weights) == max(self._weights)

    def home(self, key: int) -> EndpointState:
        """The endpoint with the greatest score."""
        scores = self._scores(key)
        return self._states[scores.index(max(scores))]

    def owners(self, key: int) -> Iterator[EndpointState]:
        """All, by falling score."""
        scores = self._scores(key)
        for index in sorted(range(len(scores)), key=scores.__getitem__, reverse=True):
            yield self._states[index]

    def _scores(self, key: int) -> Sequence[float]:
        """Among equal weights the hash itself, which is in the same order."""
        data = key.to_bytes(8, "little")
        hashes = [xxh64_intdigest(data, seed) for seed in self._seeds]
        if self._equal:
            return hashes
        return [
            weight / -log(((point >> 11) + 0.5) / (1 << 53))
            for weight, point in zip(self._weights, hashes, strict=True)
        ]
