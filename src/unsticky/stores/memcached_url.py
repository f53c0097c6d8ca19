"""What the URL of a Memcached store says. Errors are ValueErrors that never show what could be a password."""

from __future__ import annotations

import re
from typing import NamedTuple

from .urls import split

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]@,:\s]+))(?::([0-9]{1,5}))?", re.ASCII)


class HostPort(NamedTuple):
    """A server's address, as sockets take it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def memcached_hosts(url: str) -> tuple[HostPort, ...]:
    """`memcached://a:11211,b,[::1]:11212`, or `memcached://` for localhost. Each host once."""
    parts = split(url)
    if "@" in parts.netloc:
        raise ValueError("the Memcached store knows no user and password (SASL): leave out what stands before the @")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("nothing stands after the hosts of a Memcached URL")
    hosts = (
        [_host(word) for word in parts.netloc.lower().split(",")] if parts.netloc else [HostPort("localhost", 11211)]
    )
    if len(set(hosts)) < len(hosts):
        raise ValueError("a host is listed twice")
    return tuple(hosts)


def _host(word: str) -> HostPort:
    found = _HOST.fullmatch(word)
    if found is None or int(found[3] or 1) not in range(1, 65536):
        raise ValueError('a Memcached URL lists its hosts by commas, such as "memcached://a:11211,b:11211"')
    return HostPort(found[1] or found[2], int(found[3] or 11211))
