"""When a call that is slow deserves another attempt beside the one under way: hedging.

Dean and Barroso, The Tail at Scale; Finagle BackupRequestFilter; gRFC A6 (hedgingDelay); failsafe-go (quantile delay).
"""

from __future__ import annotations

from math import frexp, inf

from .hedge_options import HedgeOptions

LEAST = 0.001  # seconds; Finagle's minSendBackupAfterMs: below it a timer is mostly noise
_STEPS = 16  # buckets per power of two: a quantile is at most 6 % too high
_OCTAVES = range(-19, 13)  # 2 us to an hour
_BUCKETS = len(_OCTAVES) * _STEPS


class Hedging:
    """What a pool knows about when to hedge."""

    __slots__ = ("_after", "_least", "maximum", "quantile")

    def __init__(self, options: HedgeOptions, now: float) -> None:
        self.maximum = options.maximum
        self._after = inf if options.after is None else max(options.after, LEAST)
        self._least = options.minimum_samples
        self.quantile = None if options.quantile is None else Quantile(options.quantile, options.window, now)

    @classmethod
    def of(cls, options: HedgeOptions, now: float) -> Hedging | None:
        """None: the options say that nothing is hedged."""
        return None if options.after is None and options.quantile is None else cls(options, now)

    def delay(self, now: float) -> float:
        """Seconds after which an attempt is slow; inf: not known yet."""
        quantile = self.quantile
        if quantile is None or quantile.samples(now) < self._least:
            return self._after
        return max(quantile.value, LEAST)

    def answered(self, seconds: float, now: float) -> None:
        """An attempt's headers came after `seconds`, or it gave up waiting for them."""
        if self.quantile is not None:
            self.quantile.observe(seconds, now)

    def outrun(self, seconds: float, now: float) -> None:
        """An attempt without an answer for `seconds` was given up, because another one was quicker.

        It would have taken longer. One that had waited less than others wait says nothing, and is left out: counted, it
        would make the pool look quicker than it is.
        """
        quantile = self.quantile
        if quantile is not None and seconds >= quantile.value:
            quantile.observe(seconds, now)


class Quantile:
    """A quantile of what was observed in the last `window` seconds, or in at least the last half of them.

    A histogram whose buckets grow by a sixteenth of a power of two. Each observation moves a mark by the few buckets
    that it is off, so that `value` is up to date and costs nothing; what is old is dropped in two halves.
    """

    __slots__ = ("_below", "_counts", "_half", "_mark", "_newer", "_quantile", "_total", "_turn")

    def __init__(self, quantile: float, window: float, now: float) -> None:
        self._quantile = quantile
        self._half = window / 2
        self._turn = now + self._half
        self._counts = [0] * _BUCKETS  # of both halves
        self._newer = [0] * _BUCKETS  # of the half under way
        self._total = 0
        self._mark = 0  # the bucket that holds the quantile
        self._below = 0  # observations in buckets before it

    def observe(self, seconds: float, now: float) -> None:
        """One more, of `seconds` above 0."""
        if now >= self._turn:
            self._forget(now)
        bucket = _bucket(seconds)
        self._counts[bucket] += 1
        self._newer[bucket] += 1
        self._total += 1
        self._below += bucket < self._mark
        self._move()

    def samples(self, now: float) -> int:
        """How many count at `now`."""
        if now >= self._turn:
            self._forget(now)
        return self._total

    @property
    def value(self) -> float:
        """The upper end of the bucket with the quantile, in seconds: at most 1/16 too high. 0 without observations."""
        return _upper_end(self._mark) if self._total else 0.0

    def _move(self) -> None:
        """To the first bucket up to whose end there are at least `quantile` of all."""
        counts, wanted = self._counts, self._quantile * self._total
        while self._below >= wanted and self._mark > 0:
            self._mark -= 1
            self._below -= counts[self._mark]
        while self._below + counts[self._mark] < wanted:
            self._below += counts[self._mark]
            self._mark += 1

    def _forget(self, now: float) -> None:
        """Begin another half; what is older than the one before it does not count any more."""
        quiet = now >= self._turn + self._half  # all of it is old
        self._counts = [0] * _BUCKETS if quiet else self._newer.copy()
        self._newer = [0] * _BUCKETS
        self._turn = now + self._half
        self._total = sum(self._counts)
        self._mark = self._below = 0
        self._move()


def _bucket(seconds: float) -> int:
    mantissa, exponent = frexp(seconds)  # seconds == mantissa * 2**exponent, with 0.5 <= mantissa < 1
    octave = exponent - _OCTAVES.start
    if octave < 0 or seconds <= 0:
        return 0
    return min(octave * _STEPS + int((mantissa - 0.5) * 2 * _STEPS), _BUCKETS - 1)


def _upper_end(bucket: int) -> float:
    octave, step = divmod(bucket, _STEPS)
    return (0.5 + (step + 1) / (2 * _STEPS)) * 2.0 ** (octave + _OCTAVES.start)
