"""Random draws from a group, in proportion to weights, in O(log n)."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection
from itertools import accumulate
from random import Random

from .eligibility import Group, untried
from .endpoint import EndpointState

_SMALL = 64  # endpoints that a retry may look through one by one
_SAMPLE = 16  # draws that stand for a larger group on a retry


class Draws:
    """Keeps what was made for a group while the very same group comes again."""

    __slots__ = ("_draw", "_random")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._draw = Draw((), random)

    def among(self, group: Group, tried: Collection[EndpointState]) -> Draw:
        """Draws from those of `group` that are not in `tried`. Of a large group it is a sample of them."""
        if group is not self._draw.group:
            self._draw = Draw(group, self._random)
        return Draw(self._draw.untried(tried), self._random) if tried else self._draw


class Draw:
    """Draws members of `group` by their effective weights. These are read once: with other weights comes another group.

    `mean_weight` is None when all weights are equal.
    """

    __slots__ = ("_random", "_sums", "group", "mean_weight")

    def __init__(self, group: Group, random: Random) -> None:
        self.group = group
        self._random = random.random
        weights = [state.weight for state in group]
        equal = not weights or min(weights) == max(weights)
        self._sums = None if equal else list(accumulate(weights))
        self.mean_weight = self._sums[-1] / len(group) if self._sums else None

    def one(self) -> EndpointState:
        """Any."""
        if self._sums is None:
            return self.group[int(self._random() * len(self.group))]
        return self.group[_at(self._sums, self._random() * self._sums[-1])]

    def two(self) -> tuple[EndpointState, EndpointState]:
        """Two different ones, of two or more: the second is drawn from all others, by their weights."""
        group, random, sums = self.group, self._random, self._sums
        if sums is None:
            i = int(random() * len(group))
            j = int(random() * (len(group) - 1))
            return group[i], group[j + (j >= i)]
        i = _at(sums, random() * sums[-1])
        return group[i], group[_beside(sums, i, random())]

    def other(self, state: EndpointState) -> EndpointState:
        """One that is not `state`, of two or more."""
        if (found := self.one()) is not state:
            return found
        first, second = self.two()
        return second if first is state else first

    def untried(self, tried: Collection[EndpointState]) -> Group:
        """Those that are not in `tried`; there is one. Of a large group a few, drawn, as looking at all takes long."""
        if len(self.group) > _SMALL:
            drawn = dict.fromkeys(self.one() for _ in range(_SAMPLE))
            if found := untried(drawn, tried):
                return found
        return untried(self.group, tried)


def _at(sums: list[float], point: float) -> int:
    return bisect(sums, point, 0, len(sums) - 1)  # rounding may put a point at the very end


def _beside(sums: list[float], i: int, random: float) -> int:
    """The index of one of the others, by weight."""
    begin = sums[i - 1] if i else 0.0
    weight = sums[i] - begin
    point = random * (sums[-1] - weight)
    j = _at(sums, point + weight if point >= begin else point)
    return j if j != i else i - 1 if i else 1  # equal by rounding only
