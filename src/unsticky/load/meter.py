"""The load report of this process: requests are counted, the rest is sampled at most once a second, by a request.

There is no thread: an app that nobody asks costs nothing.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from threading import Lock
from typing import Any

from ..clock import Clock, SystemClock
from ..routing.load_report import FORMATS, LoadReport
from ..routing.weight_options import ReportingOptions
from ..rules import METRIC
from ..worker import in_forked_children
from .system import Sample, System

log = logging.getLogger("unsticky.load")

_PERIOD = 1.0  # seconds between two samples
_WINDOW = 5  # periods that rates are taken over
_LONGEST = 10.0  # seconds: what is older says nothing about now
Said = float | Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Moment:
    """A sample, and what was counted until then."""

    system: Sample
    ended: int
    errors: int


class Meter:
    """Counts an app's requests and makes its load reports. For all threads and event loops; survives a fork."""

    def __init__(self, options: ReportingOptions, *, clock: Clock | None = None, system: System | None = None) -> None:
        self.on = options.emit != "off"
        self._options = options
        self._asked_only = options.emit == "on_request"
        self._workers = options.workers or _workers()
        self._clock = clock or SystemClock()
        self._system = system
        self._said: dict[str, Said] = {}
        self._begin()
        if self.on:
            in_forked_children(self._begin)

    def _begin(self) -> None:
        self._lock = Lock()
        self._sampling = Lock()
        self._in_flight = self._ended = self._errors = 0
        self._moments: deque[_Moment] = deque(maxlen=_WINDOW + 1)
        self._texts: dict[str, str] = {}
        self._report = LoadReport()
        self._next = 0.0
        if self.on:
            self._system = self._system or System(network=self._options.bandwidth is not None)
            self._sample(self._clock.monotonic())

    def say(self, name: str, value: Said) -> None:
        """Report `value`, or what calling it returns at each sample, as `name`: `application_utilization`,
        `utilization.NAME` or `named_metrics.NAME`; what was measured by this name gives way.

        Raises ValueError when it is none of these, or `value` is negative or not finite.
        """
        METRIC.read(name)
        if not callable(value):
            _sane(value)
        self._said = {**self._said, name: value}

    # What the middlewares do ---------------------------------------------

    def form(self, asked: str | None) -> str | None:
        """How to write the report for a request with this `endpoint-load-metrics-format`; None: there is none."""
        if asked is None:
            return None if self._asked_only else self._options.format
        form = asked.strip().lower()
        return form if form in FORMATS else None

    def began(self) -> None:
        """A request came."""
        with self._lock:
            self._in_flight += 1

    def ended(self, *, error: bool) -> None:
        """Its response is done. `error`: it was a 5xx, or none."""
        with self._lock:
            self._in_flight -= 1
            self._ended += 1
            self._errors += error

    def header(self, form: str) -> str:
        """The value of `endpoint-load-metrics`, not older than a second while requests come."""
        now = self._clock.monotonic()
        if now >= self._next and self._sampling.acquire(blocking=False):  # the others take the one before
            try:
                self._sample(now)
            finally:
                self._sampling.release()
        texts = self._texts
        text = texts.get(form)
        if text is None:
            text = texts[form] = FORMATS[form](self._report)
        return text

    # Inside ----------------------------------------------------------------

    def _sample(self, now: float) -> None:
        assert self._system is not None
        self._next = now + _PERIOD
        moments = self._moments
        while moments and now - moments[0].system.time > _LONGEST:
            moments.popleft()
        with self._lock:
            ended, errors, in_flight = self._ended, self._errors, self._in_flight
        moments.append(_Moment(self._system.sample(now), ended, errors))
        measured = self._measured(moments[0], moments[-1], in_flight)
        self._report = with_said(measured, self._said)
        self._texts = {}  # after the report: whoever still has the former one writes the former text

    def _measured(self, first: _Moment, last: _Moment, in_flight: int) -> LoadReport:
        """Rates of the endpoint: this process's times its workers, as the CPU's utilization is the endpoint's too."""
        before, after = first.system, last.system
        report = LoadReport(mem_utilization=after.memory or 0.0, named_metrics={"in_flight": float(in_flight)})
        seconds = after.time - before.time
        if seconds < _PERIOD:
            return report
        return replace(
            report,
            cpu_utilization=cpu_utilization(before, after),
            rps_fractional=self._workers * (last.ended - first.ended) / seconds,
            eps=self._workers * (last.errors - first.errors) / seconds,
            utilization=self._bandwidth(before, after, seconds),
        )

    def _bandwidth(self, before: Sample, after: Sample, seconds: float) -> dict[str, float]:
        """Of the direction that is fuller."""
        capacity = self._options.bandwidth
        if capacity is None or before.network is None or after.network is None:
            return {}
        counts = zip(before.network, after.network, strict=True)
        return {"bandwidth": max(0.0, *(new - old for old, new in counts)) / seconds / capacity}


def cpu_utilization(before: Sample, after: Sample) -> float:
    """Of this process's cores and of its group's quota, which all workers share, what is fuller."""
    seconds = after.time - before.time
    own = (after.cpu - before.cpu) / seconds / after.cores
    if after.group_cpu is None or before.group_cpu is None or not after.quota:
        return max(0.0, own)
    return max(0.0, own, (after.group_cpu - before.group_cpu) / seconds / after.quota)


def with_said(report: LoadReport, said: dict[str, Said]) -> LoadReport:
    """With what the app adds. What can't be had is left out, and logged by the name of its error."""
    for name, value in said.items():
        try:
            number = _sane(value() if callable(value) else value)
        except Exception as error:
            log.warning("%s is not reported: %s", name, type(error).__name__)
            continue
        group, dot, key = name.partition(".")
        change: dict[str, Any] = {group: {**getattr(report, group), key: number} if dot else number}
        report = replace(report, **change)
    return report


def _sane(value: float) -> float:
    number = float(value)
    if not isfinite(number) or number < 0:
        raise ValueError(f"expected a number of 0 or more, got {number}")
    return number


def _workers() -> int:
    text = os.environ.get("WEB_CONCURRENCY", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() else 1
