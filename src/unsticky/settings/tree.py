"""The tree itself: nothing but the options of the floors below, composed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from ..guard.options import StatelessnessOptions
from ..routing.hop_options import InboundOptions
from ..routing.options import PoolOptions
from ..routing.weight_options import ReportingOptions
from ..rules import HOST_NAME
from ..session.options import SessionOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set. Pools' names are in lower case, as host names in URLs are."""

    session: SessionOptions = field(default_factory=SessionOptions)
    pools: Annotated[
        Mapping[Annotated[str, HOST_NAME], PoolOptions],
        Meta(description="Pools by name; the name is the host of the URLs that the app calls."),
    ] = field(default_factory=dict)
    inbound: InboundOptions = field(default_factory=InboundOptions)
    load_report: ReportingOptions = field(default_factory=ReportingOptions)
    statelessness: StatelessnessOptions = field(default_factory=StatelessnessOptions)
    locality: Annotated[
        str | None,
        Meta(
            min_length=1,
            description="Where this process stands, such as a zone: endpoints there come first. Unset: "
            "UNSTICKY_LOCALITY.",
        ),
    ] = None
    client: Annotated[
        Literal["httpx", "httpx2"], Meta(description="The library of the clients that unsticky gives out.")
    ] = "httpx"
    wire: Annotated[
        Literal["default", "aiohttp"],
        Meta(
            description="What async clients send over: the client library's own connections, or those of aiohttp, "
            "which are faster."
        ),
    ] = "default"
