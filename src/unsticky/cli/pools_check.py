"""`unsticky pools check`: what is wrong or odd about pools, without a connection to any endpoint."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..routing.call import Endpoint
from ..routing.options import HASHING
from .pools_seen import Seen, seen
from .texts import counted


@dataclass(slots=True)
class Judged:
    """What is to be said of one pool. Problems make calls fail, notes may be meant."""

    one: Seen
    problems: list[str]
    notes: list[str]


def check(options: argparse.Namespace) -> int:
    """Exit status 1 when there are problems."""
    found = seen(options, options.pools)
    unknown = asyncio.run(_unknown_names({_host(endpoint) for one in found for endpoint in one.endpoints}))
    judged = [Judged(one, list(_problems(one, unknown)), list(_notes(one))) for one in found]
    print("\n".join(map(_object, judged) if options.json else _lines(judged)))
    return int(any(one.problems for one in judged))


def _problems(one: Seen, unknown: dict[str, str]) -> Iterator[str]:
    if one.problem:
        yield f"{one.source}: {one.problem}"
    elif not one.endpoints:
        yield "no endpoints"
    for endpoint in one.endpoints:
        if reason := unknown.get(_host(endpoint)):
            yield f"{endpoint.url}: {reason}"
    if one.endpoints and all(endpoint.draining for endpoint in one.endpoints):
        yield "all endpoints drain"


def _notes(one: Seen) -> Iterator[str]:
    options, endpoints = one.options, one.endpoints
    if len(endpoints) == 1:
        yield "a single endpoint: retries have nowhere else to go"
    if options.timeout is None:
        yield "no timeout: a call may take as long as its attempts and their waits"
    if options.balancer in HASHING and not options.hash.on:
        yield f"{options.balancer} without hash.on: calls without a hash_key go anywhere"
    if len({urlsplit(endpoint.url).scheme for endpoint in endpoints}) > 1:
        yield "some endpoints are spoken to by http, some by https"
    for endpoint in endpoints:
        if endpoint.url.startswith("https:") and endpoint.host is None and _is_address(_host(endpoint)):
            yield f"{endpoint.url}: its certificate must be for the address; `host` names it otherwise"


def _host(endpoint: Endpoint) -> str:
    return urlsplit(endpoint.url).hostname or ""


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


async def _unknown_names(hosts: Iterable[str]) -> dict[str, str]:
    """Those that can't be resolved here, and why."""
    names = [host for host in hosts if not _is_address(host)]
    reasons = await asyncio.gather(*map(_why_unknown, names))
    return {name: reason for name, reason in zip(names, reasons, strict=True) if reason}


async def _why_unknown(name: str) -> str:
    try:
        await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return f"{name} can't be resolved ({getattr(error, 'strerror', None) or type(error).__name__})"
    return ""


def _lines(judged: list[Judged]) -> Iterator[str]:
    for each in judged:
        one = each.one
        parts = [counted(len(one.endpoints), "endpoint"), one.options.balancer, one.source]
        yield f"{one.name}: {', '.join(filter(None, parts))}"
        yield from (f"    {_described(endpoint)}" for endpoint in one.endpoints)
        yield from (f"  ! {problem}" for problem in each.problems)
        yield from (f"  - {note}" for note in each.notes)
    problems, notes = (sum(len(getattr(each, kind)) for each in judged) for kind in ("problems", "notes"))
    yield f"{counted(len(judged), 'pool')}: {counted(problems, 'problem')}, {counted(notes, 'note')}."


def _described(endpoint: Endpoint) -> str:
    parts = [endpoint.url, f"as {endpoint.host}" if endpoint.host else ""]
    parts += [f"weight {endpoint.weight}" if endpoint.weight != 1 else ""]
    parts += [f"priority {endpoint.priority}" if endpoint.priority else "", endpoint.locality or ""]
    return "  ".join(filter(None, [*parts, "draining" if endpoint.draining else ""]))


def _object(each: Judged) -> str:
    urls = [endpoint.url for endpoint in each.one.endpoints]
    return json.dumps(
        {"pool": each.one.name, "endpoints": urls, "problems": each.problems, "notes": each.notes}, sort_keys=False
    )
