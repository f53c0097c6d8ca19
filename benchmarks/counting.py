"""What do the metrics of pools cost a call? Nanoseconds per call, beside the same counts as OpenTelemetry's own adds.

    python benchmarks/counting.py               a few seconds
    python benchmarks/counting.py --json FILE   the figures, for other programs

`counted` is what a call writes down under the pool's lock: itself and its pick; with a retry, the failed attempt and
the retry as well. `added` is the same by the SDK's counters, a call of theirs per count. Interleaved rounds; the best
one counts, as whatever else runs can only add to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from unsticky.routing.tally import Tally

GOAL = 2000.0  # nanoseconds per call
CALLS = 20_000
ADDRESSES = [f"10.0.0.{number}:8000" for number in range(100)]


def counted(tally: Tally, *, retried: bool) -> Callable[[int], None]:
    """One call's counts as the flow makes them."""

    def call(number: int) -> None:
        tally.calls += 1
        tally.picks[ADDRESSES[number % 100]] += 1
        if retried:
            tally.failures["connect"] += 1
            tally.retries["connect"] += 1
            tally.picks[ADDRESSES[(number + 1) % 100]] += 1

    return call


def added(*, retried: bool) -> Callable[[int], None]:
    """The same, by synchronous instruments."""
    meter = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("benchmark")
    calls, picks, failures, retries = (meter.create_counter(name) for name in ("calls", "picks", "failures", "retries"))

    def call(number: int) -> None:
        calls.add(1, {"unsticky.pool": "catalog"})
        picks.add(1, {"unsticky.pool": "catalog", "unsticky.endpoint": ADDRESSES[number % 100]})
        if retried:
            failures.add(1, {"unsticky.pool": "catalog", "unsticky.reason": "connect"})
            retries.add(1, {"unsticky.pool": "catalog", "unsticky.reason": "connect"})
            picks.add(1, {"unsticky.pool": "catalog", "unsticky.endpoint": ADDRESSES[(number + 1) % 100]})

    return call


def measure(rounds: int = 7, calls: int = CALLS) -> dict[str, float]:
    """Nanoseconds per call, by what is measured."""
    subjects = {
        "counted": counted(Tally(), retried=False),
        "added": added(retried=False),
        "counted, with a retry": counted(Tally(), retried=True),
        "added, with a retry": added(retried=True),
    }
    best = dict.fromkeys(subjects, float("inf"))
    for _ in range(rounds):
        for name, call in subjects.items():
            best[name] = min(best[name], _once(call, calls))
    return best


def _once(call: Callable[[int], None], calls: int) -> float:
    began = perf_counter()
    for number in range(calls):
        call(number)
    return (perf_counter() - began) / calls * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    figures = measure()
    for name, nanoseconds in figures.items():
        print(f"{name:<24}{nanoseconds:8,.0f} ns per call")
    worst = max(figures["counted"], figures["counted, with a retry"])
    print(f"Goal, at most {GOAL:,.0f} ns per call: {'met' if worst <= GOAL else 'not met'} ({worst:,.0f})")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
