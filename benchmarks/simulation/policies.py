"""Ways to call: the library's balancers as they are by default, and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from unsticky.routing.hedge_options import HedgeOptions
from unsticky.routing.options import (
    Balancer,
    EjectionOptions,
    HashOptions,
    HealthOptions,
    PoolOptions,
    RetryOptions,
)
from unsticky.routing.weight_options import LoadReportOptions, SlowStartOptions
from unsticky.scalars import Duration

PATIENCE = 20  # means that an attempt may take
BALANCERS: tuple[Balancer, ...] = get_args(Balancer)
WEIGHTED: tuple[Balancer, ...] = ("weighted_round_robin", "least_request", "peak_ewma")


@dataclass(frozen=True, slots=True)
class Policy:
    """One row of a table. `note` is what differs from the defaults."""

    balancer: Balancer
    note: str = ""
    retries: bool = True
    budget: bool = True
    ejection: bool = True
    ejected: int = EjectionOptions().maximum_percent
    overload_ejected: int = EjectionOptions().maximum_overload_percent
    panic: int | None = None  # percent
    hedge: float | None = None  # a quantile
    health: bool = True
    reports: bool = False
    slow_start: float = 0.0  # seconds
    abrupt: bool = False  # servers are killed without notice
    table_size: int = HashOptions().table_size  # of Maglev

    @property
    def name(self) -> str:
        return f"{self.balancer}, {self.note}" if self.note else self.balancer

    def options(self, mean: float) -> PoolOptions:
        """`mean`: seconds that a request takes."""
        return PoolOptions(
            endpoints=(),
            balancer=self.balancer,
            timeout=Duration(3 * PATIENCE * mean),
            retry=self._retry(mean),
            hedge=HedgeOptions(quantile=self.hedge),
            hash=HashOptions(table_size=self.table_size),
            ejection=EjectionOptions(
                enabled=self.ejection,
                maximum_percent=self.ejected,
                maximum_overload_percent=self.overload_ejected,
            ),
            panic_threshold=self.panic,
            health=HealthOptions(path="/healthz" if self.health else None),
            load_report=LoadReportOptions(enabled=self.reports, blackout=Duration(2)),
            slow_start=SlowStartOptions(window=Duration(self.slow_start)),
        )

    def _retry(self, mean: float) -> RetryOptions:
        retry = RetryOptions(attempts=3 if self.retries else 1, attempt_timeout=Duration(PATIENCE * mean))
        return retry if self.budget else replace(retry, budget_ratio=1000.0, budget_per_second=1_000_000.0)


def bare(balancer: Balancer) -> Policy:
    """What a list of addresses and a loop over it do: no retries, no ejection, no checks."""
    return Policy(balancer, "bare", retries=False, ejection=False, health=False)


def naive(balancer: Balancer) -> Policy:
    """The same with two retries that nothing limits."""
    return Policy(balancer, "no-budget retries", budget=False, ejection=False, health=False)


DEFAULTS = tuple(Policy(balancer) for balancer in BALANCERS)
UNBUDGETED = Policy("least_request", "no budget", budget=False)
PEERS = (bare("random"), bare("round_robin"), naive("random"), naive("round_robin"), UNBUDGETED)
