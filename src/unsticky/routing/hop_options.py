"""What can be set about deadlines and retries that cross services: how they come in, and how they go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import DEADLINE_HEADER, SENT_DEADLINE_HEADER
from ..scalars import Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundOptions:
    """What the requests that this app serves say, and what that means for their outbound calls over pools."""

    deadline_headers: Annotated[
        tuple[Annotated[str, DEADLINE_HEADER], ...],
        Meta(
            description="Headers that say how long the caller still waits; the shortest counts. grpc-timeout is in "
            "gRPC's format, NAME-ms in milliseconds, others in seconds; NAME:ms, NAME:s and NAME:grpc say otherwise."
        ),
    ] = ("grpc-timeout", "x-envoy-expected-rq-timeout-ms")
    timeout: Annotated[
        Duration | None, Meta(gt=0, description="Of each request that has no such header. Unset: it has no deadline.")
    ] = None
    maximum_timeout: Annotated[
        Duration | None, Meta(gt=0, description="The most that a header can ask for. Unset: as much as `timeout`.")
    ] = None
    reserve: Annotated[
        Duration, Meta(description="Kept back from outbound calls, for this app to answer within the deadline.")
    ] = Duration("10ms")
    reject_expired: Annotated[
        bool, Meta(description="Answer 504, without running the app, to requests whose deadline passed on the way.")
    ] = True
    cancel_on_disconnect: Annotated[
        bool, Meta(description="Cancel the outbound calls of a request whose client went away (ASGI).")
    ] = True
    retry_on_retry: Annotated[
        bool,
        Meta(
            description="Retry outbound calls of a request that is a retry itself; false: only those that could "
            "not connect."
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PropagateOptions:
    """What the attempts over a pool tell its endpoints."""

    deadline: Annotated[
        str,
        SENT_DEADLINE_HEADER,
        Meta(
            description="The header for the time that an attempt has, in the formats of [inbound] deadline_headers; "
            "off: none."
        ),
    ] = "x-envoy-expected-rq-timeout-ms"
    attempt: Annotated[
        Literal["x-envoy-attempt-count", "grpc-previous-rpc-attempts", "off"],
        Meta(description="The header of retries, and of calls for a request that is one, with their number."),
    ] = "x-envoy-attempt-count"
