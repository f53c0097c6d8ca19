"""What can be set about attempts after the first: which failures are tried again, when, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import HEADER_NAME, METHOD, Shorthand
from ..scalars import Duration
from .fitness_options import FinalStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetHeaderOptions:
    """A response header that says when a rate limit lets more calls in. May also be written as the text of `name`."""

    name: Annotated[str, HEADER_NAME, Meta(description="Such as X-RateLimit-Reset.")]
    format: Annotated[
        Literal["seconds", "unix_timestamp"], Meta(description="Seconds from now, or the Unix time when it is over.")
    ] = "seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """When a failed attempt is tried again, on another endpoint."""

    attempts: Annotated[int, Meta(ge=1, description="In all, the first included; 1 turns retries off.")] = 3
    attempt_timeout: Annotated[
        Duration | None, Meta(gt=0, description="Of one attempt, up to its response headers.")
    ] = None
    # Envoy's gateway-error set, and 429, which says itself that later is better.
    statuses: Annotated[frozenset[FinalStatus], Meta(description="Statuses that are tried again.")] = frozenset(
        {429, 502, 503, 504}
    )
    methods: Annotated[
        frozenset[Annotated[str, METHOD]],
        Meta(description="Methods that are tried again after something was sent (RFC 9110 9.2.2)."),
    ] = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
    idempotency_key: Annotated[
        bool,
        Meta(description="Requests with an Idempotency-Key header are tried again as well, whatever their method."),
    ] = True
    buffer_body: Annotated[
        int,
        Meta(
            ge=0,
            description="Bytes of a good response's body that are read before it is handed out, so that one which "
            "breaks off is tried again; a longer body is handed out as it comes. 0: none.",
        ),
    ] = 0
    backoff: Annotated[
        Duration, Meta(description="Before the nth retry: full jitter over [0, (2^n - 1) * backoff], as Envoy's.")
    ] = Duration("25ms")
    maximum_backoff: Annotated[Duration, Meta(description="The longest such wait.")] = Duration("250ms")
    maximum_retry_after: Annotated[
        Duration,
        Meta(
            description="Retry-After and the like are obeyed up to this; a longer one ends the call with the response "
            "as it is."
        ),
    ] = Duration(5)
    reset_headers: Annotated[
        tuple[Annotated[ResetHeaderOptions, Shorthand("name")], ...],
        Meta(description="Headers that are obeyed where Retry-After is missing; the first that can be read counts."),
    ] = ()
    budget_ratio: Annotated[
        float, Meta(ge=0, le=1000, description="Retries per call, over the last 10 s (Finagle's RetryBudget).")
    ] = 0.2
    budget_per_second: Annotated[
        float, Meta(ge=0, le=1_000_000, description="Retries per second that are allowed however few calls there are.")
    ] = 10.0
