"""What can be set about failures that are made up, to see what a program makes of real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..scalars import Duration

Abort = Literal[
    "connect", "timeout", "broken", 400, 401, 403, 404, 408, 409, 410, 413, 429, 500, 501, 502, 503, 504
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultOptions:
    """Attempts that fail or wait on purpose, as with Envoy's fault filter. Off unless a percentage is set."""

    abort_percent: Annotated[
        float, Meta(ge=0, le=100, description="Of the attempts: they are not sent, and fail as `abort` says.")
    ] = 0.0
    abort: Annotated[
        Abort,
        Meta(
            description="How: no connection, no answer in time (at once), a connection that breaks, or a response with "
            "this status and without a body."
        ),
    ] = 503
    delay_percent: Annotated[
        float, Meta(ge=0, le=100, description="Of the attempts: they wait for `delay` before they are sent, or fail.")
    ] = 0.0
    delay: Annotated[
        Duration | None, Meta(gt=0, description="How long. As long as the attempt may take, or more: it is late.")
    ] = None
    endpoints: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description='Attempts on these only, as host:port such as "10.0.0.1:8000". Empty: on all.'),
    ] = ()
