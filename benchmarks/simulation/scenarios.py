"""What happens to the servers, and who is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from unsticky.routing.options import Balancer

from .policies import DEFAULTS, PEERS, WEIGHTED, Policy, bare
from .stage import Load, Stage
from .world import Mode, Server


@dataclass(frozen=True, slots=True)
class Curve:
    """What the plot of a scenario shows over time: a measure of Figures.course, for these policies."""

    measure: str
    label: str
    policies: tuple[str, ...]
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`plan` makes things happen on a stage."""

    name: str
    title: str
    plan: Callable[[Stage], None]
    policies: tuple[Policy, ...]
    curve: Curve
    load: Load = field(default_factory=Load)
    marks: dict[str, tuple[float, float]] = field(default_factory=dict)  # parts of the time to show in the plot


# What happens -------------------------------------------------------------


def slow_down(stage: Stage) -> None:
    """One in ten takes five times as long for a while."""
    for server in stage.some():
        stage.at(_SLOW[0], partial(_pace, server, 0.2))
        stage.at(_SLOW[1], partial(_pace, server, 1.0))


def _pace(server: Server, speed: float) -> None:
    server.speed = speed


def die(mode: Mode, share: float, begin: float, end: float, stage: Stage) -> None:
    for server in stage.some(share):
        stage.at(begin, partial(_stop, stage, server, mode))
        stage.at(end, partial(_start, stage, server))


def _stop(stage: Stage, server: Server, mode: Mode) -> None:
    server.stop(mode)
    stage.agenda.broken(server.endpoint.url)


def _start(stage: Stage, server: Server, warm_time: float = 0.0) -> None:
    server.start(stage.agenda.clock.now, warm_time)


def deploy(stage: Stage) -> None:
    """Each server in its turn leaves discovery, stops when that is known, and comes back cold.

    A tenth of them at a time. Each client polls discovery once a second. An abrupt one is killed first, and leaves
    discovery a second after.
    """
    batch = max(1, len(stage.ordered) // 10)
    turns = [stage.ordered[i : i + batch] for i in range(0, len(stage.ordered), batch)]
    for turn, servers in enumerate(turns):
        stage.at(0.05 + 0.85 * turn / len(turns), partial(_redeploy, stage, servers))


def _redeploy(stage: Stage, servers: list[Server]) -> None:
    part = 1 / stage.seconds
    now = (stage.agenda.clock.now - stage.begin) / stage.seconds
    leaving, gone = (now + part, now) if stage.policy.abrupt else (now, now + part + 30 * stage.mean * part)
    back = max(leaving, gone) + part
    stage.at(leaving, partial(_announce, stage, servers, listed=False))
    for server in servers:
        stage.at(gone, partial(_stop, stage, server, Mode.REFUSES))
        stage.at(back, partial(_start, stage, server, WARM_TIME))
    stage.at(back, partial(_announce, stage, servers, listed=True))


WARM_TIME = 4.0  # seconds


def _announce(stage: Stage, servers: list[Server], *, listed: bool) -> None:
    """Clients hear of it within a second."""
    stage.listed.update(dict.fromkeys((server.endpoint for server in servers), listed))
    now = stage.agenda.clock.now
    for client in stage.clients:
        known = [endpoint for endpoint, there in stage.listed.items() if there]
        stage.agenda.at(now + stage.random.random(), client.learn, known)


# Who is compared ------------------------------------------------------------

_SLOW = (0.2, 0.8)  # parts of the time
_DEAD = (0.2, 0.7)
_OUTAGE = (0.3, 0.5)
_SURGE = (0.25, 0.40)


def _surge(part: float) -> float:
    return 1.8 if _SURGE[0] <= part < _SURGE[1] else 1.0


def _surge_mean() -> float:
    return 1.0 + 0.8 * (_SURGE[1] - _SURGE[0])


_COMPARED: tuple[Balancer, ...] = ("round_robin", "random", "least_request", "peak_ewma")


def _alike(balancer: Balancer) -> Policy:
    return Policy(balancer, "all failures alike", overload_ejected=100)


_UNEJECTED = Policy("least_request", "no ejection", ejection=False)
_FEW_EJECTED = Policy("least_request", "10 % ejected at most", ejected=10)
_HEDGED = tuple(Policy(one, "hedged", hedge=0.95) for one in _COMPARED)
_PANIC = tuple(Policy(one, "panic below 50 %", panic=50) for one in ("round_robin", "maglev"))
_MAIN = ("least_request", "round_robin", "round_robin, bare", "random, no-budget retries")

SCENARIOS = (
    Scenario(
        name="slow",
        title="A slow endpoint",
        plan=slow_down,
        policies=(*DEFAULTS, *PEERS, *(Policy(one, "no ejection", ejection=False) for one in _COMPARED), *_HEDGED),
        curve=Curve("p99", "p99, ms", ("least_request", "peak_ewma", "round_robin", "random, bare"), log=True),
        marks={"one in ten is slow": _SLOW},
    ),
    Scenario(
        name="dead",
        title="A dead endpoint",
        plan=partial(die, Mode.REFUSES, 0.1, *_DEAD),
        marks={"one in ten is dead": _DEAD},
        policies=(*DEFAULTS, *PEERS),
        curve=Curve("success", "success, %", _MAIN),
    ),
    Scenario(
        name="hang",
        title="An endpoint that hangs",
        plan=partial(die, Mode.HANGS, 0.1, *_DEAD),
        marks={"one in ten hangs": _DEAD},
        policies=(*DEFAULTS, *PEERS, *_HEDGED),
        curve=Curve("p99", "p99, ms", _MAIN),
    ),
    Scenario(
        name="deploy",
        title="A rolling deploy",
        plan=deploy,
        policies=(
            *DEFAULTS,
            *(Policy(one, "slow start", slow_start=WARM_TIME) for one in WEIGHTED),
            Policy("least_request", "killed without notice", abrupt=True),
            replace(bare("round_robin"), note="bare, killed without notice", abrupt=True),
        ),
        curve=Curve(
            "p99", "p99, ms", ("least_request", "least_request, slow start", "peak_ewma, slow start", "round_robin")
        ),
    ),
    Scenario(
        name="outage",
        title="A total outage",
        plan=partial(die, Mode.REFUSES, 1.0, *_OUTAGE),
        policies=(*DEFAULTS, *PEERS, _UNEJECTED, _FEW_EJECTED, Policy("maglev", "no checks", health=False), *_PANIC),
        load=Load(trouble_ends=_OUTAGE[1]),
        marks={"all are dead": _OUTAGE},
        curve=Curve("success", "success, %", ("least_request", "least_request, no ejection", *_MAIN[2:])),
    ),
    Scenario(
        name="storm",
        title="A retry storm",
        plan=lambda stage: None,
        policies=(
            *DEFAULTS,
            *PEERS,
            _UNEJECTED,
            _FEW_EJECTED,
            _alike("round_robin"),
            _alike("least_request"),
            *_HEDGED,
        ),
        load=Load(
            utilization=0.7,
            backlog=100,
            shape=_surge,
            shape_mean=_surge_mean(),
            trouble_ends=_SURGE[1],
        ),
        marks={"1.8 times the calls": _SURGE},
        curve=Curve(
            "success",
            "success, %",
            (
                "least_request",
                "round_robin, all failures alike",
                "least_request, no budget",
                "random, no-budget retries",
            ),
        ),
    ),
    Scenario(
        name="capacity",
        title="Unequal servers",
        plan=lambda stage: None,
        policies=(
            *DEFAULTS,
            *(Policy(one, "load reports", reports=True) for one in WEIGHTED),
            *PEERS,
            *(_alike(one) for one in ("round_robin", "maglev")),
        ),
        load=Load(speeds=(1.0, 2.0, 4.0), utilization=0.7),
        curve=Curve(
            "p99",
            "p99, ms",
            ("least_request", "weighted_round_robin, load reports", "round_robin", "least_request, load reports"),
            log=True,
        ),
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
