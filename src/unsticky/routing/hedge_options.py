"""What can be set about attempts beside a slow one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ..scalars import Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeOptions:
    """When another attempt begins beside a slow one, on event loops only. Off unless `after` or `quantile` is set."""

    after: Annotated[
        Duration | None,
        Meta(gt=0, description="An attempt without response headers for so long is hedged. Unset: see quantile."),
    ] = None
    quantile: Annotated[
        float | None,
        Meta(
            ge=0.5,
            le=0.999,
            description="Such as 0.95: an attempt is hedged that is slower than so many of the pool's own. Until there "
            "are minimum_samples, `after` counts. Unset: always `after`.",
        ),
    ] = None
    window: Annotated[Duration, Meta(gt=0, description="How far back the pool's own latencies count.")] = Duration(30)
    minimum_samples: Annotated[int, Meta(ge=1, description="Latencies that a quantile needs.")] = 100
    maximum: Annotated[
        int, Meta(ge=1, le=10, description="Hedges of one call. They count as attempts, and spend the retry budget.")
    ] = 1
