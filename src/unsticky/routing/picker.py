"""Which one of several equally good endpoints: the balancers."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Sequence
from itertools import accumulate
from math import gcd
from random import Random
from typing import Protocol

from .eligibility import Group, untried
from .endpoint import EndpointState
from .options import PoolOptions
from .ring import Ring

_MOST_SKIPPED = 64  # turns of a weighted sequence: enough to spread workers, cheap for any weights


class Picker(Protocol):
    """Sees a ready group of two or more, never filters, never blocks."""

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState]) -> EndpointState:
        """One of `group` that is not in `tried`; there is one. `key` is the call's 64-bit hash, if it has one.

        While nothing changes the very same tuple comes again, so what is derived from it may be kept.
        """
        ...

    def replace(self, states: Group) -> None:
        """The pool's endpoints are these now, fit or not."""
        ...


class RoundRobin:
    """One after the other, from a random start: else all workers of an app begin with the same endpoint."""

    def __init__(self, random: Random) -> None:
        self._turn = random.randrange(1 << 16)

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState]) -> EndpointState:
        while True:
            self._turn += 1
            state = group[self._turn % len(group)]
            if state not in tried:
                return state

    def replace(self, states: Group) -> None: ...


class RandomChoice:
    """Any, all alike."""

    def __init__(self, random: Random) -> None:
        self._random = random.random

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState]) -> EndpointState:
        group = untried(group, tried) if tried else group
        return group[int(self._random() * len(group))]

    def replace(self, states: Group) -> None: ...


class LeastRequest:
    """Power of two choices (Mitzenmacher; Envoy's least request with choice_count 2).

    Two different endpoints are drawn, in proportion to their weights. The second gets the call if its load after it
    is no more than the first's load now: (active2 + 1) / weight2 <= active1 / weight1. Among equal weights that
    is "fewer active calls, else the first"; when idle, shares are those of the weights; when busy, loads become
    equal per weight. (Comparing Envoy's w / (active + 1) of both would starve light endpoints when idle.)
    """

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self._group: Group = ()
        self._sums: Sequence[float] | None = None  # None: all weights are equal

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState]) -> EndpointState:
        if tried:
            group = untried(group, tried)
            sums = _sums(group)
        else:
            if group is not self._group:
                self._group, self._sums = group, _sums(group)
            sums = self._sums
        if len(group) == 1:
            return group[0]
        return self._weighted(group, sums) if sums else self._equal(group)

    def replace(self, states: Group) -> None: ...

    def _equal(self, group: Group) -> EndpointState:
        i = int(self._random() * len(group))
        j = int(self._random() * (len(group) - 1))
        first, second = group[i], group[j + (j >= i)]  # the second is drawn from those around the first
        return second if second.in_flight < first.in_flight else first

    def _weighted(self, group: Group, sums: Sequence[float]) -> EndpointState:
        i = bisect(sums, self._random() * sums[-1])
        first = group[i]
        weight = first.weight
        point = self._random() * (sums[-1] - weight)
        second = group[bisect(sums, point + weight if point >= sums[i] - weight else point)]
        if (second.in_flight + 1) * weight <= first.in_flight * second.weight:
            return second
        return first


class WeightedRoundRobin:
    """In proportion to the weights and evenly interleaved: the sequence of nginx's smooth weighted round robin.

    The sequence repeats after (sum of weights / their greatest divisor) turns. It is computed turn by turn and kept, so
    that a long one costs nobody a pause. A retry draws another endpoint by weight and leaves the sequence as it is.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._group: Group = ()
        self._sequence = SmoothSequence(())

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState]) -> EndpointState:
        if tried:
            group = untried(group, tried)
            return self._random.choices(group, [state.weight for state in group])[0]
        if group is not self._group:
            self._begin(group)
        return group[self._sequence.turn()]

    def replace(self, states: Group) -> None: ...

    def _begin(self, group: Group) -> None:
        self._group = group
        self._sequence = SmoothSequence([int(state.weight) for state in group])
        for _ in range(self._random.randrange(min(self._sequence.period, _MOST_SKIPPED))):
            self._sequence.turn()


class SmoothSequence:
    """nginx ngx_http_upstream_get_peer: {5, 1, 1} gives a a b a c a a."""

    def __init__(self, weights: Sequence[int]) -> None:
        divisor = gcd(*weights) or 1
        self._weights = [weight // divisor for weight in weights]
        self._current = [0] * len(weights)
        self._known: list[int] = []
        self._next = 0
        self.period = sum(self._weights)

    def turn(self) -> int:
        """The index whose turn it is."""
        if self._next == len(self._known):
            if len(self._known) == self.period:
                self._next = 0
            else:
                self._known.append(self._step())
        index = self._known[self._next]
        self._next += 1
        return index

    def _step(self) -> int:
        current = [now + weight for now, weight in zip(self._current, self._weights, strict=True)]
        best = current.index(max(current))  # the first of equals
        current[best] -= self.period
        self._current = current
        return best


class RingHash:
    """By the call's key, so that equal keys meet the same endpoint; a call without one goes anywhere.

    There is a ring per priority, over all its endpoints: one that is not fit is passed over, and the keys of the
    others stay where they are.
    """

    def __init__(self, options: PoolOptions, random: Random) -> None:
        self._options = options.hash
        self._anywhere = RandomChoice(random)
        self._rings: dict[int, Ring] = {}
        self._group: Group = ()
        self._members: frozenset[EndpointState] = frozenset()

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState]) -> EndpointState:
        if key is None:
            return self._anywhere.pick(group, key, tried)
        if group is not self._group:
            self._group, self._members = group, frozenset(group)
        members = self._members.difference(tried) if tried else self._members
        return self._rings[group[0].endpoint.priority].first(key, members)

    def replace(self, states: Group) -> None:
        levels: dict[int, list[EndpointState]] = {}
        for state in states:
            levels.setdefault(state.endpoint.priority, []).append(state)
        self._rings = {
            priority: Ring(level, self._options.minimum_ring_size, self._options.maximum_ring_size)
            for priority, level in levels.items()
        }


def picker_for(options: PoolOptions, random: Random) -> Picker:
    """The picker of `options.balancer`."""
    if options.balancer == "ring_hash":
        return RingHash(options, random)
    return _PICKERS[options.balancer](random)


_PICKERS: dict[str, type[RoundRobin | WeightedRoundRobin | RandomChoice | LeastRequest]] = {
    "round_robin": RoundRobin,
    "weighted_round_robin": WeightedRoundRobin,
    "random": RandomChoice,
    "least_request": LeastRequest,
}


def _sums(group: Group) -> Sequence[float] | None:
    """Running sums of the weights, or None when all are equal."""
    weights = [state.weight for state in group]
    return list(accumulate(weights)) if min(weights) != max(weights) else None
