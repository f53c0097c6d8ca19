"""Pools as they are seen from here: endpoints that are listed or found, and what a check of each says."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from ..clock import SystemClock
from ..discovery import Follower, open_sources
from ..errors import SettingsError
from ..probes import check, prepare, problems
from ..routing.call import Endpoint
from ..routing.discovery import described
from ..routing.health import CheckResult, checked
from ..routing.options import HealthOptions, PoolOptions
from ..routing.pool import Pool
from ..settings import find, read
from .progress import Progress
from .reporting import Refused

_AT_ONCE = 64  # probes
_clock = SystemClock()


@dataclass(slots=True)
class Probed:
    """What one check of an endpoint said, and in how many seconds."""

    result: CheckResult
    seconds: float


@dataclass(slots=True)
class Seen:
    """One pool. `problem`: why its discovery found nothing."""

    name: str
    options: PoolOptions
    pool: Pool
    problem: str = ""
    probed: dict[str, Probed] = field(default_factory=dict)  # by URL

    @property
    def source(self) -> str:
        """Where its endpoints come from, if not from the settings alone."""
        return described(self.options.discovery) if self.options.discovery else ""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self.pool.endpoints


def seen(options: argparse.Namespace, names: Sequence[str], *, reached: bool = False) -> list[Seen]:
    """The pools that were asked for, all if none is named, with their endpoints. Raises SettingsError and Refused.

    `reached`: and those that rules of theirs may lead to.
    """
    if options.settings is not None and not Path(options.settings).exists():
        raise Refused(f"{options.settings}: no such file", 2)
    sys.path.insert(0, os.getcwd())  # for discoveries of the app's own, as servers have it
    found_in = find(options.settings)
    settings = read(found_in)
    if wrong := problems(settings.pools):
        raise SettingsError(found_in.title, wrong)
    wanted = _chosen(settings.pools, names)
    chosen = {name: settings.pools[name] for name in (_reached(settings.pools, wanted) if reached else wanted)}
    pools = {name: Pool(name, of, _clock, Random(), locality=settings.locality) for name, of in chosen.items()}
    found = [Seen(name, chosen[name], pool) for name, pool in pools.items()]
    asyncio.run(_discover(found))
    return found


def _chosen(pools: Iterable[str], names: Sequence[str]) -> list[str]:
    known = list(pools)
    if not known:
        raise Refused("the settings have no pools")
    for name in names:
        if name.lower() not in known:
            raise Refused(f'there is no pool "{name}"; there are: {", ".join(known)}', 2)
    return [name.lower() for name in dict.fromkeys(names)] or known


def _reached(pools: Mapping[str, PoolOptions], names: Iterable[str]) -> list[str]:
    found = list(names)
    for name in found:  # which grows meanwhile
        found += [rule.use_pool for rule in pools[name].rules if rule.use_pool and rule.use_pool not in found]
    return found


async def _discover(found: Iterable[Seen]) -> None:
    await asyncio.gather(*map(_discover_one, found))


async def _discover_one(one: Seen) -> None:
    sources, wrong = open_sources({one.name: one.options}, {}, _clock)
    one.problem = "; ".join(problem.message for problem in wrong)
    for options, source in sources.values():
        follower = Follower(one.pool, options, source)
        await follower.look()
        one.problem = follower.status().problem


def probe(found: Iterable[Seen], checks: Iterable[HealthOptions | None]) -> None:
    """Check each endpoint once, by its pool's options in `checks`; None: this pool not."""
    wanted = [(one, endpoint, how) for one, how in zip(found, checks, strict=True) if how for endpoint in one.endpoints]
    with Progress("endpoint", "probed", len(wanted)) as progress:
        asyncio.run(_probe_all(wanted, progress))


def own_checks(one: Seen) -> HealthOptions | None:
    """The pool's, if it has any."""
    return one.options.health if checked(one.options.health) else None


async def _probe_all(wanted: Iterable[tuple[Seen, Endpoint, HealthOptions]], progress: Progress) -> None:
    places = asyncio.Semaphore(_AT_ONCE)

    async def probe_one(one: Seen, endpoint: Endpoint, how: HealthOptions) -> None:
        async with places:
            began = _clock.monotonic()
            result = await check(endpoint, how)
            one.probed[endpoint.url] = Probed(result, _clock.monotonic() - began)
        one.pool.report_health(endpoint, result)
        progress.add()

    await prepare()
    await asyncio.gather(*(probe_one(*each) for each in wanted))
