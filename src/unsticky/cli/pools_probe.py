"""`unsticky pools probe`: ask each endpoint once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace

from ..routing.options import HealthOptions
from ..rules import PATH
from ..scalars import Duration
from .pools_seen import Seen, own_checks, seen
from .pools_seen import probe as probe_each
from .reporting import Refused
from .texts import counted, table

_CONNECTING = HealthOptions(type="tcp")


def probe(options: argparse.Namespace) -> int:
    """Exit status 1 when an endpoint is bad, or a pool has none."""
    found = seen(options, options.pools)
    probe_each(found, [_how(one, options) for one in found])
    lines = _objects(found) if options.json else _lines(found, options)
    print("\n".join(lines))
    bad = sum(not each.result.ok for one in found for each in one.probed.values())
    return int(bad > 0 or any(not one.endpoints for one in found))


def _how(one: Seen, options: argparse.Namespace) -> HealthOptions:
    how = own_checks(one) or _CONNECTING
    try:
        if options.path is not None:
            how = replace(one.options.health, type="http", path=PATH.read(options.path), method="GET", body=None)
        if options.tcp:
            how = replace(how, type="tcp")
        if options.timeout is None:
            return how
        if not (seconds := Duration(options.timeout)):
            raise ValueError("--timeout: expected more than 0")
        return replace(how, timeout=seconds)
    except ValueError as error:
        raise Refused(str(error), 2) from None


def _lines(found: list[Seen], options: argparse.Namespace) -> Iterator[str]:
    rows = [("POOL", "ENDPOINT", "HOST", "RESULT", "TIME", "WHY")]
    for one in found:
        for endpoint in one.endpoints:
            each = one.probed[endpoint.url]
            result = "degraded" if each.result.degraded else "good" if each.result.ok else "bad"
            time = f"{each.seconds * 1000:.1f} ms"
            rows.append((one.name, endpoint.url, endpoint.host or "", result, time, each.result.reason))
    if len(rows) > 1:
        yield from (*table(rows, frozenset((4,))), "")
    for one in found:
        if one.problem or not one.endpoints:
            yield f"{one.name}: {_missing(one)}"
    bad = sum(row[3] == "bad" for row in rows[1:])
    yield f"{counted(len(rows) - 1, 'endpoint')} probed, {bad:,} bad."


def _missing(one: Seen) -> str:
    problem = f"{one.source}: {one.problem}" if one.problem else ""
    return problem if one.endpoints else f"no endpoints{'; ' if problem else ''}{problem}"


def _objects(found: list[Seen]) -> Iterator[str]:
    for one in found:
        for endpoint in one.endpoints:
            each = one.probed[endpoint.url]
            yield json.dumps(
                {
                    "pool": one.name,
                    "url": endpoint.url,
                    "host": endpoint.host,
                    "ok": each.result.ok,
                    "degraded": each.result.degraded,
                    "seconds": round(each.seconds, 6),
                    "reason": each.result.reason,
                }
            )
