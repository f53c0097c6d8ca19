"""What the URL of a Redis or Valkey store says. Errors are ValueErrors that never show a password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import SplitResult, parse_qsl, unquote

from ..scalars import Secret
from .urls import nearest, split

Kind = Literal["single", "sentinel", "cluster"]

_TLS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")
_ALL = ("client_name", "password", "username", "wait_replicas", *_TLS)
_OPTIONS: dict[Kind, tuple[str, ...]] = {
    "single": ("db", *_ALL),
    "sentinel": ("db", "sentinel_password", "sentinel_tls", "sentinel_username", *_ALL),
    "cluster": _ALL,
}
_CHOICES = {
    "ssl_cert_reqs": ("none", "optional", "required"),
    "ssl_check_hostname": ("no", "yes"),
    "sentinel_tls": ("no", "yes"),
}
_HOST = re.compile(r"(\[[^\[\]@,]+\]|[^\[\]@,:]*)(?::(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """Where Redis or Valkey servers are, and who we are there."""

    addresses: tuple[tuple[str, int], ...] = (("localhost", 6379),)  # of sentinels; of some servers of a cluster
    kind: Kind = "single"
    primary: str = ""  # its name, as the sentinels know it
    db: int = 0
    username: str | None = None
    password: Secret | None = None
    client_name: str | None = None
    tls: bool = False
    tls_options: Mapping[str, str] = field(default_factory=dict)
    sentinel_username: str | None = None
    sentinel_password: Secret | None = None
    sentinel_tls: bool = False
    wait_replicas: int = 0  # how many must have a write before it counts


def redis_target(url: str) -> RedisTarget:
    """`redis://user:password@host:6379/0?client_name=shop`; `rediss` and `valkeys` speak TLS.

    `redis+sentinel://user:password@host1:26379,host2/PRIMARY/0?sentinel_password=x`, and `redis+cluster://host1,host2`.
    """
    parts = split(url)
    server, _, suffix = parts.scheme.partition("+")
    kind = cast(Kind, suffix or "single")
    options = _options(parts, kind)
    tls = server in ("rediss", "valkeys")
    tls_options = {name: value for name, value in options.items() if name in _TLS}
    if tls_options and not tls:
        raise ValueError(f'"{min(tls_options)}" needs TLS: the URL begins with "{_secure(parts.scheme)}://"')
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    primary, database = _path(parts.path, kind)
    return RedisTarget(
        addresses=_addresses(hosts, kind),
        kind=kind,
        primary=primary,
        db=_number(database or options.get("db", "0"), _DB),
        username=unquote(username) or options.get("username") or None,
        password=_secret(unquote(password) or options.get("password")),
        client_name=options.get("client_name"),
        tls=tls,
        tls_options=tls_options,
        sentinel_username=options.get("sentinel_username") or None,
        sentinel_password=_secret(options.get("sentinel_password")),
        sentinel_tls=kind == "sentinel" and tls and options.get("sentinel_tls") != "no",
        wait_replicas=_number(options.get("wait_replicas", "0"), '"wait_replicas" is a number of servers'),
    )


_DB = "the database after the host is a number, such as redis://localhost:6379/0"


def _secure(scheme: str) -> str:
    server, plus, suffix = scheme.partition("+")
    return f"{server}s{plus}{suffix}"


def _secret(text: str | None) -> Secret | None:
    return Secret(text) if text else None


def _options(parts: SplitResult, kind: Kind) -> dict[str, str]:
    if parts.fragment:
        raise ValueError('a "#" in a password is written "%23"')
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in options.items():
        if name not in _OPTIONS[kind]:
            raise ValueError(f'unknown option "{name}"{nearest(name, _OPTIONS[kind])}')
        if value not in _CHOICES.get(name, (value,)):
            raise ValueError(f'"{name}" is one of {", ".join(_CHOICES[name])}')
    return options


def _path(path: str, kind: Kind) -> tuple[str, str]:
    """Name of the primary, and database."""
    words = [unquote(word) for word in path.removeprefix("/").split("/")]
    if kind == "single":
        return "", "/".join(words)
    if kind == "cluster":
        if words != [""]:
            raise ValueError("a cluster has no databases: nothing stands after its hosts")
        return "", ""
    if not words[0] or len(words) > 2:
        raise ValueError("the name of the primary follows the sentinels, such as redis+sentinel://a,b/mymaster/0")
    return words[0], words[1] if len(words) == 2 else ""


def _addresses(hosts: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    hosts = hosts.replace("%5B", "[").replace("%5D", "]")
    named = hosts.split(",") if kind != "single" else [hosts]
    if kind != "single" and not all(named):
        raise ValueError("name the hosts, with a comma between them: host1:port,host2:port")
    return tuple(_address(one, 26379 if kind == "sentinel" else 6379) for one in named)


def _address(text: str, usual: int) -> tuple[str, int]:
    """What stands after the last colon is not shown: perhaps it is a password with a "/" in it."""
    match = _HOST.fullmatch(text)
    port = int(match[2] or usual) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError('the port is not a number up to 65535 (a "/" in a password is written "%2F")')
    return unquote(match[1].strip("[]")) or "localhost", port


def _number(text: str, otherwise: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(otherwise)
    return int(text)
