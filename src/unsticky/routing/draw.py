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

    `mean_weight` is None when all weights are equal. Else a draw is a search in their running sums, between two cuts of
    which there is one for every four members: it takes the same time in any group.
    """

    __slots__ = ("_cuts", "_parts", "_random", "_step", "_sums", "group", "mean_weight")

    def __init__(self, group: Group, random: Random) -> None:
        self.group = group
        self._random = random.random
        self.mean_weight: float | None = None
        weights = [state.weight for state in group]
        if weights and min(weights) != max(weights):
            self._weigh(list(accumulate(weights)))

    def _weigh(self, sums: list[float]) -> None:
        self.mean_weight = sums[-1] / len(sums)
        self._sums = sums
        self._parts = max(1, len(sums) // 4)
        self._step = sums[-1] / self._parts
        last = len(sums) - 1  # rounding must not put a point past it
        self._cuts = [bisect(sums, part * self._step, 0, last) for part in range(self._parts)] + [last]

    def one(self) -> EndpointState:
        """Any."""
        if self.mean_weight is None:
            return self.group[int(self._random() * len(self.group))]
        return self.group[self._at()]

    def two(self) -> tuple[EndpointState, EndpointState]:
        """Two different ones, of two or more: the second is drawn from all others, by their weights."""
        group, random = self.group, self._random
        if self.mean_weight is None:
            i = int(random() * len(group))
            j = int(random() * (len(group) - 1))
            return group[i], group[j + (j >= i)]
        point = random() * self._parts
        cut = int(point)
        i = bisect(self._sums, point * self._step, self._cuts[cut], self._cuts[cut + 1])
        point = random() * self._parts
        cut = int(point)
        j = bisect(self._sums, point * self._step, self._cuts[cut], self._cuts[cut + 1])
        return group[i], group[j if j != i else self._beside(i)]

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

    def _at(self) -> int:
        point = self._random() * self._parts
        cut = int(point)
        return bisect(self._sums, point * self._step, self._cuts[cut], self._cuts[cut + 1])

    def _beside(self, i: int) -> int:
        """The index of one of the others, by weight."""
        sums = self._sums
        begin = sums[i - 1] if i else 0.0
        weight = sums[i] - begin
        point = self._random() * (sums[-1] - weight)
        j = bisect(sums, point + weight if point >= begin else point, 0, len(sums) - 1)
        return j if j != i else i - 1 if i else 1  # equal by rounding only
