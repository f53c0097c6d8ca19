"""What does a pool cost per call? Microseconds, and ratios to httpx, its extensions, and proxies on the same machine.

    python benchmarks/routing.py                    all parts, about three minutes
    python benchmarks/routing.py --quick            half a minute
    python benchmarks/routing.py --only layers      layers, tracing, calls, flat or sidecar; may be repeated
    python benchmarks/routing.py --markdown         the tables of docs/performance.md, with the goals
    python benchmarks/routing.py --json FILE        the figures, for other programs

layers: what is added over a transport that answers at once. tracing: what spans add to that. calls: 64 calls at a time
over real connections to three endpoints. flat: how that grows with calls and endpoints. sidecar: one call after the
other, direct, and through haproxy and nginx where they are in the PATH.

Peers run in the same rounds. Absolute times are those of this machine; only ratios within one run say something.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from routing_costs import layers, sidecars, tracing, wires
from routing_costs.goals import judged
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


def main() -> None:
    options = _options()
    plan = SMOKE if options.smoke else QUICK if options.quick else FULL
    figures: Figures = {}
    for part in options.only or PARTS:
        PARTS[part](plan.computing if part in ("layers", "tracing") else plan.waiting, figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print("\n".join(_markdown(figures) if options.markdown else _text(figures)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="half a minute")
    parser.add_argument("--smoke", action="store_true", help="does it run at all? The figures are worth nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", action="store_true", help="print tables for the documentation")
    return parser.parse_args()


def _tables(figures: Figures) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, heads, rows."""
    if found := figures.get("layers"):
        yield "Over a transport that answers at once", ["", "us CPU per call"], _rows(found, added=_ADDED)
    if found := figures.get("tracing"):
        yield "What spans add", ["", "us CPU per call"], _rows(found, added=found)
    if found := figures.get("calls"):
        yield from _calls_table(found, figures)
    if found := figures.get("flat"):
        yield f"As calls and endpoints grow ({wires.CONCURRENT} calls, 3 endpoints)", _GROWTH, _growth_rows(found)
    if found := figures.get("sidecar"):
        yield "One call after the other", ["", "p50, us"], _rows(found)
    rows = [
        [
            goal.text,
            f"<= {goal.most:g}{goal.unit}",
            f"{value:.3g}{goal.unit}",
            "met" if value <= goal.most else "not met",
        ]
        for goal, value in judged(figures)
    ]
    if rows:
        yield "Goals", ["", "goal", "measured", ""], rows


_ADDED = (layers.POOL, layers.NEW_URL, layers.SYNC_POOL, layers.RETRIES, layers.TENACITY)
_GROWTH = ["", "us CPU per call", "beside the first"]


def _rows(found: dict[str, float], added: object = ()) -> list[list[str]]:
    return [[name, f"{value:+.2f}" if name in added else f"{value:.2f}"] for name, value in found.items()]  # type: ignore[operator]


def _calls_table(found: dict[str, float], figures: Figures) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    wall, connects, plain = figures["calls, wall"], figures["connects"], found[wires.PLAIN]
    rows = [
        [name, f"{cpu:.0f}", f"{cpu / plain:.2f}x", f"{wall[name] / wall[wires.PLAIN]:.2f}x", f"{connects[name]:.3f}"]
        for name, cpu in found.items()
    ]
    title = f"{wires.CONCURRENT} calls at a time, three endpoints"
    yield title, ["", "us CPU per call", "CPU", "time", "connects per call"], rows


def _growth_rows(found: dict[str, float]) -> list[list[str]]:
    rows, first = [], {}
    for name, value in found.items():
        kind = name.split(",")[0] + name.split()[-1].rstrip("s")
        rows.append([name, f"{value:.0f}", f"{value / first.setdefault(kind, value):.2f}x"])
    return rows


def _text(figures: Figures) -> Iterator[str]:
    for title, heads, rows in _tables(figures):
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        yield f"\n{title}"
        for row in (heads, *rows):
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _markdown(figures: Figures) -> Iterator[str]:
    for title, heads, rows in _tables(figures):
        yield f"\n{title}\n"
        for row in (heads, ["---"] * len(heads), *rows):
            yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
