"""What can be set about a pool of endpoints. Frozen values; `unsticky.settings` composes them.

The metadata next to a field is its rule and its description, for the reader's errors and for the JSON Schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as default
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import HASH_KEY, HOST_NAME, ORIGIN, Shorthand
from ..scalars import Duration
from .discovery_options import DiscoveryOptions as DiscoveryOptions
from .failover_options import FallbackOptions, RuleOptions
from .fault_options import FaultOptions
from .fitness_options import EjectionOptions as EjectionOptions
from .fitness_options import HealthOptions as HealthOptions
from .fitness_options import LimitOptions as LimitOptions
from .hedge_options import HedgeOptions as HedgeOptions
from .hop_options import PropagateOptions
from .retry_options import RetryOptions as RetryOptions
from .weight_options import LoadReportOptions, SlowStartOptions

Balancer = Literal[
    "round_robin",
    "weighted_round_robin",
    "random",
    "least_request",
    "peak_ewma",
    "ring_hash",
    "maglev",
    "rendezvous",
]
HASHING = frozenset({"ring_hash", "maglev", "rendezvous"})  # who has a home for each key


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """One interchangeable server: `url` is an origin, such as http://10.0.0.1:8000."""

    url: Annotated[str, ORIGIN, Meta(description="The server's origin: scheme, host and port.")]
    weight: Annotated[
        int,
        Meta(ge=1, le=65535, description="Its share, for all balancers but round_robin and random."),
    ] = 1
    priority: Annotated[
        int,
        Meta(ge=0, le=127, description="0 is used first; the next level as far as this one lacks healthy endpoints."),
    ] = 0
    locality: Annotated[str | None, Meta(min_length=1, description="Where it stands, such as a zone.")] = None
    draining: Annotated[bool, Meta(description="True: no new calls go to it; those under way end in peace.")] = False
    host: Annotated[
        str | None,
        HOST_NAME,
        Meta(description="What the Host header and TLS name, where `url` is an address. Unset: the host of `url`."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastRequestOptions:
    """How hard least_request looks for an endpoint with few calls in flight."""

    choice_count: Annotated[
        int, Meta(ge=2, le=10, description="Endpoints that are drawn and compared for each attempt.")
    ] = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakEwmaOptions:
    """How long peak_ewma remembers (Finagle, Envoy's peak_ewma)."""

    decay_time: Annotated[Duration, Meta(gt=0, description="The mean lifetime of a time that was seen.")] = Duration(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashKeyOptions:
    """One thing to hash, and whether that is enough. May also be written as the text of `key` alone."""

    key: Annotated[
        str,
        HASH_KEY,
        Meta(
            description="Of the outbound request: path, query:NAME, header:NAME; of the inbound one: cookie:NAME, "
            "inbound-header:NAME, session."
        ),
    ]
    terminal: Annotated[
        bool, Meta(description="True: those that follow are not looked at, if there is something to hash up to here.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOptions:
    """What ring_hash, maglev and rendezvous hash, and how.

    Several keys are combined in their order; where none is present the call goes to a random endpoint.
    """

    on: Annotated[
        tuple[Annotated[HashKeyOptions, Shorthand("key")], ...],
        Meta(
            description="Of the outbound request: path, query:NAME, header:NAME; of the inbound one: cookie:NAME, "
            "inbound-header:NAME, session. Several are combined."
        ),
    ] = ()
    balance_factor: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Percent of its share of the calls in flight that an endpoint takes, before others stand in; "
            "100 or more, such as 150. 0: no bound.",
        ),
    ] = 0
    minimum_ring_size: Annotated[int, Meta(ge=1, le=8_388_608, description="Entries that the ring has at least.")] = (
        1024
    )
    maximum_ring_size: Annotated[int, Meta(ge=1, le=8_388_608, description="Entries that the ring has at most.")] = (
        8_388_608
    )
    table_size: Annotated[int, Meta(ge=2, le=5_000_011, description="Slots of maglev's table: a prime number.")] = 65537


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """A pool: endpoints that are interchangeable, and how calls are spread over them."""

    endpoints: Annotated[
        tuple[Annotated[EndpointOptions, Shorthand("url")], ...],
        Meta(description="The servers: origins, or tables with `url`. Required without `discovery`."),
    ] = ()
    balancer: Annotated[Balancer, Meta(description="Who gets the next attempt.")] = "least_request"
    timeout: Annotated[
        Duration | None,
        Meta(gt=0, description="Of the whole call up to its response headers, retries and waits included."),
    ] = None
    match: Annotated[
        tuple[Annotated[str, ORIGIN], ...], Meta(description="Real origins that this pool serves too.")
    ] = ()
    host: Annotated[
        Literal["endpoint", "preserve"] | None,
        Meta(
            description="The Host header. Unset: the endpoint's authority for pool names, the original one for "
            "`match` origins."
        ),
    ] = None
    overprovisioning: Annotated[
        float,
        Meta(ge=1, le=100, description="How much more than its share a level's endpoints can carry (Envoy's factor)."),
    ] = 1.4
    panic_threshold: Annotated[
        int | None,
        Meta(
            ge=0,
            le=100,
            description="Percent of a level that must be available, else all its endpoints are used. 0: unfit ones "
            "never are, calls fail fast. Unset: they are used when nothing else is left.",
        ),
    ] = None
    locality: Annotated[
        str | None, Meta(min_length=1, description="Where this process stands; unset: `locality` at the top.")
    ] = None
    subset_size: Annotated[
        int | None,
        Meta(ge=1, description="How many endpoints of a level one process uses (gRFC A68). Unset: all of them."),
    ] = None
    least_request: LeastRequestOptions = default(default_factory=LeastRequestOptions)
    peak_ewma: PeakEwmaOptions = default(default_factory=PeakEwmaOptions)
    hash: HashOptions = default(default_factory=HashOptions)
    discovery: DiscoveryOptions | None = None
    retry: RetryOptions = default(default_factory=RetryOptions)
    hedge: HedgeOptions = default(default_factory=HedgeOptions)
    health: HealthOptions = default(default_factory=HealthOptions)
    ejection: EjectionOptions = default(default_factory=EjectionOptions)
    limits: LimitOptions = default(default_factory=LimitOptions)
    rules: Annotated[
        tuple[RuleOptions, ...],
        Meta(description="Other ways for calls; the first rule that holds counts."),
    ] = ()
    fallback: FallbackOptions = default(default_factory=FallbackOptions)
    load_report: LoadReportOptions = default(default_factory=LoadReportOptions)
    slow_start: SlowStartOptions = default(default_factory=SlowStartOptions)
    propagate: PropagateOptions = default(default_factory=PropagateOptions)
    faults: FaultOptions = default(default_factory=FaultOptions)
