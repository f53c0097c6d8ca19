"""Interleaved rounds, and what is counted beside the time."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Any

import redis

# Ten fields of mixed values that every peer can hold: 1 kB as JSON.
SESSION: dict[str, Any] = {
    "user": 48151623,
    "name": "Augusta Ada King, Countess of Lovelace",
    "roles": ["editor", "reviewer", "billing"],
    "cart": [{"sku": f"tea-{n:04}", "title": f"Darjeeling no. {n}", "quantity": n, "price": 12.5} for n in range(4)],
    "preferences": {"theme": "dark", "language": "en-GB", "currency": "EUR", "columns": [1, 2, 5, 8], "compact": False},
    "csrf": "5f1d7a84db00d2fce00b31a7fc73224f5f1d7a84db00d2fce00b31a7fc73224f",
    "visited": [f"/catalog/teas/{n}?sort=price&page={n}" for n in range(8)],
    "started": 1763900000.25,
    "consent": True,
    "count": 0,
}
MODES = ("untouched", "read", "write")
VERBS = ("load", "load_now", "create", "update", "delete")
COUNTED = 20  # requests for the counts

numbers = count(1)  # what the write mode writes: never the value that is there


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds, and seconds per slice (one stack in one mode).

    Many short slices rather than few long ones: the best of the rounds counts, and on a machine that others use too,
    only what is as short as a turn of the scheduler is ever left alone.
    """

    rounds: int = 150
    slice: float = 0.005


@dataclass(frozen=True, slots=True)
class Work:
    """One stack in one mode. `run` does that many requests and returns how many seconds they took."""

    stack: str
    mode: str
    run: Callable[[int], float]


@dataclass(slots=True)
class Figures:
    """What was measured. Keys are (part, stack, mode)."""

    microseconds: dict[tuple[str, str, str], float] = field(default_factory=dict)  # per request, over the bare app
    trips: dict[tuple[str, str, str], str] = field(default_factory=dict)  # store commands of one request
    cookies: dict[tuple[str, str, str], float] = field(default_factory=dict)  # Set-Cookie headers per request
    per_second: dict[tuple[str, str, str], float] = field(default_factory=dict)  # requests, end to end
    failed: dict[tuple[str, str, str], int] = field(default_factory=dict)  # of them, in all rounds

    def plain(self) -> dict[str, dict[str, object]]:
        """For JSON: keys as `part/stack/mode`."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: {"/".join(key): value for key, value in values.items()} for name, values in named.items()}


def tell(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def interleaved(works: list[Work], effort: Effort, part: str) -> dict[tuple[str, str], float]:
    """Seconds per request: the best of the rounds, because the others were disturbed by somebody.

    Each round runs each work once, so that a slow phase of the machine meets all of them.
    """
    amounts = {(work.stack, work.mode): _amount(work, effort.slice) for work in works}
    best: dict[tuple[str, str], float] = {}
    for number in range(effort.rounds):
        if number % 10 == 0:
            tell(f"{part}: round {number + 1} of {effort.rounds}")
        for work in works:
            key = work.stack, work.mode
            best[key] = min(best.get(key, float("inf")), work.run(amounts[key]) / amounts[key])
    return best


def _amount(work: Work, seconds: float) -> int:
    """As many requests as fill one slice; finding out warms the stack up."""
    work.run(3)
    amount = 1
    while (taken := work.run(amount)) < seconds / 4:
        amount *= 2
    return max(1, int(amount * seconds / taken))


def over_bare(best: dict[tuple[str, str], float], bare: str) -> dict[tuple[str, str], float]:
    """Microseconds that each stack adds to the bare app in the same mode."""
    return {
        (stack, mode): (seconds - best[bare, mode]) * 1e6 for (stack, mode), seconds in best.items() if stack != bare
    }


@contextmanager
def counted_verbs(kind: type) -> Iterator[Counter[str]]:
    """What is asked of stores of that class. Those that are made meanwhile: one made before may have lent its verbs."""
    calls: Counter[str] = Counter()
    asked = 0  # verbs that run: one that another one uses is not counted

    def counting(verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal asked
            calls[verb.removesuffix("_now")] += not asked
            asked += 1
            try:
                return method(*args)
            finally:
                asked -= 1

        return counted

    verbs = [verb for verb in VERBS if hasattr(kind, verb)]
    if "load_now" in verbs:
        verbs.remove("load")  # it is the same, awaited
    kept = {verb: getattr(kind, verb) for verb in verbs}
    for verb, method in kept.items():
        setattr(kind, verb, counting(verb, method))
    try:
        yield calls
    finally:
        for verb, method in kept.items():
            setattr(kind, verb, method)


@contextmanager
def monitored(port: int) -> Iterator[Counter[str]]:
    """The commands that clients send to a Redis server; what scripts call inside of it is no round trip."""
    calls: Counter[str] = Counter()
    with redis.Redis(port=port) as client, redis.Redis(port=port) as watcher:
        client.ping()  # connected now: its greeting is not counted
        with watcher.monitor() as monitor:
            yield calls
            _until_echo(client, monitor, calls)


def _until_echo(client: redis.Redis, monitor: Any, calls: Counter[str]) -> None:
    client.echo("counted")
    for seen in monitor.listen():
        name = seen["command"].split(" ")[0].upper()
        if name == "ECHO":
            return
        if seen["client_type"] != "lua":
            calls[name] += 1


def shown(calls: Iterable[tuple[str, int]], requests: int) -> str:
    """`GET + EVALSHA`, or `0`. A share is named: `0.5 GET`."""
    parts = []
    for name, amount in sorted(
        (call for call in calls if call[1]), key=lambda call: call[0] in ("EVALSHA", "SET", "SETEX", "update")
    ):
        times = amount / requests
        parts.append(name if times == 1 else f"{times:g} {name}")
    return " + ".join(parts) or "0"


def trips(text: str) -> float:
    """How many that are."""
    return 0.0 if text == "0" else sum(float(part.split()[0]) if " " in part else 1 for part in text.split(" + "))


def timed(work: Callable[[], object], amount: int) -> float:
    """Seconds for `amount` calls."""
    started = perf_counter()
    for _ in range(amount):
        work()
    return perf_counter() - started
