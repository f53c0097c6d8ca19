"""What a store's URL says, read without any driver. Errors are ValueErrors that never show a password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..scalars import Secret

_TLS_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile")
_REDIS_OPTIONS = ("client_name", "db", "password", "username", *_TLS_OPTIONS)
_CERT_REQS = ("none", "optional", "required")


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """Where a Redis or Valkey server is, and who we are there."""

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: Secret | None = None
    client_name: str | None = None
    tls: bool = False
    tls_options: Mapping[str, str] = field(default_factory=dict)


def split(url: str) -> SplitResult:
    """The URL's parts. Raises ValueError."""
    try:
        return urlsplit(url)
    except ValueError:  # its text can hold a part of the URL that is a password
        raise ValueError("the URL can't be read: check its host and brackets") from None


def nearest(name: str, known: tuple[str, ...]) -> str:
    """`, did you mean "x"?` or nothing."""
    close = get_close_matches(name, known, 1)
    return f', did you mean "{close[0]}"?' if close else ""


def sqlite_path(url: str) -> str:
    """`sqlite:///relative.db` -> `relative.db`, `sqlite:////srv/absolute.db` -> `/srv/absolute.db`."""
    parts = split(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc:
        raise ValueError('a SQLite URL has three slashes, "sqlite:///relative.db", or four for an absolute path')
    if parts.query or parts.fragment:
        raise ValueError("a SQLite URL takes no options")
    if path == ":memory:":
        raise ValueError('each connection would have a ":memory:" database of its own; use "memory://" (in tests)')
    if not path or path.endswith("/") or "\0" in path:
        raise ValueError('a SQLite URL names a file, such as "sqlite:///sessions.db"')
    return path


def memory_name(url: str) -> str:
    """`memory://` -> ``, `memory://carts` -> `carts`."""
    parts = split(url)
    if parts.path or parts.query or parts.fragment:
        raise ValueError('a memory URL is "memory://", or "memory://NAME" to share within the process')
    return parts.netloc


def redis_target(url: str) -> RedisTarget:
    """`redis://user:password@host:6379/0?client_name=shop`; `rediss` and `valkeys` speak TLS."""
    parts = split(url)
    options = _redis_options(parts)
    tls = parts.scheme in ("rediss", "valkeys")
    tls_options = {name: value for name, value in options.items() if name in _TLS_OPTIONS}
    if tls_options and not tls:
        raise ValueError(f'"{min(tls_options)}" needs TLS: write "rediss://" or "valkeys://"')
    if tls_options.get("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise ValueError(f'"ssl_cert_reqs" is one of {", ".join(_CERT_REQS)}')
    password = unquote(parts.password) if parts.password else options.get("password")
    return RedisTarget(
        host=unquote(parts.hostname or "localhost"),
        port=_port(parts),
        db=_db(parts.path.removeprefix("/") or options.get("db", "0")),
        username=(unquote(parts.username) if parts.username else options.get("username")) or None,
        password=Secret(password) if password else None,
        client_name=options.get("client_name"),
        tls=tls,
        tls_options=tls_options,
    )


def _redis_options(parts: SplitResult) -> dict[str, str]:
    if parts.fragment:
        raise ValueError('a "#" in a password is written "%23"')
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _REDIS_OPTIONS:
            raise ValueError(f'unknown option "{name}"{nearest(name, _REDIS_OPTIONS)}')
    return options


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or 6379
    except ValueError:  # its text shows what stands after the last colon: perhaps a password with a "/" in it
        raise ValueError('the port is not a number up to 65535 (a "/" in a password is written "%2F")') from None


def _db(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("the database after the host is a number, such as redis://localhost:6379/0")
    return int(text)
