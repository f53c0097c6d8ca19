"""Which one of several equally good endpoints: the balancers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import gcd
from random import Random
from typing import Protocol

from .draw import Draws
from .eligibility import Group, untried
from .endpoint import EndpointState
from .options import PoolOptions
from .peak_ewma import PeakEwma
from .stride import StrideSequence

_MOST_SMOOTH = 64  # endpoints
_MOST_SKIPPED = 64  # turns of a weighted sequence: enough to spread workers, cheap for any weights


class Picker(Protocol):
    """Sees a ready group of two or more, never filters, never blocks."""

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState], now: float) -> EndpointState:
        """One of `group` that is not in `tried`; there is one. `key` is the call's 64-bit hash, if it has one.

        `now` is monotonic seconds. While nothing changes the very same tuple comes again, so what is derived from it
        may be kept.
        """
        ...


class RoundRobin:
    """One after the other, from a random start: else all workers of an app begin with the same endpoint."""

    def __init__(self, random: Random) -> None:
        self._turn = random.randrange(1 << 16)

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState], now: float) -> EndpointState:
        while True:
            self._turn += 1
            state = group[self._turn % len(group)]
            if state not in tried:
                return state


class RandomChoice:
    """Any, all alike."""

    def __init__(self, random: Random) -> None:
        self._random = random.random

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState], now: float) -> EndpointState:
        while (state := group[int(self._random() * len(group))]) in tried:
            if len(tried) * 2 > len(group):
                group = untried(group, tried)
        return state


class LeastRequest:
    """Power of two choices (Mitzenmacher; Envoy's and gRPC's least request), or of more.

    Two different endpoints are drawn, in proportion to their weights. The second gets the call if its load after it
    is no more than the first's load now: (active2 + 1) / weight2 <= active1 / weight1. Among equal weights that
    is "fewer active calls, else the first"; when idle, shares are those of the weights; when busy, loads become
    equal per weight. (Comparing Envoy's w / (active + 1) of both would starve light endpoints when idle.)
    Each further choice is one that is not the best so far, and must be better than it in the same way.
    """

    def __init__(self, random: Random, choices: int = 2) -> None:
        self._draws = Draws(random)
        self._more = range(choices - 2)

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState], now: float) -> EndpointState:
        draw = self._draws.among(group, tried)
        if len(draw.group) == 1:
            return draw.group[0]
        best, other = draw.two()
        weighted = draw.mean_weight is not None
        if _lower_by_weight(other, best) if weighted else other.in_flight < best.in_flight:
            best = other
        for _ in self._more:
            other = draw.other(best)
            if _lower_by_weight(other, best) if weighted else other.in_flight < best.in_flight:
                best = other
        return best


def _lower_by_weight(other: EndpointState, best: EndpointState) -> bool:
    return (other.in_flight + 1) * best.weight <= best.in_flight * other.weight


class WeightedRoundRobin:
    """In proportion to the weights and evenly interleaved: the sequence of nginx's smooth weighted round robin.

    The sequence repeats after (sum of weights / their greatest divisor) turns. It is computed turn by turn and kept, so
    that a long one costs nobody a pause. A retry draws another endpoint by weight and leaves the sequence as it is.

    Each turn of it that is new costs a look at all endpoints, and it is made for weights that stay. Many endpoints, and
    weights that load reports or a slow start change, get gRPC's static stride.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._draws = Draws(random)
        self._group: Group = ()
        self._sequence: SmoothSequence | StrideSequence = SmoothSequence(())

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState], now: float) -> EndpointState:
        if tried:
            return self._draws.among(group, tried).one()
        if group is not self._group:
            self._begin(group)
        return group[self._sequence.turn()]

    def _begin(self, group: Group) -> None:
        self._group, before = group, self._sequence
        weights = [state.weight for state in group]
        if len(group) > _MOST_SMOOTH or not all(weight == int(weight) for weight in weights):
            start = before.next if isinstance(before, StrideSequence) else self._random.randrange(1 << 16)
            self._sequence = StrideSequence(weights, start)
            return
        self._sequence = smooth = SmoothSequence([int(weight) for weight in weights])
        for _ in range(self._random.randrange(min(smooth.period, _MOST_SKIPPED))):
            smooth.turn()


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


def picker_for(options: PoolOptions, random: Random) -> Picker:
    """The picker of `options.balancer`, if that is none of those that hash (hashed.py)."""
    match options.balancer:
        case "round_robin":
            return RoundRobin(random)
        case "weighted_round_robin":
            return WeightedRoundRobin(random)
        case "random":
            return RandomChoice(random)
        case "least_request":
            return LeastRequest(random, options.least_request.choice_count)
        case "peak_ewma":
            return PeakEwma(random, options.peak_ewma.decay_time)
        case _:
            raise ValueError(f"{options.balancer} hashes")
