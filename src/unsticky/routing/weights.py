"""Weights that change: from load reports (gRFC A58 and A114), and slow start (Envoy; gRFC A100).

An endpoint's effective weight is its reported one, or else its static one, times its slow start factor. Reported
weights are requests per second at full use, static ones are anything, so the former are scaled: the endpoints that have
reports keep the sum of their static weights, and those without count by their static ones. Where all static weights are
equal those without get gRPC's mean. Static weights and reports are not multiplied: both say what an endpoint can
carry, and twice the same would overrun the strong ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import TYPE_CHECKING

from .call import Lease
from .events import PoolEvent, ReportIgnored
from .load_report import LoadReport, parse
from .weight_options import LoadReportOptions, SlowStartOptions

if TYPE_CHECKING:
    from .endpoint import EndpointState
    from .options import PoolOptions

MAXIMUM = 2.0**32 - 1  # of one reported weight, as in Envoy
# gRPC C++ and Java bound weights by their mean, so that no report makes an endpoint take all calls, or none for ever.
_MOST, _LEAST = 10.0, 0.1
_STEPS = 20  # of a slow start
_BETWEEN = 0.1  # seconds between two reports of an endpoint that are read: gRPC's shortest update period
_GAIN = 0.25  # per update
_LONGEST_COUNT = 10.0  # seconds: calls that were counted over more say nothing about now


def utilization(report: LoadReport, metrics: Sequence[str]) -> float:
    """The highest of `metrics` that is above 0, else application_utilization, else cpu_utilization (gRFC A114)."""
    return max(map(report.metric, metrics), default=0.0) or report.application_utilization or report.cpu_utilization


def reported_weight(qps: float, eps: float, used: float, penalty: float) -> float:
    """gRFC A58: qps / (utilization + eps / qps * error_utilization_penalty). 0: it can't be said."""
    if not qps > 0 or not used > 0:
        return 0.0
    weight = qps / (used + eps / qps * penalty)
    return 0.0 if isnan(weight) else min(weight, MAXIMUM)


def slow_start(age: float, options: SlowStartOptions) -> float:
    """Of its weight, what an endpoint gets that began `age` seconds ago (Envoy slow_start.rst)."""
    if age >= options.window:
        return 1.0
    factor: float = (max(age, 1.0) / options.window) ** (1 / options.aggression)
    return min(1.0, max(options.minimum_percent / 100, factor))


@dataclass(slots=True, eq=False)
class Reported:
    """What an endpoint's reports say. Times are monotonic seconds. `weight`: requests per second at full use."""

    weight: float = 0.0
    updated: float = -inf
    non_empty_since: float = inf
    next_read: float = -inf  # reports that come before need not be read
    wrong: bool = False  # the last one was
    # Our own calls, for endpoints that report no rate.
    calls: int = 0
    counted_since: float = -inf

    def observe(self, report: LoadReport, options: LoadReportOptions, now: float) -> None:
        """Take one in. One that gives no weight changes nothing."""
        used = utilization(report, options.metrics)
        if report.rps_fractional > 0:
            weight = reported_weight(report.rps_fractional, report.eps, used, options.error_penalty)
        else:  # errors of all callers don't fit our own calls
            weight = reported_weight(self._measured(options, now), 0.0, used, options.error_penalty)
            weight = weight and self._smoothed(weight)
        if weight <= 0:
            return
        self.weight, self.updated = weight, now
        if self.non_empty_since == inf:
            self.non_empty_since = now

    def current(self, options: LoadReportOptions, now: float, ready_since: float) -> float:
        """The weight to use, 0 for none. `ready_since`: what it said before it was gone counts no more."""
        if now - self.updated >= options.expiry:
            self.non_empty_since = inf
            return 0.0
        if self.non_empty_since < ready_since:
            self.non_empty_since, self.weight = inf, 0.0
        if options.blackout > 0 and now - self.non_empty_since < options.blackout:
            return 0.0
        return self.weight

    def _smoothed(self, weight: float) -> float:
        """Our rate and their utilization are not of the same time: unsmoothed, weights would swing for ever."""
        return self.weight + _GAIN * (weight - self.weight) if self.weight else weight

    def _measured(self, options: LoadReportOptions, now: float) -> float:
        """Our own calls per second since the last measure; 0 when it is too early, or was too long.

        Not of gRFC A58, which ignores reports without qps. It is as good where all callers spread their calls alike.
        """
        seconds = now - self.counted_since
        if seconds < options.update_period:
            return 0.0
        calls, self.calls, self.counted_since = self.calls, 0, now
        return calls / seconds if seconds <= max(_LONGEST_COUNT, 10 * options.update_period) else 0.0


def relative(reported: Sequence[float], static: Sequence[float]) -> list[float]:
    """Weights in the measure of the static ones, of reported ones, which are 0 where there is none.

    With fewer than two the static ones count, as in gRFC A58.
    """
    known = [weight for weight in reported if weight > 0]
    if len(known) < 2:
        return list(static)
    mean = sum(known) / len(known)
    bounded = [min(max(weight, _LEAST * mean), _MOST * mean) if weight > 0 else 0.0 for weight in reported]
    base = sum(own for own, weight in zip(static, bounded, strict=True) if weight)
    scale = base / sum(bounded)
    return [weight * scale if weight else float(own) for own, weight in zip(static, bounded, strict=True)]


class Weighing:
    """Keeps `EndpointState.weight` of a pool's endpoints. Under the pool's lock, but for `hear`."""

    def __init__(self, reports: LoadReportOptions, start: SlowStartOptions, tell: Callable[[PoolEvent], None]) -> None:
        self._reports = reports
        self._start = start
        self._tell = tell
        self.asks = reports.enabled and reports.ask
        self.hears = reports.enabled
        self.due = -inf  # monotonic seconds: when `apply` has something to do, if nothing else happens
        self.heard: deque[tuple[Lease, LoadReport | str | None, float]] = deque()  # a str: what is wrong; None: unread

    @classmethod
    def of(cls, options: PoolOptions, tell: Callable[[PoolEvent], None]) -> Weighing | None:
        """None where weights never change."""
        changing = options.load_report.enabled or options.slow_start.window > 0
        return cls(options.load_report, options.slow_start, tell) if changing else None

    def hear(self, lease: Lease, metrics: str | None, legacy: str | None, now: float) -> None:
        """Take the report in a response's headers. Needs no lock. Raises nothing: a wrong report is ignored.

        It is read here, outside of the lock, and not more than ten times a second for an endpoint.
        """
        reported, report = lease.state.reported, None
        if now >= reported.next_read:
            reported.next_read = now + _BETWEEN
            report = _read(metrics, legacy)
        self.heard.append((lease, report, now))

    def listen(self) -> None:
        """Take in what was heard."""
        while self.heard:
            lease, report, now = self.heard.popleft()
            state = lease.state
            if lease.generation != state.generation:
                continue
            reported = state.reported
            reported.calls += 1
            if isinstance(report, LoadReport):
                reported.wrong = False
                reported.observe(report, self._reports, now)
            elif report is not None and not reported.wrong:
                reported.wrong = True
                self._tell(ReportIgnored(state.endpoint, report))

    def apply(self, states: Iterable[EndpointState], now: float) -> bool:
        """Weigh them anew, in O(n). True if a weight changed."""
        states = tuple(states)
        weights: Sequence[float] = [float(state.endpoint.weight) for state in states]
        self.due = inf
        if self._reports.enabled:
            self.due = now + self._reports.update_period
            options = self._reports
            reported = [
                state.reported.weight and state.reported.current(options, now, state.ready_since) for state in states
            ]
            weights = relative(reported, weights)
        if self._start.window > 0:
            weights = self._slowed(weights, states, now)
        changed = False
        for state, weight in zip(states, weights, strict=True):
            if state.weight != weight:
                state.weight, changed = weight, True
        return changed

    def _slowed(self, weights: Sequence[float], states: Sequence[EndpointState], now: float) -> Sequence[float]:
        begun = now - self._start.window
        if all(state.ready_since <= begun for state in states):
            return weights
        self.due = min(self.due, now + min(1.0, self._start.window / _STEPS))
        return [
            weight * slow_start(now - state.ready_since, self._start) if state.ready_since > begun else weight
            for state, weight in zip(states, weights, strict=True)
        ]


def _read(metrics: str | None, legacy: str | None) -> LoadReport | str:
    try:
        return parse(metrics, legacy)
    except ValueError as error:
        return str(error)
