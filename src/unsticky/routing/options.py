"""What can be set about a pool of endpoints. Frozen values; `unsticky.settings` composes them."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as default
from typing import Literal

from ..scalars import Duration

Balancer = Literal["round_robin", "weighted_round_robin", "random", "least_request", "ring_hash"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """One interchangeable server: `url` is an origin, such as http://10.0.0.1:8000."""

    url: str
    weight: int = 1  # 1 to 65535, for weighted_round_robin, least_request and ring_hash
    priority: int = 0  # 0 is used first; the next level only when all of this one are gone
    locality: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOptions:
    """What ring_hash hashes.

    Of the outbound request: path, query:NAME, header:NAME. Of the inbound one: cookie:NAME, inbound-header:NAME,
    session. Several are combined in their order; where none is present the call goes to a random endpoint.
    """

    on: tuple[str, ...] = ()
    minimum_ring_size: int = 1024
    maximum_ring_size: int = 8_388_608


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """When a failed attempt is tried again, on another endpoint."""

    attempts: int = 3  # in all, the first included; 1 turns retries off
    attempt_timeout: Duration | None = None  # of one attempt, up to its response headers
    # Envoy's gateway-error set, and 429, which says itself that later is better.
    statuses: frozenset[int] = frozenset({429, 502, 503, 504})
    methods: frozenset[str] = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110 9.2.2
    backoff: Duration = Duration("25ms")  # full jitter over [0, (2^n - 1) * backoff], as Envoy's
    maximum_backoff: Duration = Duration("250ms")
    # Retry-After is obeyed up to this; a longer one ends the call with the response as it is.
    maximum_retry_after: Duration = Duration(5)
    budget_ratio: float = 0.2  # retries per call, over the last 10 s (Finagle's RetryBudget)
    budget_per_second: float = 10.0  # retries that are allowed however few calls there are


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthOptions:
    """Active health checks: GET `path` of each endpoint. Unset path: none."""

    path: str | None = None
    interval: Duration = Duration(5)
    timeout: Duration = Duration(1)
    healthy_threshold: int = 2  # good answers in a row; right after the start one is enough
    unhealthy_threshold: int = 2  # bad answers in a row
    statuses: frozenset[int] = frozenset({200, 204})


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionOptions:
    """Outlier detection by consecutive failures of real calls."""

    consecutive_failures: int = 5  # 0 turns ejection off
    base_time: Duration = Duration(30)  # multiplied by how often the endpoint was ejected lately
    maximum_time: Duration = Duration(300)
    maximum_percent: int = 50  # of a pool's endpoints may be ejected at once, but always one


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """A pool: endpoints that are interchangeable, and how calls are spread over them."""

    endpoints: tuple[EndpointOptions, ...]
    balancer: Balancer = "least_request"
    timeout: Duration | None = None  # of the whole call up to its response headers, retries and waits included
    match: tuple[str, ...] = ()  # real origins that this pool serves too
    # The Host header. Unset: the endpoint's authority for pool names, the original one for `match` origins.
    host: Literal["endpoint", "preserve"] | None = None
    hash: HashOptions = default(default_factory=HashOptions)
    retry: RetryOptions = default(default_factory=RetryOptions)
    health: HealthOptions = default(default_factory=HealthOptions)
    ejection: EjectionOptions = default(default_factory=EjectionOptions)
