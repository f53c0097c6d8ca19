"""How do the balancers, the retries and their budget behave when servers are slow, dead, redeployed or overrun?

    python benchmarks/simulate.py                            all scenarios, small: under a minute
    python benchmarks/simulate.py --scenario storm           one; may be repeated
    python benchmarks/simulate.py --balancer least_request   only policies with it; may be repeated
    python benchmarks/simulate.py --scenario slow --balancer peak_ewma --endpoints 10000 --requests 1000000
    python benchmarks/simulate.py --requests 20000 --markdown --plots docs/images     what docs/simulation.md shows
    python benchmarks/simulate.py --json FILE                the figures, also over time, for other programs

A discrete-event simulation: the real pools, pickers, budgets and flow in virtual time. Servers are queues with four
workers. Each client process has a pool of its own. The same seed gives the same figures, on any machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

from simulation.churn import Churn, churn
from simulation.figures import Figures
from simulation.policies import BALANCERS
from simulation.scenarios import BY_NAME, Scenario
from simulation.stage import Size, Stage
from simulation.tables import Table, churn_table, markdown, table, text
from simulation.world import DRAWS

SILENCE = 5.0  # seconds
CHURN = "churn"
CHURN_TITLE = "Keys that move"


def run(scenario: Scenario, size: Size, balancers: Sequence[str]) -> list[Figures]:
    """The figures of all policies, or of those with these balancers."""
    found = []
    for policy in scenario.policies:
        if balancers and policy.balancer not in balancers:
            continue
        told = Progress(f"{scenario.name}: {policy.name}")
        stage = Stage(size, scenario.load, policy)
        scenario.plan(stage)
        found.append(stage.run(told.part))
        told.end()
    return found


class Progress:
    """Says on stderr how long a run took; one that takes long says every few seconds how far it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begin = self._said = time.perf_counter()

    def part(self, part: float) -> None:
        now = time.perf_counter()
        if now - self._said >= SILENCE:
            self._said = now
            self._say(f"{part:.0%} of the calls after {now - self._begin:.0f} s")

    def end(self) -> None:
        self._say(f"{time.perf_counter() - self._begin:.1f} s")

    def _say(self, text: str) -> None:
        print(f"{self._name} {text}", file=sys.stderr, flush=True)


def shown(name: str, size: Size, options: argparse.Namespace) -> tuple[list[dict[str, Any]], Iterator[str]]:
    """The figures of one scenario, plain, and the lines to print. Plots it if asked to."""
    kind = options.plot_format
    if name == CHURN:
        moved: list[Churn] = churn(size)
        if options.plots:
            from simulation.plots import plot_churn

            plot_churn(moved, options.plots, kind)
        return [one.plain() for one in moved], _printed(CHURN_TITLE, churn_table(moved), options)
    scenario = BY_NAME[name]
    found = run(scenario, size, options.balancer or ())
    if options.plots and found:
        from simulation.plots import plot

        plot(scenario, found, options.plots, kind)
    return [_plain(one) for one in found], _printed(scenario.title, table(found), options)


def _printed(title: str, of: Table, options: argparse.Namespace) -> Iterator[str]:
    return markdown(title, of) if options.markdown else text(title, of)


def _plain(figures: Figures) -> dict[str, Any]:
    """JSON knows no infinity."""
    return {name: "never" if value == inf else value for name, value in figures.plain().items()}


def main() -> None:
    options = _options()
    size = Size(
        endpoints=options.endpoints,
        requests=options.requests,
        clients=options.clients,
        seed=options.seed,
        service=options.service,
        closed=options.closed_loop,
    )
    names = options.scenario or ["all"]
    result = {}
    for name in [*BY_NAME, CHURN] if "all" in names else dict.fromkeys(names):
        result[name], lines = shown(name, size, options)
        print("\n".join(lines), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*BY_NAME, CHURN, "all"]
    parser.add_argument("--scenario", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument("--balancer", action="append", choices=BALANCERS, help="only with it; may be repeated")
    parser.add_argument("--endpoints", type=_positive, default=Size.endpoints, help="servers (default: 10)")
    parser.add_argument("--requests", type=_positive, default=Size.requests, help="calls per run (default: 8000)")
    parser.add_argument("--clients", type=_positive, default=Size.clients, help="processes that call (default: 4)")
    parser.add_argument("--seed", type=int, default=Size.seed, help="of all randomness (default: 1)")
    parser.add_argument("--service", choices=DRAWS, default=Size.service, help="distribution of service times")
    parser.add_argument(
        "--closed-loop", action="store_true", help="callers wait for their answer, and think, before they call again"
    )
    parser.add_argument("--markdown", action="store_true", help="print tables for the documentation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw them there (needs matplotlib)")
    parser.add_argument("--plot-format", choices=("svg", "png"), default="svg", help="of the plots")
    return parser.parse_args()


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return value


if __name__ == "__main__":
    main()
