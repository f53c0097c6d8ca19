"""Rules: under which conditions a call goes another way, and which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Protocol

from .endpoint import endpoint_from
from .failover_options import RuleOptions, WhenOptions
from .options import EndpointOptions


class Facts(Protocol):
    """What conditions ask for: of the call, and of its pool. Asked for only if a condition wants it."""

    def method(self) -> str: ...
    def path(self) -> str | None: ...
    def header(self, name: str) -> str | None: ...
    def query(self, name: str) -> str | None: ...
    def fit_percent(self) -> float: ...  # of the pool's endpoints
    def error_rate(self, window: float) -> tuple[float, int]: ...  # percent, and of how many calls
    def in_flight(self) -> int: ...
    def time(self) -> float: ...  # Unix seconds


Condition = Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class Preference:
    """Where in its pool a call should go first."""

    priority: int | None = None
    url: str | None = None  # an endpoint's
    only: bool = False  # and its retries, whatever else is fit


@dataclass(frozen=True, slots=True)
class Rule:
    """All `conditions` hold: the call goes to another pool, or to a preferred part of its own."""

    label: str
    conditions: tuple[Condition, ...]
    pool: str | None = None
    preference: Preference | None = None


def decide(rules: Sequence[Rule], facts: Facts) -> Rule | None:
    """The first rule of which all conditions hold."""
    for rule in rules:
        if all(condition(facts) for condition in rule.conditions):
            return rule
    return None


def rules_from(
    options: Sequence[RuleOptions], maximum_in_flight: int | None, zone: Callable[[str], tzinfo]
) -> tuple[Rule, ...]:
    """The rules that `options` describe. `zone` finds a time zone by its name."""
    return tuple(_rule(number, one, maximum_in_flight, zone) for number, one in enumerate(options))


def windows(options: Sequence[RuleOptions]) -> frozenset[float]:
    """The lengths of time over which the error rate of the pool matters."""
    return frozenset(float(one.when.window) for one in options if one.when.error_rate_above is not None)


def _rule(number: int, options: RuleOptions, most: int | None, zone: Callable[[str], tzinfo]) -> Rule:
    preference = None
    url = None if options.use_endpoint is None else endpoint_from(EndpointOptions(url=options.use_endpoint)).url
    if options.use_pool is None:
        preference = Preference(options.use_priority, url, options.only)
    conditions = (*_of_the_clock(options.when, zone), *_of_the_call(options.when), *_of_the_pool(options.when, most))
    return Rule(options.name or str(number), conditions, options.use_pool, preference)


def _of_the_call(when: WhenOptions) -> Iterator[Condition]:
    if when.method:
        yield lambda facts: facts.method() in when.method
    if when.path:
        paths = tuple(map(Glob, when.path))
        yield lambda facts: any(path.matches(facts.path()) for path in paths)
    if when.header:
        headers = _globs(when.header)
        yield lambda facts: all(glob.matches(facts.header(name)) for name, glob in headers)
    if when.query:
        parameters = _globs(when.query)
        yield lambda facts: all(glob.matches(facts.query(name)) for name, glob in parameters)


def _globs(texts: Mapping[str, str]) -> tuple[tuple[str, Glob], ...]:
    return tuple((name, Glob(text)) for name, text in texts.items())


def _of_the_pool(when: WhenOptions, most: int | None) -> Iterator[Condition]:
    if (healthy := when.healthy_below) is not None:
        yield lambda facts: facts.fit_percent() < healthy
    if when.error_rate_above is not None:
        yield lambda facts: _fails(when, *facts.error_rate(when.window))
    if (load := when.load_above) is not None:
        limit = (most or 0) * load / 100
        yield lambda facts: facts.in_flight() > limit
    if (count := when.in_flight_above) is not None:
        yield lambda facts: facts.in_flight() > count


def _fails(when: WhenOptions, percent: float, calls: int) -> bool:
    return calls >= when.minimum_calls and when.error_rate_above is not None and percent > when.error_rate_above


def _of_the_clock(when: WhenOptions, zone: Callable[[str], tzinfo]) -> Iterator[Condition]:
    if when.between is None and not when.weekdays:
        return
    place, times, days = zone(when.timezone), when.between, when.weekdays
    yield lambda facts: on_time(datetime.fromtimestamp(facts.time(), place), times, days)


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def on_time(local: datetime, between: str | None, weekdays: Sequence[str]) -> bool:
    """Is it within `between`, the end excluded, on one of `weekdays`? What goes over midnight is of its first day."""
    day = local
    if between is not None:
        begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in between.split("-"))
        minute = local.hour * 60 + local.minute
        if not (begin <= minute < end if begin < end else minute >= begin or minute < end):
            return False
        if begin > end and minute < end:
            day = local - timedelta(days=1)
    return not weekdays or _DAYS[day.weekday()] in weekdays


class Glob:
    """A text in which `*` stands for any characters, none included. Looks at each character once, not as regexes do."""

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        self._parts = text.split("*")

    def matches(self, text: str | None) -> bool:
        """Is `text` like this? None is like nothing."""
        first, *middle = self._parts
        if text is None or not middle:
            return text == first
        last = middle.pop()
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for part in middle:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True
