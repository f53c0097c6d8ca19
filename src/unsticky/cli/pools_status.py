"""`unsticky pools status`: how an app that has just started would spread its calls."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from ..routing.explain import Explained, explain
from .pools_seen import Seen, own_checks, probe, seen
from .texts import table


def status(options: argparse.Namespace) -> int:
    """Exit status 1 when a pool has no endpoint that gets calls."""
    found = seen(options, options.pools)
    probe(found, map(own_checks, found))
    explained = [(one, explain(one.pool)) for one in found]
    if options.json:
        print("\n".join(object_of(one, each) for one, all_of_it in explained for each in all_of_it))
    else:
        print("\n\n".join("\n".join(lines(one, all_of_it)) for one, all_of_it in explained))
    return int(not all(any(each.eligible for each in all_of_it) for _, all_of_it in explained))


def lines(one: Seen, explained: tuple[Explained, ...]) -> Iterator[str]:
    """One pool: a title, a row for each endpoint, and what is missing."""
    checks = "" if own_checks(one) else "no health checks: all count as healthy"
    yield f"{one.name}: {', '.join(filter(None, [one.options.balancer, one.source, checks]))}"
    if explained:
        yield from table(_rows(one, explained), frozenset((1, 3, 4)))
    if one.problem:
        yield f"{one.source}: {one.problem}"
    if not explained:
        yield "no endpoints"


def _rows(one: Seen, explained: tuple[Explained, ...]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("ENDPOINT", "PRIORITY", "LOCALITY", "WEIGHT", "SHARE", "HEALTH", "WHY NOT")]
    health = {endpoint.address: _health(one, endpoint.url) for endpoint in one.endpoints}
    for each in explained:
        share = f"{each.share:.1f} %"
        reason = "" if health[each.address].startswith("bad") else each.reason
        texts = (str(each.priority), each.locality or "", f"{each.weight:g}", share, health[each.address], reason)
        rows.append((each.address, *texts))
    return rows


def _health(one: Seen, url: str) -> str:
    probed = one.probed.get(url)
    if probed is None:
        return ""
    if probed.result.ok:
        return "degraded" if probed.result.degraded else "good"
    return f"bad: {probed.result.reason}"


def object_of(one: Seen, each: Explained) -> str:
    """One endpoint for machines."""
    urls = {endpoint.address: endpoint.url for endpoint in one.endpoints}
    return json.dumps({"pool": one.name, "url": urls[each.address], **asdict(each)})
