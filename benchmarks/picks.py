"""What does a pick cost? Nanoseconds per pick of each balancer over 3, 100 and 10,000 endpoints, and building tables.

    python benchmarks/picks.py               half a minute
    python benchmarks/picks.py --quick       a few seconds
    python benchmarks/picks.py --markdown    the tables of docs/routing.md, with the goals
    python benchmarks/picks.py --json FILE   the figures, for other programs

The real pickers, in interleaved rounds with naive ones: those look at all endpoints for each call. Endpoints have
different weights, calls in flight and latencies. The best round counts, as whatever else runs can only add to it.
Absolute times are those of this machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, get_args

from unsticky.routing.call import Endpoint
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.hashed import Build, HashPickers, building
from unsticky.routing.options import HASHING, Balancer, HashOptions, PoolOptions
from unsticky.routing.peak_ewma import cost
from unsticky.routing.picker import picker_for

SIZES = (3, 100, 10_000)
GOAL = 1000.0  # nanoseconds, at 10,000 endpoints
BALANCERS = (*get_args(Balancer), "maglev, bounded", "ring_hash, bounded")
NAIVE = ("least loaded of all", "lowest cost of all", "by weight, of all")
Pick = Callable[[int], object]  # of a call with this key
Group = tuple[EndpointState, ...]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds, and seconds per slice (one picker over one group)."""

    rounds: int
    slice: float


@dataclass(slots=True)
class Figures:
    """What was measured."""

    picks: dict[tuple[str, int], float] = field(default_factory=dict)  # nanoseconds per pick
    builds: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)  # milliseconds: all, longest slice


class Load:
    """Calls in flight in the pool."""

    def __init__(self, states: Group) -> None:
        self.in_flight = sum(state.in_flight for state in states)


def group_of(size: int) -> Group:
    """Endpoints with weights from 1 to 5, and a past."""
    random = Random(size)
    return tuple(
        EndpointState(
            Endpoint(f"http://10.0.{i >> 8}.{i & 255}:80", f"10.0.{i >> 8}.{i & 255}:80", i % 5 + 1),
            in_flight=random.randrange(4),
            rtt=random.uniform(0.005, 0.05),
        )
        for i in range(size)
    )


def options_of(balancer: str) -> PoolOptions:
    name, _, bounded = balancer.partition(", ")
    # 1,000 percent: that the bound is looked at counts here, not how many endpoints are full.
    return PoolOptions(endpoints=(), balancer=name, hash=HashOptions(balance_factor=1000 if bounded else 0))  # type: ignore[arg-type]


def real(balancer: str, group: Group) -> Pick:
    """The library's own."""
    options = options_of(balancer)
    if options.balancer in HASHING:
        pickers = HashPickers(options, Random(1), Load(group))
        pickers.replace({0: group}, at_once=True)
        pick = pickers.of(0).pick
    else:
        pick = picker_for(options, Random(1)).pick
    return lambda key: pick(group, key, (), 1.0)


def naive(name: str, group: Group) -> Pick:
    """What looks at everybody."""
    random, weights = Random(1), [state.weight for state in group]
    match name:
        case "least loaded of all":
            return lambda key: min(group, key=lambda state: state.in_flight / state.weight)
        case "lowest cost of all":
            return lambda key: min(group, key=lambda state: cost(state.rtt, state.in_flight))
        case _:
            return lambda key: random.choices(group, weights)[0]


def measure_picks(effort: Effort, figures: Figures) -> None:
    keys = [Random(n).getrandbits(64) for n in range(512)]
    for size in SIZES:
        group = group_of(size)
        works = {name: real(name, group) for name in BALANCERS} | {name: naive(name, group) for name in NAIVE}
        counts = {name: _count(pick, keys, effort.slice) for name, pick in works.items()}
        rounds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(effort.rounds):
            for name, pick in works.items():
                rounds[name].append(_seconds(pick, keys, counts[name]) / (counts[name] * len(keys)))
        figures.picks |= {(name, size): min(times) * 1e9 for name, times in rounds.items()}


def _count(pick: Pick, keys: list[int], seconds: float) -> int:
    """How often to go through the keys in a slice. A group's first pick is not measured: it prepares the others."""
    pick(keys[0])
    return max(1, int(seconds / max(_seconds(pick, keys[:8], 1) * len(keys) / 8, 1e-9)))


def _seconds(pick: Pick, keys: list[int], times: int) -> float:
    begin = perf_counter()
    for _ in range(times):
        for key in keys:
            pick(key)
    return perf_counter() - begin


def measure_builds(figures: Figures) -> None:
    for balancer in ("ring_hash", "maglev"):
        for size in SIZES:
            slices = list(_slices(balancer, group_of(size)))
            figures.builds[balancer, size] = sum(slices) * 1e3, max(slices) * 1e3


def _slices(balancer: str, group: Group) -> Iterator[float]:
    """Seconds of each slice of building a table."""
    steps = building(options_of(balancer), group)
    while True:
        begin = perf_counter()
        ended = next(steps, Build) is Build
        yield perf_counter() - begin
        if ended:
            return


def text(figures: Figures) -> Iterator[str]:
    yield "ns per pick" + "".join(f"{size:>12,}" for size in SIZES)
    for name in (*BALANCERS, *NAIVE):
        yield f"{name:<22}" + "".join(f"{figures.picks[name, size]:>11,.0f} " for size in SIZES)
    yield "ms to build a table (longest slice)"
    for (name, size), (whole, longest) in figures.builds.items():
        yield f"{name:<12}{size:>10,} endpoints {whole:>9.1f} ({longest:.2f})"
    yield from _goals(figures)


def markdown(figures: Figures) -> Iterator[str]:
    yield "| ns per pick, endpoints | " + " | ".join(f"{size:,}" for size in SIZES) + " |"
    yield "|---|" + "---|" * len(SIZES)
    for name in (*BALANCERS, *NAIVE):
        title = f"naive: {name}" if name in NAIVE else f"`{name}`" if ", " not in name else name
        yield f"| {title} | " + " | ".join(f"{figures.picks[name, size]:,.0f}" for size in SIZES) + " |"
    yield ""
    yield "| building, ms (longest slice) | " + " | ".join(f"{size:,}" for size in SIZES) + " |"
    yield "|---|" + "---|" * len(SIZES)
    for name in ("ring_hash", "maglev"):
        cells = (f"{figures.builds[name, size][0]:.1f} ({figures.builds[name, size][1]:.1f})" for size in SIZES)
        yield f"| `{name}` | " + " | ".join(cells) + " |"
    yield ""
    yield from _goals(figures)


def _goals(figures: Figures) -> Iterator[str]:
    """Rendezvous looks at everybody by its nature, and is for small pools."""
    slow = {name: figures.picks[name, SIZES[-1]] for name in BALANCERS if name != "rendezvous"}
    worst = max(slow, key=slow.__getitem__)
    met = "met" if slow[worst] <= GOAL else "not met"
    goal = f"Goal, at most {GOAL:,.0f} ns at {SIZES[-1]:,} endpoints but for rendezvous"
    yield f"{goal}: {met} ({worst} {slow[worst]:,.0f})"


def _plain(figures: Figures) -> dict[str, Any]:
    return {
        "picks": {f"{name}/{size}": value for (name, size), value in figures.picks.items()},
        "builds": {f"{name}/{size}": value for (name, size), value in figures.builds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--smoke", action="store_true", help="does it run at all? The figures are worth nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", action="store_true", help="print tables for the documentation")
    options = parser.parse_args()
    effort = Effort(1, 0.0) if options.smoke else Effort(5, 0.02) if options.quick else Effort(15, 0.05)
    figures = Figures()
    measure_picks(effort, figures)
    measure_builds(figures)
    if options.json:
        options.json.write_text(json.dumps(_plain(figures), indent=1) + "\n")
    print("\n".join(markdown(figures) if options.markdown else text(figures)))


if __name__ == "__main__":
    main()
