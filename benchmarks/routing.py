"""What does a pool cost per call? Microseconds, and ratios to httpx, its extensions, and proxies on the same machine.

    python benchmarks/routing.py                    all parts, about three minutes
    python benchmarks/routing.py --quick            half a minute
    python benchmarks/routing.py --only layers      layers, tracing, calls, flat or sidecar; may be repeated
    python benchmarks/routing.py --markdown         the tables of docs/performance.md, with the goals
    python benchmarks/routing.py --json FILE        the figures, for other programs

layers: what is added over a transport that answers at once. tracing: what spans add to that. calls: 64 calls at a time
over real connections to three endpoints. flat: how that grows with calls and endpoints. sidecar: one call after the
other, direct, and through haproxy and nginx where they are in the PATH.

Each part's table is printed, and its figures written, as it ends: a part that fails takes nothing with it.

Peers run in the same rounds. Absolute times are those of this machine; only ratios within one run say something.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from reporting import command
from reporting.goals import goals_table
from reporting.tables import Table
from routing_costs import layers, sidecars, tracing, wires
from routing_costs.goals import GOALS
from routing_costs.measure import Effort, Figures

PARTS: dict[str, Callable[[Effort, Figures], None]] = {
    "layers": layers.run,
    "tracing": tracing.run,
    "calls": wires.run,
    "flat": wires.run_flat,
    "sidecar": sidecars.run,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the parts take: those that only compute have many short turns, of which one is left alone."""

    computing: Effort
    waiting: Effort


FULL = Plan(Effort(150, 0.01), Effort(25, 0.1))
QUICK = Plan(Effort(30, 0.005), Effort(7, 0.05))
SMOKE = Plan(Effort(1, 0.001), Effort(1, 0.005))


def main() -> int:
    options = command.options(__doc__ or "", PARTS, "half a minute")
    plan = SMOKE if options.smoke else QUICK if options.quick else FULL
    figures: Figures = {}
    parts = {part: partial(_measured, part, plan, figures) for part in PARTS}
    return command.run(options, parts, partial(goals_table, GOALS, figures), lambda: figures)


def _measured(part: str, plan: Plan, figures: Figures) -> Iterator[Table]:
    PARTS[part](plan.computing if part in ("layers", "tracing") else plan.waiting, figures)
    if part not in figures:
        return iter(())  # what it needs is not there
    return TABLES[part](figures)


_ADDED = (layers.POOL, layers.NEW_URL, layers.SYNC_POOL, layers.RETRIES, layers.TENACITY)


def _layers(figures: Figures) -> Iterator[Table]:
    yield Table("Over a transport that answers at once", ["", "us CPU per call"], _rows(figures["layers"], _ADDED))
    yield _functions("The same in functions that a call calls", figures["layers, functions"])


def _tracing(figures: Figures) -> Iterator[Table]:
    found = figures["tracing"]
    yield Table("What spans add", ["", "us CPU per call"], _rows(found, added=found))


def _calls(figures: Figures) -> Iterator[Table]:
    found, wall, connects = figures["calls"], figures["calls, wall"], figures["connects"]
    plain = found[wires.PLAIN]
    rows = [
        [name, f"{cpu:.0f}", f"{cpu / plain:.2f}x", f"{wall[name] / wall[wires.PLAIN]:.2f}x", f"{connects[name]:.3f}"]
        for name, cpu in found.items()
    ]
    title = f"{wires.CONCURRENT} calls at a time, three endpoints"
    yield Table(title, ["", "us CPU per call", "CPU", "time", "connects per call"], rows)


def _flat(figures: Figures) -> Iterator[Table]:
    title = f"As calls and endpoints grow ({wires.CONCURRENT} calls, 3 endpoints)"
    yield Table(title, ["", "us CPU per call", "beside the first"], _growth_rows(figures["flat"]))
    yield _functions("Functions that a call calls, as endpoints grow", figures["flat, functions"])


def _sidecar(figures: Figures) -> Iterator[Table]:
    yield Table("One call after the other", ["", "p50, us"], _rows(figures["sidecar"]))


def _functions(title: str, found: dict[str, float]) -> Table:
    return Table(title, ["", "Python's and C's"], [[name, f"{count:.0f}"] for name, count in found.items()])


def _rows(found: dict[str, float], added: object = ()) -> list[list[str]]:
    return [[name, f"{value:+.2f}" if name in added else f"{value:.2f}"] for name, value in found.items()]  # type: ignore[operator]


def _growth_rows(found: dict[str, float]) -> list[list[str]]:
    rows, first = [], {}
    for name, value in found.items():
        kind = name.split(",")[0] + name.split()[-1].rstrip("s")
        rows.append([name, f"{value:.0f}", f"{value / first.setdefault(kind, value):.2f}x"])
    return rows


TABLES = {"layers": _layers, "tracing": _tracing, "calls": _calls, "flat": _flat, "sidecar": _sidecar}

if __name__ == "__main__":
    sys.exit(main())
