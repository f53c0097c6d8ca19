"""Consistent hashing with bounded loads (Mirrokni et al., arXiv:1608.01350), with Envoy's random jumps (1908.08762)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from math import ceil
from typing import Protocol

from .eligibility import Group
from .endpoint import EndpointState

_LOOKED_AT = 64  # endpoints, at most, for a call whose home is full: of those the least loaded will do
_FEW = 8  # numbers that are drawn ahead for a key


class Total(Protocol):
    """Calls in flight, in all of a pool."""

    in_flight: int


def overload(active: int, total: int, factor: int, share: float) -> float:
    """Calls in flight per slot of an endpoint; up to 1 it has room. `factor` is in percent of its share of `total`."""
    slots = ((total + 1) * factor + 99) // 100
    return active / max(ceil(slots * share), 1)


class Bound:
    """Sends a call whose home is full to another endpoint: for a key always in the same order.

    Full is who has more than `factor` percent of its share, by weights, of the pool's calls in flight.
    """

    def __init__(self, factor: int, pool: Total) -> None:
        self._factor = factor
        self._pool = pool

    def spare(
        self, home: EndpointState, key: int, group: Group, weight: int, tried: Collection[EndpointState]
    ) -> EndpointState:
        """`home`, or who stands in: the first of `group` with room, else the least loaded. `weight` is the group's."""
        least = self._overload(home, weight)
        if least <= 1.0:
            return home
        best = home
        for index in shuffled(len(group), key):
            state = group[index]
            if state is home or state in tried:
                continue
            found = self._overload(state, weight)
            if found <= 1.0:
                return state
            if found < least:
                best, least = state, found
        return best

    def _overload(self, state: EndpointState, weight: int) -> float:
        return overload(state.in_flight, self._pool.in_flight, self._factor, state.endpoint.weight / weight)


def shuffled(count: int, key: int) -> Iterator[int]:
    """The first of the numbers below `count` in the order that Envoy draws them in for `key` (Fisher and Yates)."""
    numbers = _numbers(key & 0xFFFF_FFFF)
    moved: dict[int, int] = {}
    for place in range(min(count, _LOOKED_AT)):
        left = count - place
        step = (1 << 32) // left
        jump = next((number // step for number in numbers if number // step < left), 0)
        yield moved.get(place + jump, place + jump)
        moved[place + jump] = moved.get(place, place)


def _numbers(seed: int) -> Iterator[int]:
    """Most shuffles end after one or two."""
    yield from _drawn(seed, _FEW)
    yield from _drawn(seed, _LOOKED_AT + _FEW)[_FEW:]


@lru_cache(maxsize=1024)
def _drawn(seed: int, count: int) -> tuple[int, ...]:
    """What C++'s std::mt19937 gives first. Kept, as hot keys come again and it takes 50 us.

    Python's own Mersenne Twister is seeded in another way. Outputs before the 228th depend on seed words alone.
    """
    words = [seed]
    for index in range(1, 397 + count):
        words.append((1812433253 * (words[-1] ^ words[-1] >> 30) + index) & 0xFFFF_FFFF)
    return tuple(_output(words, index) for index in range(count))


def _output(words: list[int], index: int) -> int:
    mixed = words[index] & 0x8000_0000 | words[index + 1] & 0x7FFF_FFFF
    word = words[index + 397] ^ mixed >> 1 ^ (0x9908_B0DF if mixed & 1 else 0)
    word ^= word >> 11
    word ^= word << 7 & 0x9D2C_5680
    word ^= word << 15 & 0xEFC6_0000
    return word ^ word >> 18
