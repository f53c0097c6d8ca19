"""What a session asks of the request that it belongs to. Hosts answer; each question only when it matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Any

from .token import Token, base64url

_AGENT_LENGTH = 256  # characters kept of a User-Agent


@dataclass(frozen=True, repr=False)
class OldSession:
    """A session that another library wrote, and that was authenticated: to be taken over, once."""

    values: Mapping[str, Any]
    mark: str  # what the client presented: a secret, of which only hashes leave this object
    until: float  # unix seconds: after that nothing is taken over any more
    # What tells clients apart. Cookies that hold the same, signed in the same second, are the same text: two visitors
    # who present one must not arrive at one session.
    client: str = ""

    @property
    def handle(self) -> str:
        """Of the session that takes its place: the same for requests in which one client presents it at once."""
        data = f"unsticky.old.handle:{self.mark}\0{self.client}".encode("utf-8", "surrogateescape")
        return base64url(sha256(data).digest()[:16])

    @property
    def marker(self) -> str:
        """The store's key of the record that says: it was taken over."""
        return "v1m:" + base64url(sha256(f"unsticky.old.marker:{self.mark}".encode()).digest())

    def __repr__(self) -> str:
        return "<OldSession>"


_TELLING = ("user-agent", "accept-language", "x-forwarded-for", "forwarded")


def client_of(header: Callable[[str], str | None], address: str | None) -> str:
    """What is known of a client, for OldSession."""
    return "\0".join([address or "", *(header(name) or "" for name in _TELLING)])


@dataclass(frozen=True, slots=True)
class Device:
    """What a list of devices shows of one: no more than its user can recognise."""

    agent: str
    network: str

    @classmethod
    def of(cls, agent: str | None, address: str | None) -> Device:
        """The address is coarse: the network of /24 (IPv4) or /48 (IPv6)."""
        return cls((agent or "").encode("utf-8", "replace").decode()[:_AGENT_LENGTH], _network(address))


def _network(address: str | None) -> str:
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:  # a Unix socket, a test client
        return ""
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(ip_network(f"{mapped}/{24 if mapped.version == 4 else 48}", strict=False))


class Inbound:
    """A request without a session. Hosts say more."""

    __slots__ = ()

    def token(self) -> Token | None:
        """The token that the client presented, if this app can have made it."""
        return None

    def old_session(self) -> OldSession | None:
        """The session of another library that it presented. May raise StoreError."""
        return None

    def device(self) -> Device:
        """For `metadata = true`."""
        return Device("", "")
