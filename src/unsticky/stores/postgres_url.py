"""What a PostgreSQL URL says, read without the driver. Errors are ValueErrors that never show a password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote

from ..scalars import Secret
from .urls import nearest, split

_OURS = ("pool_size", "pooler", "schema", "synchronous_commit", "table")
# libpq's own, but for those that would change what we rely on (client_encoding, replication) or that can't hold here:
# we split lists of hosts ourselves, to give each its share of the deadline.
_LIBPQ = (
    "application_name channel_binding connect_timeout dbname gssdelegation gssencmode gsslib host hostaddr keepalives "
    "keepalives_count keepalives_idle keepalives_interval krbsrvname max_protocol_version min_protocol_version "
    "oauth_client_id oauth_client_secret oauth_issuer oauth_scope options passfile password port require_auth "
    "requirepeer service ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl "
    "sslcrldir sslkey sslmode sslnegotiation sslpassword sslrootcert sslsni target_session_attrs tcp_user_timeout user"
).split()
_COMMITS = ("local", "off", "on", "remote_apply", "remote_write")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}", re.ASCII)  # the names of indexes are made of the table's


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    """Where a PostgreSQL server is, who we are there, and which table is ours."""

    libpq: Mapping[str, str] = field(default_factory=dict, repr=False)  # keywords but the password; other secrets too
    password: Secret | None = None
    schema: str | None = None  # None: as the role's search_path says
    table: str = "unsticky_sessions"
    synchronous_commit: str | None = None  # None: as the server, the database or the role is set
    pool_size: int = 10  # connections of one process's threads, and of each event loop
    shared_sessions: bool = False  # a pooler in transaction mode is between: nothing may outlive a statement


def postgres_target(url: str) -> PostgresTarget:
    """`postgresql://user:password@host:5432/database?schema=web&sslmode=verify-full`; several hosts by commas."""
    parts = split(url)
    options = _options(parts)
    ours = {name: options.pop(name) for name in _OURS if name in options}
    libpq = {**_address(parts), **options}
    password = libpq.pop("password", "")
    if libpq.pop("ssl", None):
        libpq.setdefault("sslmode", "require")
    _check_hosts(libpq)
    shared = _one_of("pooler", ours.get("pooler", "session"), ("session", "transaction")) == "transaction"
    commit = ours.get("synchronous_commit")
    if commit is not None and shared:
        raise ValueError('"synchronous_commit" can\'t be set through a pooler: ALTER ROLE ... SET synchronous_commit')
    return PostgresTarget(
        libpq=libpq,
        password=Secret(password) if password else None,
        schema=_name("schema", ours["schema"]) if "schema" in ours else None,
        table=_name("table", ours.get("table", "unsticky_sessions")),
        synchronous_commit=_one_of("synchronous_commit", commit, _COMMITS) if commit is not None else None,
        pool_size=_pool_size(ours.get("pool_size", "10")),
        shared_sessions=shared,
    )


def _options(parts: SplitResult) -> dict[str, str]:
    """As libpq reads them: a plus is a plus."""
    if parts.fragment:
        raise ValueError('a "#" in a password is written "%23"')
    pairs = [pair.partition("=") for pair in parts.query.split("&") if pair]
    options = {unquote(name): unquote(value) for name, _, value in pairs}
    known = (*_OURS, *_LIBPQ)
    for name in options:
        if name not in known and (name, options[name]) != ("ssl", "true"):
            raise ValueError(f'unknown option "{name}"{nearest(name, known)}')
    if any("\0" in value for value in options.values()):
        raise ValueError('an option holds "%00"')
    return options


def _address(parts: SplitResult) -> dict[str, str]:
    identity, _, places = parts.netloc.rpartition("@")
    if "@" in identity:
        raise ValueError('a "@" in a password is written "%40"')
    user, _, password = identity.partition(":")
    found = [_place(place) for place in places.split(",")]
    values = {
        "user": unquote(user),
        "password": unquote(password),
        "host": ",".join(host for host, _ in found),
        "port": ",".join(port for _, port in found),
        "dbname": unquote(parts.path.removeprefix("/")),
    }
    return {name: value for name, value in values.items() if value.strip(",")}


def _place(text: str) -> tuple[str, str]:
    """Host and port, each perhaps empty. No error shows them: they may be a piece of a password with a "/" in it."""
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError('the port is not a number up to 65535 (a "/" in a password is written "%2F")')
    return unquote(host.removeprefix("[").removesuffix("]")), port


def _check_hosts(libpq: Mapping[str, str]) -> None:
    counts = [libpq[name].count(",") for name in ("host", "hostaddr") if name in libpq]
    if len(set(counts)) > 1 or libpq.get("port", "").count(",") not in (0, *counts):
        raise ValueError("the URL names another number of hosts than of addresses or ports")


def _name(option: str, text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f'"{option}" is a name of letters, digits and "_", at most 48 characters')
    return text


def _one_of(option: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise ValueError(f'"{option}" is one of {", ".join(known)}')
    return text


def _pool_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1000):
        raise ValueError('"pool_size" is a number from 1 to 1000')
    return int(text)
