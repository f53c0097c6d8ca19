"""Which keys meet another endpoint when endpoints leave, join or are ejected: asked of the real pools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from unsticky.routing.call import Endpoint
from unsticky.routing.options import Balancer, HashOptions, PoolOptions
from unsticky.routing.pool import Pool

from .stage import Size, endpoint
from .world import VirtualClock

NAIVE = "key modulo count"
ROWS: tuple[tuple[str, Balancer, int], ...] = (  # name, balancer, balance factor
    ("ring_hash", "ring_hash", 0),
    ("maglev", "maglev", 0),
    ("rendezvous", "rendezvous", 0),
    ("ring_hash, bounded", "ring_hash", 125),
    ("maglev, bounded", "maglev", 125),
)
_KEYS_PER_ENDPOINT = 500
_MOST_KEYS = 100_000
_MOST_LOOKS = 1_000_000  # of rendezvous, which looks at all endpoints for each key

Homes = list[str]


@dataclass(frozen=True, slots=True)
class Churn:
    """Of all keys, the percent that moved. `least`: those of the endpoint itself, which have to."""

    policy: str
    left: float
    joined: float
    ejected: float
    least: float
    imbalance: float  # keys of the endpoint with most over the mean

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def churn(size: Size) -> list[Churn]:
    """Of each way to hash."""
    count = min(_MOST_KEYS, _KEYS_PER_ENDPOINT * size.endpoints)
    random = Random(size.seed)
    keys = [random.getrandbits(64) for _ in range(count)]
    found = [_measured(name, balancer, factor, size, keys) for name, balancer, factor in ROWS]
    return [*found, _naive(size.endpoints, keys)]


def _measured(name: str, balancer: Balancer, factor: int, size: Size, keys: list[int]) -> Churn:
    if balancer == "rendezvous":
        keys = keys[: max(1000, _MOST_LOOKS // size.endpoints)]
    endpoints = [endpoint(number) for number in range(size.endpoints)]

    def homes(there: list[Endpoint], act: Callable[[Pool], None] = lambda pool: None) -> Homes:
        options = PoolOptions(endpoints=(), balancer=balancer, hash=HashOptions(balance_factor=factor))
        pool = Pool("shards", options, VirtualClock(), Random(size.seed), there)
        act(pool)
        return _homes(pool, keys, release=not factor)

    gone = endpoints[size.endpoints // 2]
    before = homes(endpoints)
    without = homes([one for one in endpoints if one is not gone])
    return Churn(
        name,
        left=_moved(before, without),
        joined=_moved(before, homes([*endpoints, endpoint(size.endpoints)])),
        ejected=_moved(before, homes(endpoints, lambda pool: _eject(pool, gone))),
        least=100 * before.count(gone.url) / len(keys),
        imbalance=_imbalance(before, size.endpoints),
    )


def _homes(pool: Pool, keys: list[int], *, release: bool) -> Homes:
    """Where each key goes. With bounded loads all calls stay in flight, as it is load that moves keys there."""
    found, now = [], pool.clock.monotonic()
    for key in keys:
        lease = pool.lease(key, [], now)
        found.append(lease.state.endpoint.url)
        if release:
            lease.release()
    return found


def _eject(pool: Pool, endpoint: Endpoint) -> None:
    """A health check says so: an ejection hides an endpoint in the same way."""
    for _ in range(pool.options.health.unhealthy_threshold):
        pool.report_health(endpoint, False)


def _moved(before: Homes, after: Homes) -> float:
    return 100 * sum(one != other for one, other in zip(before, after, strict=True)) / len(before)


def _imbalance(homes: Homes, endpoints: int) -> float:
    counts: dict[str, int] = {}
    for home in homes:
        counts[home] = counts.get(home, 0) + 1
    return max(counts.values()) * endpoints / len(homes)


def _naive(endpoints: int, keys: list[int]) -> Churn:
    """What hash(key) % len(servers) does."""
    before = [str(key % endpoints) for key in keys]
    gone = endpoints // 2
    fewer = [number for number in range(endpoints) if number != gone]
    without = [str(fewer[key % len(fewer)]) for key in keys]
    joined = [str(key % (endpoints + 1)) for key in keys]
    moved = _moved(before, without)
    least = 100 * before.count(str(gone)) / len(keys)
    return Churn(NAIVE, moved, _moved(before, joined), moved, least, _imbalance(before, endpoints))
