"""What can be set about where a pool's endpoints come from. See options.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ..rules import DISCOVERY, HOST_NAME, NAMESERVER, SRV_NAME
from ..scalars import Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryOptions:
    """Where endpoints come from, beside those that `endpoints` lists."""

    type: Annotated[
        str,
        DISCOVERY,
        Meta(
            description='"file"; "dns"; "module:attribute", a discovery of your own; "program": the program passes one '
            "to Pools."
        ),
    ]
    path: Annotated[
        str | None, Meta(min_length=1, description="file: a TOML or JSON file with a list `endpoints`.")
    ] = None
    name: Annotated[str | None, SRV_NAME, Meta(description="dns: what is looked up.")] = None
    port: Annotated[
        int | None, Meta(ge=1, le=65535, description="dns: the endpoints' port. Unset: the scheme's; SRV has its own.")
    ] = None
    scheme: Annotated[Literal["http", "https"], Meta(description="dns: how the endpoints are spoken to.")] = "http"
    record: Annotated[
        Literal["A", "AAAA", "both", "SRV"], Meta(description="dns: which records; both: A and AAAA.")
    ] = "A"
    host: Annotated[
        str | None,
        HOST_NAME,
        Meta(
            description="dns: what the Host header and TLS name. Unset: `name`, without its labels that begin with _."
        ),
    ] = None
    resolver: Annotated[
        Literal["dns", "system"] | None,
        Meta(
            description="dns: nameservers are asked (needs the extra dns), or the system's getaddrinfo, which knows no "
            "TTLs and no SRV. Unset: dns where the extra is installed."
        ),
    ] = None
    nameservers: Annotated[
        tuple[Annotated[str, NAMESERVER], ...],
        Meta(description="dns: addresses, with a port where it is not 53. Unset: those of /etc/resolv.conf."),
    ] = ()
    minimum_ttl: Annotated[Duration, Meta(gt=0, description="dns: shorter TTLs count as this.")] = Duration(1)
    maximum_ttl: Annotated[Duration, Meta(gt=0, description="dns: longer TTLs count as this.")] = Duration(300)
    interval: Annotated[
        Duration | None,
        Meta(gt=0, description="Between two looks, where no TTL says it. Unset: 1 s for a file, else 30 s."),
    ] = None
    timeout: Annotated[Duration, Meta(gt=0, description="Of one look.")] = Duration(5)
    first_wait: Annotated[
        Duration,
        Meta(description="From the first call on, how long calls wait for the first endpoints, if none are listed."),
    ] = Duration(5)
    allow_empty: Annotated[
        bool, Meta(description="True: an empty set counts. False: it is an error, and the last set stays.")
    ] = False
