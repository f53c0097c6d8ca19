"""What can be set about weights that change: load reports, both ways, and slow start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import METRIC
from ..scalars import Duration

WEIGHTED = ("weighted_round_robin", "least_request", "peak_ewma")  # balancers that go by weights which change


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReportOptions:
    """Weights from what the endpoints report of their load (gRFC A58 and A114)."""

    enabled: Annotated[bool, Meta(description="Weigh endpoints by their reports.")] = False
    ask: Annotated[
        bool,
        Meta(description="Ask for a report with each call, by the header endpoint-load-metrics-format: text."),
    ] = True
    metrics: Annotated[
        tuple[Annotated[str, METRIC], ...],
        Meta(
            description="Whose highest value counts as utilization: cpu_utilization, mem_utilization, "
            "application_utilization, utilization.NAME, named_metrics.NAME. If none is reported, "
            "application_utilization, else cpu_utilization counts."
        ),
    ] = ()
    error_penalty: Annotated[
        float, Meta(ge=0, description="How much errors weigh: utilization grows by errors per request times this.")
    ] = 1.0
    blackout: Annotated[
        Duration, Meta(description="For so long an endpoint's first reports are not used yet, nor after it came back.")
    ] = Duration(10)
    expiry: Annotated[
        Duration, Meta(gt=0, description="After that long without another, a report no longer counts.")
    ] = Duration(180)
    update_period: Annotated[Duration, Meta(ge=0.1, description="How often weights are computed, at most.")] = Duration(
        1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStartOptions:
    """Less weight at first for an endpoint that joins or comes back (Envoy's slow start)."""

    window: Annotated[Duration, Meta(description="Until it has its full weight; 0: at once.")] = Duration(0)
    aggression: Annotated[
        float, Meta(gt=0, description="1: the weight grows evenly; more: faster at first; less: slower.")
    ] = 1.0
    minimum_percent: Annotated[float, Meta(ge=0, le=100, description="Of its weight, that it has at least.")] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingOptions:
    """What this app's responses report of its own load to callers that weigh by it."""

    emit: Annotated[
        Literal["off", "on_request", "always"],
        Meta(
            description="on_request: to callers that send endpoint-load-metrics-format. Whoever can reach the app "
            "can ask how busy it is."
        ),
    ] = "off"
    format: Annotated[
        Literal["text", "json", "bin"], Meta(description="What it is written as, where the caller asks for none.")
    ] = "text"
    workers: Annotated[
        int | None,
        Meta(
            ge=1,
            description="Processes like this one that serve the endpoint: the rates that each reports are its "
            "own times this. Unset: WEB_CONCURRENCY, else 1.",
        ),
    ] = None
    bandwidth: Annotated[
        float | None,
        Meta(
            gt=0,
            description="Bytes per second that the host's network carries each way, for utilization.bandwidth. "
            "Unset: not reported.",
        ),
    ] = None
