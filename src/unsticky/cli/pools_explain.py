"""`unsticky pools explain`: where one call would go, and why."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from ..clock import SystemClock
from ..errors import NoHealthyEndpoint
from ..routing.call import Endpoint
from ..routing.endpoint import EndpointState
from ..routing.explain import Explained
from ..routing.explain import explain as explain_pool
from ..routing.hashing import HashKey, call_key, hash_text, parse_hash_keys
from ..routing.options import HASHING, HashKeyOptions, PoolOptions, RetryOptions
from ..routing.rules import Preference, Rule, decide, rules_from
from .pools_seen import Seen, own_checks, probe, seen
from .pools_status import lines as status_lines
from .texts import counted


@dataclass(frozen=True, slots=True)
class Trip:
    """One call. `parts`: what its key is made of; `attempts`: the endpoints of its attempts, if all of them failed."""

    key: int | None
    parts: tuple[str, ...]
    attempts: tuple[Endpoint, ...]
    rules: tuple[str, ...] = ()  # those that hold for it, in words
    problem: str = ""  # why there are no attempts


class Described:
    """The call as the command line describes it: what its key is made of, and what rules ask about it and its pool."""

    def __init__(self, options: argparse.Namespace, one: Seen) -> None:
        self._pool = one.pool
        self._method: str = options.method
        target = urlsplit(options.path)
        self._path = target.path or "/"
        self._query = dict(reversed(parse_qsl(target.query, keep_blank_values=True)))  # the first one counts
        self._headers, self._inbound = _headers(options.header), _headers(options.inbound_header)
        self._cookies = dict(options.cookie)
        self._session: str | None = options.session

    def path(self) -> str | None:
        return self._path

    def query(self, name: str) -> str | None:
        return self._query.get(name)

    def header(self, name: str) -> str | None:
        return self._headers.get(name)

    def cookie(self, name: str) -> str | None:
        return self._cookies.get(name)

    def inbound_header(self, name: str) -> str | None:
        return self._inbound.get(name)

    def session(self) -> str | None:
        return self._session

    def method(self) -> str:
        return self._method

    def fit_percent(self) -> float:
        return self._pool.fit_percent()

    def error_rate(self, window: float) -> tuple[float, int]:
        return 0.0, 0  # an app's own, and so are calls in flight

    def in_flight(self) -> int:
        return 0

    def time(self) -> float:
        return SystemClock.time()


def _headers(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Several of one name are joined, as the transport does it."""
    found: dict[str, str] = {}
    for name, value in pairs:
        known = found.get(name.lower())
        found[name.lower()] = value if known is None else f"{known},{value}"
    return found


def explain(options: argparse.Namespace) -> int:
    """Exit status 1 when there is no endpoint for the call."""
    found = seen(options, [options.pool], reached=True)
    probe(found, [None if options.no_probe else own_checks(one) for one in found])
    one, rules, prefer = _way({each.name: each for each in found}, found[0], options)
    explained, trip = explain_pool(one.pool), replace(_trip(one, options, prefer), rules=rules)
    if options.json:
        print(_object(one, explained, trip))
    else:
        print("\n".join(_lines(one, explained, trip, options)))
    return int(not trip.attempts)


def _way(
    found: Mapping[str, Seen], one: Seen, options: argparse.Namespace
) -> tuple[Seen, tuple[str, ...], Preference | None]:
    """The pool that rules send the call to, what they say in words, and where in it the call begins."""
    said: list[str] = []
    prefer = None
    while (rule := decide(_rules(one.options), Described(options, one))) is not None:
        said.append(f'rule "{rule.label}" of {one.name}: {_told(rule)}')
        prefer = rule.preference
        if rule.pool is None:
            break
        one = found[rule.pool]
    return one, tuple(said), prefer


def _rules(options: PoolOptions) -> tuple[Rule, ...]:
    return rules_from(options.rules, options.limits.maximum_in_flight, ZoneInfo)


def _told(rule: Rule) -> str:
    if rule.pool is not None:
        return f"use pool {rule.pool}"
    prefer = rule.preference or Preference()
    where = prefer.url or f"priority {prefer.priority}"
    return f"{'stay on' if prefer.only else 'begin with'} {where}"


def _trip(one: Seen, options: argparse.Namespace, prefer: Preference | None) -> Trip:
    """Picks as the transport does, in a pool of its own."""
    key, parts = _key(one, options)
    tried: list[EndpointState] = []
    try:
        for _ in range(one.options.retry.attempts):
            one.pool.lease(key, tried, SystemClock.monotonic(), prefer).release()
    except NoHealthyEndpoint as error:
        return Trip(key, parts, (), problem=str(error))
    return Trip(key, parts, tuple(state.endpoint for state in tried))


def _key(one: Seen, options: argparse.Namespace) -> tuple[int | None, tuple[str, ...]]:
    """The call's hash key, and what it is made of."""
    if one.options.balancer not in HASHING:
        return None, ()
    if options.hash_key is not None:
        return hash_text(options.hash_key), ("--hash-key",)
    source, keys = Described(options, one), parse_hash_keys(one.options.hash.on)
    return call_key(keys, source), tuple(_present(one.options.hash.on, keys, source))


def _present(texts: Sequence[HashKeyOptions], keys: Sequence[HashKey], source: Described) -> Iterator[str]:
    """Names of those that the call has, up to one that ends the list."""
    some = False
    for text, key in zip(texts, keys, strict=True):
        if call_key((key,), source) is not None:
            some = True
            yield text.key
        if some and key.terminal:
            return


def _lines(one: Seen, explained: tuple[Explained, ...], trip: Trip, options: argparse.Namespace) -> Iterator[str]:
    yield from trip.rules
    yield from status_lines(one, explained)
    yield ""
    yield from _of_the_key(one, trip)
    if trip.problem:
        yield trip.problem
        return
    first, *retries = (endpoint.address for endpoint in trip.attempts)
    drawn = one.options.balancer not in HASHING or trip.key is None
    yield f"{'one draw' if drawn else 'goes to'}: {first}"
    if retries:
        yield f"retries, if each attempt fails: {', '.join(retries)}"
    yield _may_repeat(options.method, one.options.retry)


def _of_the_key(one: Seen, trip: Trip) -> Iterator[str]:
    if one.options.balancer not in HASHING:
        return
    if trip.key is None:
        wanted = ", ".join(each.key for each in one.options.hash.on) or "nothing"
        yield f"hash key: none, as the call has nothing of what is hashed ({wanted})"
    else:
        yield f"hash key: {trip.key:016x}, of {', '.join(trip.parts)}"


def _may_repeat(method: str, options: RetryOptions) -> str:
    if options.attempts == 1:
        return "no retries: attempts = 1"
    up_to = f"up to {counted(options.attempts, 'attempt')}"
    if method in options.methods:
        return f"{up_to}: {method} may be sent again"
    return f"{up_to}, but only while nothing was sent: {method} is not in retry.methods"


def _object(one: Seen, explained: tuple[Explained, ...], trip: Trip) -> str:
    return json.dumps(
        {
            "pool": one.name,
            "rules": trip.rules,
            "balancer": one.options.balancer,
            "hash_key": None if trip.key is None else f"{trip.key:016x}",
            "hashed": trip.parts,
            "attempts": [endpoint.url for endpoint in trip.attempts],
            "problem": trip.problem,
            "endpoints": [asdict(each) for each in explained],
        }
    )
