"""Which attempts fail or wait on purpose. Pure: chance is given."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .call import Failure
from .fault_options import FaultOptions

_FAILURES = {"connect": Failure.CONNECT, "timeout": Failure.TIMEOUT, "broken": Failure.BROKEN}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one attempt: first the delay, in seconds, then the abort: a failure, or a status."""

    delay: float = 0.0
    abort: Failure | int | None = None


class Faults:
    """The faults of one pool. Its owner holds the pool's lock around `draw`."""

    __slots__ = ("_abort", "_options", "_random", "drawn")

    def __init__(self, options: FaultOptions, random: Random) -> None:
        self._options = options
        self._random = random
        self._abort = _FAILURES[options.abort] if isinstance(options.abort, str) else options.abort
        self.drawn = False  # an attempt may have had one

    @classmethod
    def of(cls, options: FaultOptions, random: Random) -> Faults | None:
        """None: they are off."""
        return cls(options, random) if options.abort_percent or options.delay_percent else None

    def draw(self, address: str) -> Fault | None:
        """What happens to the next attempt on the endpoint at `address`. Both chances are drawn alone, as by Envoy."""
        options, self.drawn = self._options, True
        if options.endpoints and address not in options.endpoints:
            return None
        delayed = options.delay is not None and self._hits(options.delay_percent)
        aborted = self._hits(options.abort_percent)
        if not delayed and not aborted:
            return None
        return Fault(options.delay or 0.0 if delayed else 0.0, self._abort if aborted else None)

    def _hits(self, percent: float) -> bool:
        return self._random.random() * 100 < percent
