"""What can be set about who is fit: health checks, outlier detection, and limits. See options.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import CHECK_HEADER, HEADER_NAME, HEADER_VALUE, HOST_NAME, METHOD, PATH
from ..scalars import Duration, Secret

Status = Annotated[int, Meta(ge=100, le=599)]
FinalStatus = Annotated[int, Meta(ge=200, le=599)]  # 1xx come before it


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthOptions:
    """Active health checks: ask for `path` of each endpoint, or connect to it. Without path and with HTTP: none."""

    type: Annotated[
        Literal["http", "tcp"],
        Meta(description="http: ask for `path`. tcp: connecting is enough, which a process that hangs allows too."),
    ] = "http"
    path: Annotated[str | None, PATH, Meta(description="What is asked for. Unset: no HTTP checks.")] = None
    method: Annotated[str, METHOD, Meta(description="How it is asked for.")] = "GET"
    host: Annotated[
        str | None, HOST_NAME, Meta(description="The Host header, and the name for TLS. Unset: the endpoint's own.")
    ] = None
    headers: Annotated[
        Mapping[Annotated[str, CHECK_HEADER], Annotated[Secret, HEADER_VALUE]],
        Meta(description="Headers that are sent along."),
    ] = default(default_factory=dict)
    port: Annotated[
        int | None, Meta(ge=1, le=65535, description="Where checks are answered. Unset: the endpoint's port.")
    ] = None
    interval: Annotated[Duration, Meta(ge=0.01, description="Between two checks of one endpoint.")] = Duration(5)
    unhealthy_interval: Annotated[
        Duration | None, Meta(ge=0.01, description="The same while it is unhealthy. Unset: `interval`.")
    ] = None
    no_traffic_interval: Annotated[
        Duration, Meta(gt=0, description="The same while the pool has had no call yet, if that is longer.")
    ] = Duration(60)
    jitter: Annotated[
        float, Meta(ge=0, le=1, description="Of an interval: how much longer or shorter it is, at random.")
    ] = 0.1
    timeout: Annotated[Duration, Meta(gt=0, description="Of one check.")] = Duration(1)
    healthy_threshold: Annotated[
        int, Meta(ge=1, description="Good answers in a row; right after the start one is enough.")
    ] = 2
    unhealthy_threshold: Annotated[
        int, Meta(ge=1, description="Bad answers in a row. A status that is not expected is enough by itself.")
    ] = 2
    statuses: Annotated[frozenset[Status], Meta(min_length=1, description="Statuses of a good answer.")] = frozenset(
        {200, 204}
    )
    retriable_statuses: Annotated[
        frozenset[Status], Meta(description="Other statuses that only count towards `unhealthy_threshold`.")
    ] = frozenset()
    body: Annotated[
        str | None, Meta(min_length=1, description="A text that a good answer has in its first 64 KiB.")
    ] = None
    degraded_header: Annotated[
        str,
        HEADER_NAME,
        Meta(description="A good answer with this header: used only where healthy ones are not enough."),
    ] = "x-envoy-degraded"
    verify: Annotated[bool, Meta(description="Whether certificates are verified.")] = True
    ca_file: Annotated[
        str | None, Meta(min_length=1, description="Authorities to trust, a PEM file. Unset: as the HTTP client does.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionOptions:
    """Outlier detection by what real calls observe (Envoy outlier detection, gRFC A50)."""

    enabled: Annotated[bool, Meta(description="False: endpoints are never ejected.")] = True
    consecutive_failures: Annotated[
        int, Meta(ge=0, description="In a row, of any kind, that eject an endpoint; 0: not by these.")
    ] = 5
    consecutive_gateway_failures: Annotated[
        int, Meta(ge=0, description="The same of 502, 503, 504, no connection and no answer in time; 0: not by these.")
    ] = 0
    split_local_failures: Annotated[
        bool,
        Meta(description="Count no connection and no answer in time apart from what the endpoint answered."),
    ] = False
    consecutive_local_failures: Annotated[
        int, Meta(ge=0, description="In a row, with `split_local_failures`; 0: not by these.")
    ] = 5
    interval: Annotated[
        Duration, Meta(gt=0, description="Between two looks at success rates and failure percentages.")
    ] = Duration(10)
    success_rate_deviations: Annotated[
        float,
        Meta(
            ge=0,
            description="Ejected are endpoints whose success rate is below the mean by more than this many standard "
            "deviations; 0: not by these.",
        ),
    ] = 1.9
    success_rate_tolerated: Annotated[
        float,
        Meta(ge=0, le=100, description="Percent that is good enough, whatever the others have; 100: Envoy's rule."),
    ] = 90
    success_rate_endpoints: Annotated[int, Meta(ge=1, description="Only if that many endpoints have enough calls.")] = 5
    success_rate_requests: Annotated[int, Meta(ge=1, description="Calls in an interval that are enough.")] = 100
    failure_percentage: Annotated[
        float, Meta(ge=0, le=100, description="Ejected are endpoints that fail more; 100: not by these.")
    ] = 85
    failure_percentage_endpoints: Annotated[
        int, Meta(ge=1, description="Only if that many endpoints have enough calls.")
    ] = 5
    failure_percentage_requests: Annotated[int, Meta(ge=1, description="Calls in an interval that are enough.")] = 50
    base_time: Annotated[
        Duration, Meta(gt=0, description="How long; multiplied by how often the endpoint was ejected lately.")
    ] = Duration(30)
    maximum_time: Annotated[Duration, Meta(gt=0, description="The longest ejection.")] = Duration(300)
    maximum_jitter: Annotated[
        Duration, Meta(description="Up to this much longer, at random: so that not all return at once.")
    ] = Duration(0)
    maximum_percent: Annotated[
        int,
        Meta(ge=0, le=100, description="Of a pool's endpoints, how many may be ejected at once (rounded up)."),
    ] = 50
    maximum_overload_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="The same for failures that an overload causes, too: 503, 504 and no answer in time. "
            "And if more of the other endpoints' calls fail so meanwhile, nobody is ejected for these.",
        ),
    ] = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    """How many calls of this process may be in flight at once. A call that finds no place fails at once."""

    maximum_in_flight: Annotated[
        int | None, Meta(ge=1, description="Calls of the pool, until their bodies are closed. Unset: no limit.")
    ] = None
    maximum_in_flight_per_endpoint: Annotated[
        int | None, Meta(ge=1, description="The same for each endpoint; a full one is passed over. Unset: no limit.")
    ] = None
