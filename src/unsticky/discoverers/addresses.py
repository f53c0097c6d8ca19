"""From addresses that a name has to endpoints."""

from __future__ import annotations

from collections.abc import Iterable

from ..routing.call import Endpoint
from ..routing.discovery_options import DiscoveryOptions

_PORTS = {"http": 80, "https": 443}


def endpoints_at(addresses: Iterable[str], options: DiscoveryOptions) -> frozenset[Endpoint]:
    """One endpoint for each address."""
    port = options.port or _PORTS[options.scheme]
    return frozenset(endpoint_at(address, port, options) for address in addresses)


def endpoint_at(address: str, port: int, options: DiscoveryOptions, *, weight: int = 1, priority: int = 0) -> Endpoint:
    """Its Host header and its name for TLS are those of the name that was looked up."""
    host = f"[{address}]" if ":" in address else address
    return Endpoint.of(
        f"{options.scheme}://{host}:{port}",
        weight=weight,
        priority=priority,
        host=options.host or service(options.name),
    )


def service(name: str | None) -> str | None:
    """ "catalog.internal" of "_http._tcp.catalog.internal.": certificates are for the service's own name."""
    labels = (name or "").rstrip(".").split(".")
    return ".".join(label for label in labels if not label.startswith("_")) or None
