"""The lookup table of Google's Maglev (Eisenbud et al., NSDI 2016, listing 1), slot by slot as Envoy's maglev_lb."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from heapq import heapreplace
from itertools import cycle

from xxhash import xxh64_intdigest

from .endpoint import EndpointState

_SLICE = 128  # slots that are filled before others get their turn: a fraction of a millisecond, and 2 ms at last
_LAST = 128  # slots that are found from their own side


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
    walks = []
    for state in sorted(states, key=_name):
        walks.append(_Walk(state, size))
        if len(walks) % _SLICE == 0:
            yield
    slots: list[EndpointState | None] = [None] * size
    turns = _turns([walk.state.endpoint.weight for walk in walks])
    for filled in range(max(0, size - _LAST)):
        walk = walks[next(turns)]
        at, skip = walk.at, walk.skip
        while slots[at] is not None:
            at = (at + skip) % size
        slots[at] = walk.state
        walk.at = (at + skip) % size
        if filled % _SLICE == 0:
            yield
    free = [at for at, state in enumerate(slots) if state is None]
    while free:
        walk = walks[next(turns)]
        at = walk.first_of(free, size)
        free.remove(at)
        slots[at] = walk.state
        if len(free) % 16 == 0:
            yield
    return Maglev([state for state in slots if state is not None])


class _Walk:
    """An endpoint's permutation of all slots: where it stands, and its step."""

    __slots__ = ("at", "skip", "state")

    def __init__(self, state: EndpointState, size: int) -> None:
        self.state = state
        self.at = xxh64_intdigest(_name(state)) % size
        self.skip = xxh64_intdigest(_name(state), 1) % (size - 1) + 1

    def first_of(self, free: Sequence[int], size: int) -> int:
        """Which of the free slots it comes to first. Where few are left this is quicker than to walk there."""
        steps = pow(self.skip, -1, size)
        return min(free, key=lambda slot: (slot - self.at) * steps % size)


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
