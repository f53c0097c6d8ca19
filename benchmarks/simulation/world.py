"""Virtual time, and the servers in it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from heapq import heapify, heappop, heappush, heapreplace
from math import exp
from random import Random
from typing import Any

from unsticky.routing.call import Endpoint, Failure, Outcome

Draw = Callable[[], float]  # a service time, in means
_RATE_OVER = 5.0  # seconds that a server's reported rates are of, as unsticky's own reports


class VirtualClock:
    """A Clock that is moved by the events of its world."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now


class Agenda:
    """What happens when. Of two things at one moment the one that was planned first comes first."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self._planned: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def at(self, when: float, do: Callable[[Any], None], about: Any = None) -> None:
        self._count += 1
        heappush(self._planned, (when, self._count, do, about))

    def run(self) -> None:
        """Until nothing is planned any more."""
        planned, clock = self._planned, self.clock
        while planned:
            clock.now, _, do, about = heappop(planned)
            do(about)

    def broken(self, url: str) -> None:
        """The server went away: who waits for its answer sees the connection break now."""
        now, kept = self.clock.now, []
        for when, count, do, about in self._planned:
            if isinstance(about, Outcome) and about.attempt.endpoint.url == url and about.failure is None:
                about.status, about.failure, when = None, Failure.BROKEN, now
            kept.append((when, count, do, about))
        heapify(kept)
        self._planned[:] = kept


class Mode(Enum):
    """How a server meets those who call it."""

    UP = "up"
    REFUSES = "refuses"  # the process is gone: the connection is refused at once
    VANISHED = "vanished"  # the machine is gone: connecting gets no answer
    HANGS = "hangs"  # it accepts, and says nothing


class Server:
    """`workers` that take requests from one queue, first come first served.

    The queue is bounded: who finds it full gets a 503. A request that its caller gave up is worked off all the same, as
    servers do. So when an answer comes is known as soon as the request does.
    """

    __slots__ = (
        "_before", "_draw", "_free", "_present", "_rate", "_report", "_reported", "_room", "_used", "busy",
        "calls", "endpoint", "mean", "mode", "refused", "speed", "warm_at", "warm_time", "workers",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, workers: int, backlog: int, mean: float, draw: Draw) -> None:
        """`mean`: seconds that a request takes a worker at speed 1. `backlog`: how many may wait."""
        self.endpoint = endpoint
        self.workers = workers
        self.mean = mean
        self.mode = Mode.UP
        self.speed = 1.0
        self.warm_at = self.warm_time = 0.0  # after a restart it is slower until then
        self.calls = 0  # that it took
        self.busy = 0.0  # worker seconds for them
        self.refused = 0  # calls that found it full
        self._draw = draw
        self._room = workers + backlog
        self._free = [0.0] * workers  # a heap: when each worker is done
        self._present: list[float] = []  # a heap: when those who are here will leave
        self._before = 0, 0.0  # calls and busy at the last report
        self._rate = self._used = 0.0
        self._reported = 0.0
        self._report = ""

    def receive(self, now: float) -> float | None:
        """A request comes in. When its answer goes out; None: it found the queue full."""
        present = self._present
        while present and present[0] <= now:
            heappop(present)
        if len(present) >= self._room:
            self.refused += 1
            return None
        seconds = self._draw() * self.mean / self.speed
        if now < self.warm_at:
            seconds *= 1.0 + 2.0 * (self.warm_at - now) / self.warm_time
        begin = self._free[0]
        end = (begin if begin > now else now) + seconds
        heapreplace(self._free, end)
        heappush(present, end)
        self.calls += 1
        self.busy += seconds
        return end

    def stop(self, mode: Mode) -> None:
        self.mode = mode
        self._free = [0.0] * self.workers
        self._present.clear()

    def start(self, now: float, warm_time: float = 0.0) -> None:
        """`warm_time`: it begins at a third of its speed, and reaches all of it so many seconds later."""
        self.mode = Mode.UP
        self.warm_at, self.warm_time = now + warm_time, warm_time

    def report(self, now: float) -> str:
        """What it says of its load, in the form of `endpoint-load-metrics`: renewed once a second."""
        if now - self._reported >= 1.0:
            self._renew(now)
        return self._report

    def _renew(self, now: float) -> None:
        seconds = now - self._reported
        gain = 1.0 - exp(-seconds / _RATE_OVER) if self._report else 1.0
        before_calls, before_busy = self._before
        self._rate += gain * ((self.calls - before_calls) / seconds - self._rate)
        self._used += gain * ((self.busy - before_busy) / seconds / self.workers - self._used)
        self._report = f"TEXT application_utilization={min(1.0, self._used):.4f},rps_fractional={self._rate:.3f}"
        self._reported, self._before = now, (self.calls, self.busy)


def exponential(random: Random) -> Draw:
    return lambda: random.expovariate(1.0)


def lognormal(random: Random) -> Draw:
    """Mean 1, and a tail: one of a hundred takes more than five times as long (sigma 1)."""
    return lambda: random.lognormvariate(-0.5, 1.0)


DRAWS: dict[str, Callable[[Random], Draw]] = {"exponential": exponential, "lognormal": lognormal}
