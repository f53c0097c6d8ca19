"""What does the guard cost a request? Microseconds, on an app of 50 modules, 2,500 globals and 1,000 containers.

    python benchmarks/guard.py          some seconds
    python benchmarks/guard.py --smoke  one, for the tests

The same WSGI app, bare and under the guard with its default sampling, in interleaved rounds of 512 requests: each
variable is looked at once in a round, each length eight times. The best round of each counts, as whatever else runs can
only add to it. Beside it a look by itself, and what an audit event costs. With guard = "off" the app is not wrapped,
and no hook is installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import perf_counter
from types import ModuleType
from typing import Any

from unsticky.arrivals import Arrivals
from unsticky.clock import SystemClock
from unsticky.guard.options import StatelessnessOptions
from unsticky.guard.snapshot import TURNS, Snapshot
from unsticky.routing.hop_options import InboundOptions
from unsticky.statelessness.guard import packages
from unsticky.statelessness.guard.hosts import GuardedWsgi
from unsticky.statelessness.guard.watch import Guard
from unsticky.wsgi import InContext

GOAL = 5.0  # microseconds
MODULES, GLOBALS, CONTAINERS = 50, 50, 20  # of each module


def make_shop() -> None:
    """Modules as an app has them: containers of all sizes, functions, classes, numbers and texts."""
    for number in range(MODULES):
        module = ModuleType(f"guarded_shop.part{number}")
        for index in range(GLOBALS):
            vars(module)[f"name{index}"] = _value(index, number)
        sys.modules[module.__name__] = module


def _value(index: int, number: int) -> Any:
    if index < CONTAINERS:
        size = (index * 7 + number) % 40
        return dict.fromkeys(range(size), "value") if index % 2 else list(range(size))
    kinds: list[Callable[[], Any]] = [lambda: make_shop, lambda: type("Kind", (), {}), lambda: f"text {index}", object]
    return kinds[index % len(kinds)]()


def app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"ok"]


def rounds(apps: dict[str, Any], count: int, requests: int) -> dict[str, float]:
    """Microseconds per request of each, in the best of `count` rounds."""
    best = dict.fromkeys(apps, float("inf"))
    for _ in range(count):
        for name, served in apps.items():
            best[name] = min(best[name], _time(served, requests))
    return best


def _time(served: Any, requests: int) -> float:
    environ = {"REQUEST_METHOD": "GET"}
    begin = perf_counter()
    for _ in range(requests):
        served(environ, _started)
    return (perf_counter() - begin) / requests * 1e6


def _started(status: str, headers: object) -> None: ...


def _each(action: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(10):
        begin = perf_counter()
        for _ in range(times):
            action()
        best = min(best, (perf_counter() - begin) / times * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a few rounds")
    smoke = parser.parse_args().smoke
    make_shop()
    irrelevant = _each(lambda: sys.audit("guarded.shop"), 1000)
    guard = Guard(StatelessnessOptions(guard="report", packages=("guarded_shop",)), SystemClock())
    arrivals = Arrivals(InboundOptions())
    apps = {"bare": InContext(app, arrivals), "guarded": InContext(GuardedWsgi(app, guard), arrivals)}
    rounds(apps, 1, 1000)  # warm: the first look is behind
    period = guard.options.sweep_every
    found = rounds(apps, 10 if smoke else 600, period * TURNS)
    own = packages.is_own(("guarded_shop",))
    snapshot = Snapshot(packages.namespaces(app, own), own, lambda name: False)
    assert snapshot.is_same()
    cost = found["guarded"] - found["bare"]
    print(f"app: {MODULES} modules, {MODULES * GLOBALS:,} globals, {MODULES * CONTAINERS:,} containers")
    print(f"bare request              {found['bare']:8.2f} us")
    print(f"under the guard           {found['guarded']:8.2f} us")
    print(f"one look                  {_each(snapshot.is_same, 20):8.2f} us, every {period} requests")
    print(f"an event that is not ours {_each(lambda: sys.audit('guarded.shop'), 1000) - irrelevant:8.2f} us more")
    print(f"Goal: at most {GOAL:.0f} us per request; {cost:.2f} us: {'met' if cost <= GOAL else 'NOT met'}")


if __name__ == "__main__":
    main()
