"""Fields that must fit each other. A relation is judged only when each of its fields is right by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from ..errors import Problem
from ..routing.call import Endpoint
from ..routing.failover_options import FallbackOptions, RuleOptions, WhenOptions
from ..routing.fault_options import FaultOptions
from ..routing.hop_options import InboundOptions, PropagateOptions
from ..routing.hops import OFF, deadline_header
from ..routing.maglev import is_prime
from ..routing.options import (
    HASHING,
    DiscoveryOptions,
    EjectionOptions,
    HashOptions,
    HealthOptions,
    HedgeOptions,
    LeastRequestOptions,
    LimitOptions,
    PeakEwmaOptions,
    PoolOptions,
    RetryOptions,
)
from ..routing.weight_options import WEIGHTED, LoadReportOptions, ReportingOptions, SlowStartOptions
from ..session.options import CookieOptions, SessionOptions
from . import failover_relations as failover
from .shapes import quoted, suggest
from .tree import Settings

_OF_DNS = frozenset("name port scheme record host resolver nameservers minimum_ttl maximum_ttl".split())


@dataclass(frozen=True, slots=True)
class Relation:
    """`check` yields problems whose paths are below the table that holds `fields`."""

    fields: frozenset[str]
    check: Callable[[Any], Iterator[Problem]]


def relations_of(options: object) -> tuple[Relation, ...]:
    return _RELATIONS.get(type(options), ())


def _ring(options: HashOptions) -> Iterator[Problem]:
    if options.minimum_ring_size > options.maximum_ring_size:
        yield Problem("minimum_ring_size", f"must not be more than maximum_ring_size ({options.maximum_ring_size})")


def _table(options: HashOptions) -> Iterator[Problem]:
    size = options.table_size
    if not is_prime(size):
        less = next(number for number in range(size, 1, -1) if is_prime(number))
        more = next(number for number in range(size, 2 * size) if is_prime(number))
        yield Problem("table_size", f"must be a prime number; the nearest are {less} and {more}")


def _balance(options: HashOptions) -> Iterator[Problem]:
    if 0 < options.balance_factor < 100:
        yield Problem("balance_factor", "must be 100 or more, in percent: with less not all calls find room; 0 is off")


def _backoff(options: RetryOptions) -> Iterator[Problem]:
    if options.backoff > options.maximum_backoff:
        yield Problem("backoff", f"must not be longer than maximum_backoff ({options.maximum_backoff.text})")


def _hedge_is_used(options: HedgeOptions) -> Iterator[Problem]:
    if options.after is None and options.quantile is None and options != HedgeOptions():
        yield Problem("after", "or quantile must be set, or the other settings of hedge have no effect")
    unset = HedgeOptions()
    for name in ("window", "minimum_samples"):
        if options.after is not None and options.quantile is None and getattr(options, name) != getattr(unset, name):
            yield Problem(name, "has no effect without quantile")


def _hedge_has_attempts(options: PoolOptions) -> Iterator[Problem]:
    hedge, attempts = options.hedge, options.retry.attempts
    if (hedge.after is not None or hedge.quantile is not None) and hedge.maximum >= attempts:
        yield Problem("hedge.maximum", f"must be less than retry.attempts ({attempts}), which counts all attempts")


def _ejection(options: EjectionOptions) -> Iterator[Problem]:
    if options.base_time > options.maximum_time:
        yield Problem("base_time", f"must not be longer than maximum_time ({options.maximum_time.text})")


def _check(options: HealthOptions) -> Iterator[Problem]:
    if options.type == "tcp" and options.path is not None:
        yield Problem("path", 'has no effect with type = "tcp", which only connects')


def _authorities(options: HealthOptions) -> Iterator[Problem]:
    if options.ca_file is not None and not options.verify:
        yield Problem("ca_file", "has no effect with verify = false")


def _delay_is_known(options: FaultOptions) -> Iterator[Problem]:
    if options.delay_percent and options.delay is None:
        yield Problem("delay_percent", "has no effect without delay")


def _faults_hit(options: PoolOptions) -> Iterator[Problem]:
    if options.discovery is not None:
        return  # nobody knows yet which endpoints there will be
    addresses = [Endpoint.of(endpoint.url).address for endpoint in options.endpoints]
    for index, address in enumerate(options.faults.endpoints):
        if address not in addresses:
            yield Problem(f"faults.endpoints[{index}]", f"no endpoint of the pool, {suggest(address, addresses)}")


def _limits(options: LimitOptions) -> Iterator[Problem]:
    most, each = options.maximum_in_flight, options.maximum_in_flight_per_endpoint
    if most is not None and each is not None and each > most:
        yield Problem("maximum_in_flight_per_endpoint", f"must not be more than maximum_in_flight ({most})")


def _hash_is_used(options: PoolOptions) -> Iterator[Problem]:
    if options.balancer in HASHING:
        return
    for name, given in (("on", options.hash.on), ("balance_factor", options.hash.balance_factor)):
        if given:
            message = f'has no effect with balancer = "{options.balancer}"; {quoted(sorted(HASHING))} use it'
            yield Problem(f"hash.{name}", message)


def _choices_are_used(options: PoolOptions) -> Iterator[Problem]:
    for name, given, unset in (
        ("least_request", options.least_request, LeastRequestOptions()),
        ("peak_ewma", options.peak_ewma, PeakEwmaOptions()),
    ):
        if given != unset and options.balancer != name:
            yield Problem(name, f'has no effect with balancer = "{options.balancer}"')


def _maglev_has_room(options: PoolOptions) -> Iterator[Problem]:
    if options.balancer == "maglev" and len(options.endpoints) > options.hash.table_size:
        yield Problem("hash.table_size", f"must be at least the number of endpoints ({len(options.endpoints)})")


def _weights_are_used(options: PoolOptions) -> Iterator[Problem]:
    if options.balancer in WEIGHTED:
        return
    fitting = " or ".join(f'"{name}"' for name in WEIGHTED)
    wrong = f'has no effect with balancer = "{options.balancer}"; use {fitting}'
    if options.load_report.enabled:
        yield Problem("load_report.enabled", wrong)
    if options.slow_start.window:
        yield Problem("slow_start.window", wrong)


def _reports_are_used(options: LoadReportOptions) -> Iterator[Problem]:
    if not options.enabled and options != LoadReportOptions():
        yield Problem("enabled", "must be true, or the other settings of load_report have no effect")


def _reporting_is_used(options: ReportingOptions) -> Iterator[Problem]:
    if options.emit == "off" and options != ReportingOptions():
        yield Problem("emit", 'must be "on_request" or "always", or the other settings of load_report have no effect')


def _maximum_is_meant(options: InboundOptions) -> Iterator[Problem]:
    timeout, maximum = options.timeout, options.maximum_timeout
    if maximum is not None and timeout is not None and maximum < timeout:
        yield Problem("maximum_timeout", f"must not be shorter than timeout ({timeout.text})")
    if maximum is not None and not options.deadline_headers:
        yield Problem("maximum_timeout", "has no effect without deadline_headers")


def _reserve_fits(options: InboundOptions) -> Iterator[Problem]:
    if options.timeout is not None and options.reserve >= options.timeout:
        yield Problem("reserve", f"must be shorter than timeout ({options.timeout.text}), or nothing is left for calls")


def _headers_differ(options: InboundOptions) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, text in enumerate(options.deadline_headers):
        if (first := seen.setdefault(deadline_header(text).name, index)) != index:
            yield Problem(f"deadline_headers[{index}]", f"the same header as deadline_headers[{first}]")


def _propagated_differ(options: PropagateOptions) -> Iterator[Problem]:
    if deadline_header(options.deadline).name == options.attempt != OFF:
        yield Problem("deadline", "the same header as attempt")


def _reports_live(options: LoadReportOptions) -> Iterator[Problem]:
    if options.blackout >= options.expiry:
        yield Problem("blackout", f"must be shorter than expiry ({options.expiry.text})")


def _slow_start_is_used(options: SlowStartOptions) -> Iterator[Problem]:
    if not options.window and options != SlowStartOptions():
        yield Problem("window", "must be more than 0, or the other settings of slow_start have no effect")


def _locality_is_used(options: PoolOptions) -> Iterator[Problem]:
    if options.locality is not None and options.balancer in HASHING:
        yield Problem("locality", f'has no effect with balancer = "{options.balancer}": a key has one home for all')


def _subset_is_meant(options: PoolOptions) -> Iterator[Problem]:
    if options.subset_size is not None and options.balancer in HASHING:
        message = f'balancer = "{options.balancer}" can\'t be used with it: each process would give a key another home'
        yield Problem("subset_size", message)


def _endpoints_are_known(options: PoolOptions) -> Iterator[Problem]:
    if not options.endpoints and options.discovery is None:
        yield Problem("endpoints", "required, but not set: expected at least one, or a discovery")


def _discovery_is_whole(options: DiscoveryOptions) -> Iterator[Problem]:
    for needed, type_ in (("path", "file"), ("name", "dns")):
        if options.type == type_ and getattr(options, needed) is None:
            yield Problem(needed, f'required with type = "{type_}", but not set')


def _discovery_is_used(options: DiscoveryOptions) -> Iterator[Problem]:
    """What only another type looks at."""
    for field in fields(DiscoveryOptions):
        belongs = "file" if field.name == "path" else "dns" if field.name in _OF_DNS else options.type
        if options.type != belongs and getattr(options, field.name) != field.default:
            yield Problem(field.name, f'has no effect with type = "{options.type}"')


def _records_are_meant(options: DiscoveryOptions) -> Iterator[Problem]:
    if options.record == "SRV" and options.port is not None:
        yield Problem("port", 'has no effect with record = "SRV", which has ports of its own')
    if options.resolver == "system":
        if options.record == "SRV":
            yield Problem("record", 'SRV needs resolver = "dns"')
        if options.nameservers:
            yield Problem("nameservers", 'has no effect with resolver = "system"')
    if options.minimum_ttl > options.maximum_ttl:
        yield Problem("minimum_ttl", f"must not be longer than maximum_ttl ({options.maximum_ttl.text})")


def _endpoints_differ(options: PoolOptions) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, endpoint in enumerate(options.endpoints):
        first = seen.setdefault(same_origin(endpoint.url), index)
        if first != index:
            yield Problem(
                f"endpoints[{index}]", f"the same endpoint as endpoints[{first}]; use weight for a larger share"
            )


def _matches_differ(settings: Settings) -> Iterator[Problem]:
    """An origin leads to one pool, and a pool's own name is no origin of another."""
    seen: dict[str, str] = {}
    for name, pool in settings.pools.items():
        for index, origin in enumerate(pool.match):
            here = f"pools.{name}.match[{index}]"
            first = seen.setdefault(same_origin(origin), here)
            host = urlsplit(origin).hostname
            if first != here:
                yield Problem(here, f"the same origin as {first}")
            elif host in settings.pools:
                yield Problem(here, f'"{host}" is the name of a pool: URLs with it go to that pool already')


def same_origin(url: str) -> str:
    """An origin with its port spelled out, to compare with others."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}"


def _touch(options: SessionOptions) -> Iterator[Problem]:
    touch, idle = options.touch_interval, options.idle_timeout
    if touch is not None and idle is not None and touch >= idle:
        # Readers would be logged out: their touch comes later than the session's end.
        yield Problem("touch_interval", f"must be shorter than idle_timeout ({idle.text})")


def _migration(options: SessionOptions) -> Iterator[Problem]:
    url = options.migrate_flask_session
    if url is None:
        return
    if url.partition(":")[0].partition("+")[0] not in ("redis", "rediss", "valkey", "valkeys"):
        yield Problem("migrate_flask_session", "is the URL of the Redis or Valkey that Flask-Session uses")
    if options.migrate_until is None:
        yield Problem("migrate_flask_session", "has no effect without migrate_until, a date")


def _countable(options: SessionOptions) -> Iterator[Problem]:
    if options.store.startswith("memcached:") and options.maximum_sessions is not None:
        yield Problem("maximum_sessions", "Memcached may forget records, so it can't count sessions")


def _secure(options: CookieOptions) -> Iterator[Problem]:
    if options.secure is False and options.same_site == "none":
        yield Problem("secure", 'same_site = "none" needs secure = true: browsers refuse the cookie otherwise')
    if options.secure is False and options.partitioned:
        yield Problem("secure", "partitioned needs secure = true: browsers refuse the cookie otherwise")


def _prefix(options: CookieOptions) -> Iterator[Problem]:
    """Cookie name prefixes (RFC 6265bis 4.1.3): browsers refuse a cookie that breaks them."""
    name = (options.name or "").lower()
    if name.startswith(("__secure-", "__host-")) and not options.secure:
        yield Problem("name", f"{options.name} needs secure = true")
    if name.startswith("__host-") and (options.domain or options.path not in (None, "/")):
        yield Problem("name", f'{options.name} needs path = "/" and no domain')


_RELATIONS: dict[type, tuple[Relation, ...]] = {
    HashOptions: (
        Relation(frozenset({"minimum_ring_size", "maximum_ring_size"}), _ring),
        Relation(frozenset({"table_size"}), _table),
        Relation(frozenset({"balance_factor"}), _balance),
    ),
    RetryOptions: (Relation(frozenset({"backoff", "maximum_backoff"}), _backoff),),
    HedgeOptions: (Relation(frozenset(field.name for field in fields(HedgeOptions)), _hedge_is_used),),
    EjectionOptions: (Relation(frozenset({"base_time", "maximum_time"}), _ejection),),
    HealthOptions: (
        Relation(frozenset({"type", "path"}), _check),
        Relation(frozenset({"verify", "ca_file"}), _authorities),
    ),
    InboundOptions: (
        Relation(frozenset({"timeout", "maximum_timeout", "deadline_headers"}), _maximum_is_meant),
        Relation(frozenset({"timeout", "reserve"}), _reserve_fits),
        Relation(frozenset({"deadline_headers"}), _headers_differ),
    ),
    DiscoveryOptions: (
        Relation(frozenset({"type", "path", "name"}), _discovery_is_whole),
        Relation(frozenset(field.name for field in fields(DiscoveryOptions)), _discovery_is_used),
        Relation(
            frozenset({"record", "port", "resolver", "nameservers", "minimum_ttl", "maximum_ttl"}), _records_are_meant
        ),
    ),
    FaultOptions: (Relation(frozenset({"delay_percent", "delay"}), _delay_is_known),),
    PropagateOptions: (Relation(frozenset({"deadline", "attempt"}), _propagated_differ),),
    LimitOptions: (Relation(frozenset({"maximum_in_flight", "maximum_in_flight_per_endpoint"}), _limits),),
    LoadReportOptions: (
        Relation(frozenset(field.name for field in fields(LoadReportOptions)), _reports_are_used),
        Relation(frozenset({"blackout", "expiry"}), _reports_live),
    ),
    ReportingOptions: (Relation(frozenset(field.name for field in fields(ReportingOptions)), _reporting_is_used),),
    SlowStartOptions: (Relation(frozenset(field.name for field in fields(SlowStartOptions)), _slow_start_is_used),),
    PoolOptions: (
        Relation(frozenset({"balancer", "load_report", "slow_start"}), _weights_are_used),
        Relation(frozenset({"balancer", "hash"}), _hash_is_used),
        Relation(frozenset({"balancer", "least_request", "peak_ewma"}), _choices_are_used),
        Relation(frozenset({"balancer", "hash", "endpoints"}), _maglev_has_room),
        Relation(frozenset({"balancer", "locality"}), _locality_is_used),
        Relation(frozenset({"hedge", "retry"}), _hedge_has_attempts),
        Relation(frozenset({"endpoints", "faults"}), _faults_hit),
        Relation(frozenset({"balancer", "subset_size"}), _subset_is_meant),
        Relation(frozenset({"endpoints"}), _endpoints_differ),
        Relation(frozenset({"endpoints", "discovery"}), _endpoints_are_known),
        Relation(frozenset({"endpoints", "rules", "limits"}), failover.targets_exist),
        Relation(frozenset({"rules"}), failover.names_differ),
    ),
    RuleOptions: (Relation(frozenset({"use_pool", "use_priority", "use_endpoint", "only"}), failover.one_action),),
    WhenOptions: (
        Relation(failover.WHEN, failover.condition_is_given),
        Relation(frozenset({"between", "weekdays", "timezone"}), failover.zone_exists),
    ),
    FallbackOptions: (
        Relation(failover.FALLBACK, failover.fallback_is_one),
        Relation(frozenset({"status", "body", "json"}), failover.answer_is_one),
    ),
    Settings: (
        Relation(frozenset({"pools"}), _matches_differ),
        Relation(frozenset({"pools"}), lambda settings: failover.pools_exist(settings.pools)),
    ),
    SessionOptions: (
        Relation(frozenset({"touch_interval", "idle_timeout"}), _touch),
        Relation(frozenset({"migrate_flask_session", "migrate_until"}), _migration),
        Relation(frozenset({"store", "maximum_sessions"}), _countable),
    ),
    CookieOptions: (
        Relation(frozenset({"secure", "same_site", "partitioned"}), _secure),
        Relation(frozenset({"name", "secure", "path", "domain"}), _prefix),
    ),
}
