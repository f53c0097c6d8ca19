"""What can be set about other ways for a call: rules, before it is sent, and fallbacks, when it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import (
    ANSWER_HEADER,
    CLOCK_TIMES,
    HEADER_NAME,
    HEADER_VALUE,
    HOST_NAME,
    METHOD,
    ORIGIN,
    PATH_PATTERN,
    PATTERN,
    QUERY_NAME,
    OneOrMore,
)
from ..scalars import Duration
from .fitness_options import FinalStatus

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Pattern = Annotated[str, PATTERN]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhenOptions:
    """When a rule holds: all that is given must. In texts, `*` stands for any characters."""

    method: Annotated[
        tuple[Annotated[str, METHOD], ...], OneOrMore(), Meta(description="The call's method is one of these.")
    ] = ()
    path: Annotated[
        tuple[Annotated[str, PATH_PATTERN], ...],
        OneOrMore(),
        Meta(description='The path as it is sent, without the query, is like one of these: "/reports/*".'),
    ] = ()
    header: Annotated[
        Mapping[Annotated[str, HEADER_NAME], Pattern],
        Meta(description='Each of these headers of the call is there, and like this: { x-tenant = "big-*" }.'),
    ] = default(default_factory=dict)
    query: Annotated[
        Mapping[Annotated[str, QUERY_NAME], Pattern],
        Meta(description="The same of query parameters, by their first value."),
    ] = default(default_factory=dict)
    healthy_below: Annotated[
        float | None, Meta(gt=0, le=100, description="Less than this percentage of the pool's endpoints are fit.")
    ] = None
    error_rate_above: Annotated[
        float | None,
        Meta(ge=0, le=100, description="More than this percentage of the pool's own calls failed, or ended with 5xx."),
    ] = None
    window: Annotated[Duration, Meta(gt=0, description="The time that `error_rate_above` looks at.")] = Duration(10)
    minimum_calls: Annotated[
        int, Meta(ge=1, description="With fewer calls in the `window`, `error_rate_above` does not hold.")
    ] = 20
    load_above: Annotated[
        float | None,
        Meta(ge=0, le=100, description="More than this percentage of `limits.maximum_in_flight` are in flight."),
    ] = None
    in_flight_above: Annotated[
        int | None, Meta(ge=0, description="More than this number of the pool's calls are in flight.")
    ] = None
    between: Annotated[
        str | None,
        CLOCK_TIMES,
        Meta(description='Time of day, the end excluded: "22:00-06:00" goes over midnight.'),
    ] = None
    weekdays: Annotated[
        tuple[Weekday, ...],
        OneOrMore(),
        Meta(description="It is one of these days; with `between`, it was when that began."),
    ] = ()
    timezone: Annotated[
        str, Meta(min_length=1, description='What `between` and `weekdays` mean: "UTC", "Europe/Berlin".')
    ] = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOptions:
    """A rule: when its conditions hold, calls go another way. The first of a pool's rules that holds counts."""

    when: WhenOptions
    name: Annotated[str | None, Meta(min_length=1, description="For traces and metrics. Unset: its number.")] = None
    use_pool: Annotated[str | None, HOST_NAME, Meta(description="Call this pool instead; its own rules hold then.")] = (
        None
    )
    use_priority: Annotated[
        int | None, Meta(ge=0, le=127, description="Begin on this priority level, if an endpoint there is fit.")
    ] = None
    use_endpoint: Annotated[
        str | None, ORIGIN, Meta(description="Begin with this endpoint of the pool, if it is fit.")
    ] = None
    only: Annotated[
        bool, Meta(description="True: retries stay on that level or endpoint, and so does the call if none is fit.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackOptions:
    """What is done when a call failed for good: another pool, or an answer of its own."""

    pool: Annotated[str | None, HOST_NAME, Meta(description="Call this pool instead, in the time that is left.")] = None
    status: Annotated[FinalStatus | None, Meta(description="Answer with this status instead.")] = None
    headers: Annotated[
        Mapping[Annotated[str, ANSWER_HEADER], Annotated[str, HEADER_VALUE]],
        Meta(description="Headers of that answer."),
    ] = default(default_factory=dict)
    body: Annotated[str | None, Meta(description="Its body, a text.")] = None
    json: Annotated[
        str | None, Meta(description="Its body, as JSON, and the Content-Type to it: '{\"items\": []}'.")
    ] = None
    statuses: Annotated[
        frozenset[FinalStatus], Meta(description="Statuses of a last response that count as failed, too.")
    ] = frozenset()
    methods: Annotated[
        frozenset[Annotated[str, METHOD]] | None,
        Meta(
            description="Methods that have the fallback. Unset: all of them; but to another pool only idempotent ones, "
            "and others if nothing was sent."
        ),
    ] = None
