"""The simulation says what its page claims: the real pools and flow in virtual time, from fixed seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from math import factorial
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # last: what lies there shall hide nothing

from simulation.churn import churn  # noqa: E402
from simulation.figures import Figures  # noqa: E402
from simulation.policies import Policy, naive  # noqa: E402
from simulation.scenarios import BY_NAME, SCENARIOS, Scenario  # noqa: E402
from simulation.stage import WORKERS, Load, Size, Stage  # noqa: E402

SMALL = Size(requests=4_000)


def run(scenario: Scenario, policy: Policy, size: Size = SMALL) -> Figures:
    stage = Stage(size, scenario.load, policy)
    scenario.plan(stage)
    return stage.run()


def policy_of(scenario: Scenario, name: str) -> Policy:
    return next(policy for policy in scenario.policies if policy.name == name)


def found(scenario: str, name: str, size: Size = SMALL) -> Figures:
    return run(BY_NAME[scenario], policy_of(BY_NAME[scenario], name), size)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_each_call_ends_once_and_gives_back_its_place(scenario: Scenario) -> None:
    """Whatever happens, under every policy."""
    for policy in scenario.policies:
        figures = run(scenario, replace(policy, table_size=251), Size(requests=1_000))
        assert figures.calls == 1_000
        assert (figures.lost, figures.held) == (0, 0), policy.name


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_the_budget_bounds_what_is_sent(scenario: Scenario) -> None:
    """1.2 attempts per call, 10 per second and process, and ten seconds' worth of those saved up."""
    size = Size(requests=10_000, clients=1)
    for name in ("round_robin", "least_request"):
        figures = found(scenario.name, name, size)
        allowed = size.clients * (10 * figures.seconds + 100) / figures.calls
        assert figures.amplification <= 1.2 + allowed


def test_without_a_budget_more_is_sent() -> None:
    """So the bound above says something."""
    size = Size(requests=10_000, clients=1)
    figures = run(BY_NAME["outage"], naive("random"), size)
    assert figures.amplification > 1.39
    assert found("outage", "random", size).amplification < 1.2


def test_the_same_seed_gives_the_same_figures() -> None:
    """And another one others."""
    first = found("slow", "least_request")
    assert found("slow", "least_request") == first
    assert found("slow", "least_request", Size(requests=4_000, seed=2)) != first


def test_few_calls_go_to_a_slow_endpoint() -> None:
    """Without ejection, so that it is the balancers alone."""
    size = Size(requests=10_000)
    p99 = {
        name: found("slow", f"{name}, no ejection", size).p99
        for name in ("random", "round_robin", "least_request", "peak_ewma")
    }
    assert p99["peak_ewma"] < p99["least_request"] < min(p99["random"], p99["round_robin"])


@pytest.mark.parametrize("scenario", ["dead", "hang"])
def test_one_dead_endpoint_costs_no_call(scenario: str) -> None:
    """Bare callers lose about one in ten of them while it lasts."""
    for name in ("least_request", "round_robin", "peak_ewma", "random"):
        assert found(scenario, name).success == 1.0
    assert found(scenario, "round_robin, bare").success < 0.97


def test_a_rolling_deploy_costs_no_call() -> None:
    """Nor when servers are killed without notice, where bare callers lose some."""
    size = Size(requests=10_000)
    for name in ("least_request", "peak_ewma", "least_request, slow start", "least_request, killed without notice"):
        assert found("deploy", name, size).success == 1.0
    assert found("deploy", "round_robin, bare, killed without notice", size).success < 0.97


@pytest.mark.parametrize("seed", [1, 2])
def test_a_pool_recovers_from_a_total_outage(seed: int) -> None:
    """It is not locked out by what it learned meanwhile."""
    figures = found("outage", "least_request", Size(requests=20_000, seed=seed))
    assert figures.recovery is not None
    assert figures.recovery < 1


@pytest.mark.parametrize("seed", [1, 2])
def test_an_overrun_pool_recovers(seed: int) -> None:
    """As it would without ejection, where it does not if half of it may be ejected for answers that are late."""
    size = Size(requests=20_000, seed=seed)
    for name in ("least_request", "round_robin"):
        figures = found("storm", name, size)
        assert figures.recovery is not None
        assert figures.recovery < 10
        assert figures.success > 0.85
    assert found("storm", "round_robin, all failures alike", size).success < 0.85


def test_hedges_make_a_slow_endpoint_quick() -> None:
    """And stay in the budget."""
    hedged = found("slow", "least_request, hedged", Size(requests=10_000))
    assert hedged.p99 < 0.8 * found("slow", "least_request", Size(requests=10_000)).p99
    assert hedged.amplification < 1.2
    assert found("slow", "least_request, hedged").held == 0


def test_load_reports_even_out_unequal_servers() -> None:
    """Weights from reports, against turns for all alike."""
    assert found("capacity", "weighted_round_robin, load reports").p99 < found("capacity", "round_robin").p99
    assert found("capacity", "least_request, load reports").p99 < found("capacity", "least_request").p99


@pytest.mark.parametrize("closed", [False, True])
def test_no_call_is_made_beyond_the_number(closed: bool) -> None:
    """In open and closed loops."""
    size = Size(requests=2_000, closed=closed, service="lognormal")
    figures = found("slow", "least_request", size)
    assert (figures.calls, figures.lost) == (2_000, 0)


def test_keys_that_move() -> None:
    """About one in n, where a plain modulo moves nearly all; an ejection moves only keys of the ejected one."""
    moved = {one.policy: one for one in churn(Size(endpoints=20))}
    for name in ("ring_hash", "maglev", "rendezvous"):
        one = moved[name]
        assert one.ejected == one.least
        assert one.least <= one.left < 2.5 * one.least
        assert one.joined < 3 * one.least
    assert moved["rendezvous"].left == moved["rendezvous"].least
    assert moved["key modulo count"].left > 90


def test_waits_are_those_of_queueing_theory() -> None:
    """One server with exponential times is M/M/c: the mean time is 1/mu * (1 + C(c, a) / (c - a)) (Erlang C)."""
    load = Load(utilization=0.7, backlog=100_000, seconds=1000.0)
    stage = Stage(Size(endpoints=1, clients=1, requests=60_000), load, Policy("random"))
    figures = stage.run()
    offered = 0.7 * WORKERS
    top = offered**WORKERS / factorial(WORKERS) / (1 - 0.7)
    waits = top / (sum(offered**k / factorial(k) for k in range(WORKERS)) + top)
    expected = stage.mean * (1 + waits / (WORKERS - offered))
    times = [time for bucket in stage.tally.times for time in bucket]
    assert sum(times) / len(times) == pytest.approx(expected, rel=0.05)
    assert figures.success == 1.0


# The command line ---------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(BENCHMARKS / "simulate.py")
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=100)


def test_figures_tables_and_plots(tmp_path: Path) -> None:
    """All three of one run, of a scenario in time and of the one without."""
    figures = tmp_path / "figures.json"
    done = command(
        "--scenario", "slow", "--scenario", "churn", "--balancer", "least_request", "--requests", "1000",
        "--markdown", "--json", str(figures), "--plots", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, list[dict[str, Any]]] = json.loads(figures.read_text())
    assert {one["policy"].partition(",")[0] for one in result["slow"]} == {"least_request"}
    assert "| least_request |" in done.stdout
    assert "| key modulo count |" in done.stdout
    for name in ("slow", "churn"):
        assert (tmp_path / f"simulation-{name}.svg").read_text().startswith("<?xml")


def test_an_unknown_scenario_is_refused() -> None:
    """The command line names those that there are."""
    done = command("--scenario", "none")
    assert done.returncode == 2
    assert "storm" in done.stderr


def test_the_page_shows_what_the_command_prints() -> None:
    """The cheapest table of docs/simulation.md is made again, by the defaults that its command has."""
    page = (BENCHMARKS.parent / "docs" / "simulation.md").read_text("utf-8")
    done = command("--scenario", "churn", "--markdown")
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 8
    assert "\n".join(rows) in page
