"""What rules and fallbacks must fit: their own fields, their pool, and the other pools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..errors import Problem
from ..routing.failover_options import FallbackOptions, RuleOptions, WhenOptions
from ..routing.options import PoolOptions
from .shapes import quoted, suggest

_WITHOUT_BODY = frozenset({204, 205, 304})  # RFC 9110 6.4.1, 15.3.6
_ACTIONS = ("use_pool", "use_priority", "use_endpoint")
_CONDITIONS = (
    "method", "path", "header", "query", "healthy_below", "error_rate_above", "load_above", "in_flight_above",
    "between", "weekdays",
)  # fmt: skip


def condition_is_given(options: WhenOptions) -> Iterator[Problem]:
    if all(getattr(options, name) in (None, (), {}) for name in _CONDITIONS):
        yield Problem("", f"expected at least one condition: {quoted(_CONDITIONS)}")
    unset = WhenOptions()
    for name in ("window", "minimum_calls"):
        if options.error_rate_above is None and getattr(options, name) != getattr(unset, name):
            yield Problem(name, "has no effect without error_rate_above")


def zone_exists(options: WhenOptions) -> Iterator[Problem]:
    if options.between is None and not options.weekdays:
        if options.timezone != WhenOptions().timezone:
            yield Problem("timezone", "has no effect without between or weekdays")
        return
    try:
        ZoneInfo(options.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f'expected a time zone such as "UTC" or "Europe/Berlin", got "{options.timezone}"'
        yield Problem("timezone", f"{message}; where the system has no time zones: pip install tzdata")


def one_action(options: RuleOptions) -> Iterator[Problem]:
    given = [name for name in _ACTIONS if getattr(options, name) is not None]
    if len(given) != 1:
        yield Problem("", f"expected one of {quoted(_ACTIONS)}, got {' and '.join(given) or 'none'}")
    if options.only and options.use_pool is not None:
        yield Problem("only", "has no effect with use_pool: no call comes back from there")


def fallback_is_one(options: FallbackOptions) -> Iterator[Problem]:
    if options.pool is not None and options.status is not None:
        yield Problem("", "expected pool or status, got both")
    if options.pool is None and options.status is None and options != FallbackOptions():
        yield Problem("", "needs pool or status, or the other settings of fallback have no effect")
    if options.status is None:
        unset = FallbackOptions()
        for name in ("headers", "body", "json"):
            if options.pool is not None and getattr(options, name) != getattr(unset, name):
                yield Problem(name, "has no effect with pool; it is of an answer with status")


def answer_is_one(options: FallbackOptions) -> Iterator[Problem]:
    for name in ("body", "json"):
        if options.status in _WITHOUT_BODY and getattr(options, name) is not None:
            yield Problem(name, f"has no effect with status = {options.status}: such an answer has no body")
    if options.body is not None and options.json is not None:
        yield Problem("json", "expected body or json, got both")
    if options.json is not None:
        try:
            json.loads(options.json)
        except ValueError as error:
            yield Problem("json", f"expected a text that is JSON; {error}")


def names_differ(options: PoolOptions) -> Iterator[Problem]:
    """Metrics and traces tell rules apart by name; one without is called by its number."""
    seen: dict[str, int] = {}
    for index, rule in enumerate(options.rules):
        if (first := seen.setdefault(rule.name or str(index), index)) != index:
            place = f"rules[{index if rule.name else first}].name"
            yield Problem(place, f"the same name as that of rules[{first if rule.name else index}]")


def targets_exist(options: PoolOptions) -> Iterator[Problem]:
    """Levels and endpoints that rules name are the pool's."""
    for index, rule in enumerate(options.rules):
        here = f"rules[{index}]"
        if rule.when.load_above is not None and options.limits.maximum_in_flight is None:
            yield Problem(f"{here}.when.load_above", "needs limits.maximum_in_flight, of which it is a percentage")
        if options.discovery is not None:
            continue  # nobody knows yet which endpoints there will be
        urls = [endpoint.url.rstrip("/") for endpoint in options.endpoints]
        if rule.use_endpoint is not None and rule.use_endpoint.rstrip("/") not in urls:
            yield Problem(f"{here}.use_endpoint", f"no endpoint of the pool, {suggest(rule.use_endpoint, urls)}")
        levels = sorted({endpoint.priority for endpoint in options.endpoints})
        if rule.use_priority is not None and rule.use_priority not in levels:
            yield Problem(
                f"{here}.use_priority", f"no endpoint has that priority; there are {', '.join(map(str, levels))}"
            )


def pools_exist(pools: Mapping[str, PoolOptions]) -> Iterator[Problem]:
    """Other pools that rules and fallbacks name are there, and no way leads back."""
    ways = {name: list(_ways(options)) for name, options in pools.items()}
    for name, leaving in ways.items():
        for path, other in leaving:
            here = f"pools.{name}.{path}"
            if other not in pools:
                yield Problem(here, f"no such pool, {suggest(other, pools)}")
            elif back := _way_back(other, name, ways):
                yield Problem(here, f"leads back to where it began: {' -> '.join((name, *back))}")


def _ways(options: PoolOptions) -> Iterator[tuple[str, str]]:
    for index, rule in enumerate(options.rules):
        if rule.use_pool is not None:
            yield f"rules[{index}].use_pool", rule.use_pool
    if options.fallback.pool is not None:
        yield "fallback.pool", options.fallback.pool


def _way_back(start: str, end: str, ways: Mapping[str, list[tuple[str, str]]]) -> tuple[str, ...]:
    """The pools from `start` to `end`, both included, or ()."""
    paths: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    while paths:
        path = paths.pop(0)
        if path[-1] == end:
            return path
        for _, other in ways.get(path[-1], []):
            if other not in seen:
                seen.add(other)
                paths.append((*path, other))
    return ()


FALLBACK = frozenset(field.name for field in fields(FallbackOptions))
WHEN = frozenset(field.name for field in fields(WhenOptions))
