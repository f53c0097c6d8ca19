"""The lookup table of Google's Maglev (Eisenbud et al., NSDI 2016, listing 1), slot by slot as Envoy's maglev_lb."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from heapq import heapreplace
from itertools import cycle

from xxhash import xxh64_intdigest

from .endpoint import EndpointState

_SLICE = 256  # slots that are filled before others get their turn: less than a millisecond


class Maglev:
    """A key's home is the slot that it falls on: `key % size`."""

    __slots__ = ("_size", "slots")

    def __init__(self, slots: list[EndpointState]) -> None:
        self.slots = slots
        self._size = len(slots)

    def home(self, key: int) -> EndpointState:
        """The owner of the key's slot."""
        return self.slots[key % self._size]

    def owners(self, key: int) -> Iterator[EndpointState]:
        """The home, then the owners of other slots all over the table, in the order of Envoy's further attempts."""
        yield self.home(key)
        for attempt in range(1, self._size):
            yield self.slots[(key ^ (1 << 64) - attempt) % self._size]


def is_prime(number: int) -> bool:
    """By trial division: for sizes of tables."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def building(states: Sequence[EndpointState], size: int) -> Generator[None, None, Maglev]:
    """Fills `size` slots, a prime number, in slices of about a millisecond. Raises ValueError for any other size.

    Each endpoint in its turn takes the next free slot of a permutation of its own, which depends on its address alone.
    """
    if not is_prime(size):
        raise ValueError(f"expected a prime number of slots, got {size}")
    ordered = sorted(states, key=_name)
    skips = [xxh64_intdigest(_name(state), 1) % (size - 1) + 1 for state in ordered]
    positions = [xxh64_intdigest(_name(state)) % size for state in ordered]
    slots: list[EndpointState | None] = [None] * size
    turns = _turns([state.endpoint.weight for state in ordered])
    for filled in range(size):
        turn = next(turns)
        at, skip = positions[turn], skips[turn]
        while slots[at] is not None:
            at = (at + skip) % size
        slots[at] = ordered[turn]
        positions[turn] = (at + skip) % size
        if filled % _SLICE == 0:
            yield
    return Maglev([state for state in slots if state is not None])


def _name(state: EndpointState) -> bytes:
    return state.endpoint.address.encode()


def _turns(weights: Sequence[int]) -> Iterator[int]:
    """Who takes a slot next: the heaviest in each round, the others in a share of the rounds.

    Envoy looks at every endpoint in every round; here each knows the round in which it is due, so that one very heavy
    endpoint among thousands costs no more than equal ones.
    """
    if min(weights) == max(weights):
        yield from cycle(range(len(weights)))
    total = sum(weights)
    shares = [weight / total for weight in weights]
    heaviest = max(shares)
    targets = [0.0] * len(weights)
    due = [(1, index) for index in range(len(weights))]  # a heap
    while True:
        turn, index = due[0]
        yield index
        targets[index] += heaviest
        heapreplace(due, (_due(turn + 1, shares[index], targets[index]), index))


def _due(turn: int, share: float, target: float) -> int:
    """The first round from `turn` on with `round * share >= target`, in the same floats as Envoy."""
    due = max(turn, int(target / share) - 1)
    while due * share < target:
        due += 1
    return due
