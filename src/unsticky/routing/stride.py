"""gRPC's static stride scheduler: turns in proportion to weights of any kind, without state but a counter."""

from __future__ import annotations

from collections.abc import Sequence

_WHOLE = 65535  # of the greatest weight


class StrideSequence:
    """In each of 65535 rounds over all endpoints one of weight w (scaled) gets w turns, evenly spread.

    A 0 counts as the mean of the others. gRPC static_stride_scheduler, {5, 1, 1} from 0: a c a a b a a. A weight too
    small for the scale keeps one turn, where gRPC would give it none.
    """

    def __init__(self, weights: Sequence[float], start: int) -> None:
        known = [weight for weight in weights if weight > 0]
        scale = _WHOLE / max(known, default=1.0)
        mean = sum(known) / len(known) if known else 1.0
        self.weights = [max(1, _rounded(scale * (weight if weight > 0 else mean))) for weight in weights]
        self.next = start

    def turn(self) -> int:
        """The index whose turn it is."""
        weights, count = self.weights, len(self.weights)
        at = self.next
        while True:
            generation, index = divmod(at, count)
            at += 1
            weight = weights[index]
            if (weight * generation + index * (_WHOLE // 2)) % _WHOLE >= _WHOLE - weight:
                self.next = at
                return index


def _rounded(value: float) -> int:
    return int(value + 0.5)
