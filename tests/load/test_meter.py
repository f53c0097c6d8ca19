"""The meter: rates over some seconds, utilization of what is tightest, what the app adds, threads and forks."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from typing import Any

import pytest

from unsticky.load import Meter
from unsticky.load.system import Sample, System
from unsticky.routing.load_report import LoadReport, parse
from unsticky.routing.weight_options import ReportingOptions
from unsticky.testing import FakeClock

ALWAYS = ReportingOptions(emit="always")


class Scripted(System):
    """A system that says what the test sets."""

    def __init__(self) -> None:
        self.now = Sample(0.0, cpu=5.0, cores=1.0, memory=0.25)
        self.samples = 0

    def sample(self, now: float) -> Sample:
        self.samples += 1
        return replace(self.now, time=now)

    def use(self, **changes: Any) -> None:
        self.now = replace(self.now, **changes)


class Bench:
    """A meter, its clock and its system."""

    def __init__(self, options: ReportingOptions = ALWAYS, **first: Any) -> None:
        self.clock, self.system = FakeClock(), Scripted()
        self.system.use(**first)
        self.meter = Meter(options, clock=self.clock, system=self.system)

    def serve(self, count: int, errors: int = 0) -> None:
        for i in range(count):
            self.meter.began()
            self.meter.ended(error=i < errors)

    def report(self, seconds: float = 0.0) -> LoadReport:
        self.clock.advance(seconds)
        return parse(self.meter.header("text"))


def test_rates_and_utilization() -> None:
    """Requests and errors per second, CPU time per second, memory, and who is in flight."""
    bench = Bench()
    bench.serve(20, errors=5)
    bench.meter.began()
    bench.system.use(cpu=6.0, memory=0.5)
    expected = LoadReport(
        cpu_utilization=0.5, mem_utilization=0.5, rps_fractional=10, eps=2.5, named_metrics={"in_flight": 1}
    )
    assert bench.report(2) == expected


def test_a_report_is_made_once_a_second() -> None:
    """Between, the same text is given, however many ask."""
    bench = Bench()
    bench.report(1)
    made = bench.system.samples
    for _ in range(9):
        bench.serve(1)
        bench.report(0.1)
    assert bench.system.samples == made
    bench.report(0.1)
    assert bench.system.samples == made + 1


def test_rates_are_of_the_last_five_seconds() -> None:
    """A burst is over after that."""
    bench = Bench()
    bench.serve(100)
    assert [round(bench.report(1).rps_fractional) for _ in range(7)] == [100, 50, 33, 25, 20, 0, 0]


def test_after_a_silence_rates_begin_anew() -> None:
    """What happened before a pause of more than ten seconds says nothing about now."""
    bench = Bench()
    bench.serve(100)
    assert bench.report(60) == LoadReport(mem_utilization=0.25, named_metrics={"in_flight": 0})
    bench.serve(10)
    assert bench.report(1).rps_fractional == 10


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"cpu": 1.0}, {"cpu": 1.5}, 0.5),
        ({"cpu": 1.0, "cores": 4.0}, {"cpu": 3.0}, 0.5),
        ({"cpu": 1.0, "cores": 0.5, "quota": 0.5, "group_cpu": 1.0}, {"cpu": 1.25, "group_cpu": 1.25}, 0.5),
        ({"cpu": 1.0, "quota": 2.0, "group_cpu": 1.0}, {"cpu": 1.5, "group_cpu": 2.6}, 0.8),
        ({"cpu": 1.0, "quota": 8.0, "group_cpu": 1.0}, {"cpu": 1.9, "group_cpu": 2.6}, 0.9),
        ({"cpu": 1.0, "quota": 2.0, "group_cpu": 1.0}, {"cpu": 1.5, "group_cpu": None}, 0.5),
    ],
)
def test_cpu_is_of_what_is_fuller(before: dict[str, Any], after: dict[str, Any], expected: float) -> None:
    """Of the process's own core under the GIL, and of the group's quota, which workers and neighbours share."""
    bench = Bench(**before)
    bench.system.use(**after)
    assert bench.report(1).cpu_utilization == pytest.approx(expected)


def test_workers_multiply_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four workers sees a fourth of the requests; utilization is the endpoint's already."""
    bench = Bench(ReportingOptions(emit="always", workers=4))
    bench.serve(10, errors=2)
    report = bench.report(1)
    assert (report.rps_fractional, report.eps) == (40, 8)
    for text, expected in (("3", 3), ("junk", 1), ("0", 1), ("", 1)):
        monkeypatch.setenv("WEB_CONCURRENCY", text)
        bench = Bench()
        bench.serve(1)
        assert bench.report(1).rps_fractional == expected


def test_bandwidth() -> None:
    """The fuller direction, of the capacity; not without one."""
    bench = Bench(ReportingOptions(emit="always", bandwidth=1000.0), network=(0, 100))
    bench.system.use(network=(400, 1700))
    assert bench.report(2).utilization == {"bandwidth": 0.8}
    assert Bench(network=(0, 0)).report(2).utilization == {}


def test_what_the_app_says(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers, and functions that are called with each sample. One that fails is left out, its text is not logged."""
    bench = Bench()
    queue = [1, 2]

    def broken() -> float:
        raise RuntimeError("secret")

    bench.meter.say("application_utilization", 0.4)
    bench.meter.say("cpu_utilization", 0.9)
    bench.meter.say("named_metrics.queue", lambda: len(queue))
    bench.meter.say("utilization.disk", broken)
    bench.meter.say("utilization.pool", lambda: float("nan"))
    with caplog.at_level(logging.WARNING, "unsticky.load"):
        report = bench.report(1)
    assert (report.application_utilization, report.cpu_utilization) == (0.4, 0.9)
    assert report.named_metrics == {"in_flight": 0, "queue": 2}
    assert report.utilization == {}
    assert [record.getMessage() for record in caplog.records] == [
        "utilization.disk is not reported: RuntimeError",
        "utilization.pool is not reported: ValueError",
    ]
    queue.append(3)
    assert bench.report(1).named_metrics["queue"] == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("cpu", 1), ("named_metrics.a=b", 1), ("named_metrics.a,b", 1), ("eps", 1), ("cpu_utilization", -1),
     ("cpu_utilization", float("inf")), ("named_metrics.", 1)],
)  # fmt: skip
def test_what_can_not_be_said(name: str, value: float) -> None:
    """A name that no report has, or no number."""
    with pytest.raises(ValueError, match="expected "):
        Meter(ALWAYS).say(name, value)


@pytest.mark.parametrize(
    ("emit", "asked", "form"),
    [
        ("on_request", None, None),
        ("on_request", "text", "text"),
        ("on_request", " JSON", "json"),
        ("on_request", "bin", "bin"),
        ("on_request", "xml", None),
        ("always", None, "json"),
        ("always", "TEXT", "text"),
        ("always", "xml", None),
    ],
)
def test_forms(emit: Any, asked: str | None, form: str | None) -> None:
    """The caller's choice, else the settings'; none that we don't know."""
    assert Meter(ReportingOptions(emit=emit, format="json")).form(asked) == form


def test_threads_lose_no_count() -> None:
    """Requests that begin and end in many threads at once, with reports made in between."""
    bench = Bench()

    def work() -> None:
        for _ in range(2000):
            bench.meter.began()
            bench.meter.header("text")
            bench.meter.ended(error=False)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = bench.report(1)
    assert (report.rps_fractional, report.named_metrics["in_flight"]) == (16000, 0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_counts_its_own() -> None:
    """Not what its parent served, nor with a lock that a thread of the parent held."""
    bench = Bench()
    bench.serve(100)
    bench.meter.began()
    with bench.meter._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            status = 1
            try:
                bench.serve(3)
                report = bench.report(1)
                status = 0 if (report.rps_fractional, report.named_metrics["in_flight"]) == (3, 0) else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_off_reads_nothing() -> None:
    """By default the system is not looked at."""
    bench = Bench(ReportingOptions())
    assert not bench.meter.on
    assert bench.system.samples == 0
