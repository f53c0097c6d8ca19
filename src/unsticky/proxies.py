"""The proxies that the environment names, for hosts that are no pool's: calls over pools go straight to endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self
from urllib.request import getproxies

if TYPE_CHECKING:
    from .pools import Pools


def environment_proxies() -> dict[str, str | None]:
    """By URL pattern, as `mounts` has them: the proxy's URL; None: no proxy. Of HTTP_PROXY and its like, as httpx."""
    found = getproxies()
    proxies: dict[str, str | None] = {}
    for scheme in ("http", "https", "all"):
        if url := found.get(scheme):
            proxies[f"{scheme}://"] = url if "://" in url else f"http://{url}"
    excepted = [host.strip() for host in found.get("no", "").split(",")]
    if not proxies or "*" in excepted:
        return {}
    return proxies | {_pattern(host): None for host in excepted if host}


def _pattern(host: str) -> str:
    """For one of NO_PROXY: a name stands for those below it too."""
    if "://" in host:
        return host
    address = host.partition("/")[0]
    try:
        return f"all://{host}" if ip_address(address).version == 4 else f"all://[{address}]"
    except ValueError:
        return f"all://{host}" if host.lower() == "localhost" else f"all://*{host}"


def mounts(pools: Pools, pooled: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """For a client whose calls over pools are `pooled`'s, and whose transports have `options`."""
    kind, made = type(pooled), dict[str | None, Any]()
    proxies = environment_proxies()
    for proxy in filter(None, proxies.values()):
        made[proxy] = made.get(proxy) or UnlessPooled(pools, pooled, kind(pools, **{**options, "proxy": proxy}))
    return {pattern: made.get(proxy) for pattern, proxy in proxies.items()}


class UnlessPooled:
    """A transport for hosts that are no pool's, in threads or on event loops; what is a pool's goes to `pooled`."""

    def __init__(self, pools: Pools, pooled: Any, other: Any) -> None:
        """`other`: a transport like `pooled`, with connections of its own, which this one's owner closes with it."""
        self._pools = pools
        self._pooled = pooled
        self._other = other

    def _of(self, request: Any) -> Any:
        url = request.url
        return self._other if self._pools.find(url.scheme, url.host, url.port) is None else self._pooled

    def handle_request(self, request: Any) -> Any:
        return self._of(request).handle_request(request)

    async def handle_async_request(self, request: Any) -> Any:
        return await self._of(request).handle_async_request(request)

    def close(self) -> None:
        self._other.close()

    async def aclose(self) -> None:
        await self._other.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()
