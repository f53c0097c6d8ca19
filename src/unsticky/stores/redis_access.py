"""Who we are to a Redis server, and whom we trust: credentials, what is asked at first, and TLS."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StoreError
from .redis_resp import ErrorReply, nonsense, pack, refusal
from .redis_route import Node
from .redis_url import RedisTarget

_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_log = logging.getLogger("unsticky.stores")


@dataclass(frozen=True, slots=True)
class Line:
    """A part of the greeting. What is `asked` must not be refused; the rest is good to know."""

    packed: bytes
    asked: bool = True
    secret: bool = False


class Access:
    """Who we are, and whom we trust, for every server that one URL leads to."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._context: ssl.SSLContext | None = None
        self._inspected: set[Node] = set()

    def greeting(self, node: Node) -> list[Line]:
        """What is said first, in one write."""
        target = self._target
        if node.sentinel:
            return _credentials(target.sentinel_username, target.sentinel_password)
        lines = _credentials(target.username, target.password)
        if target.db:
            lines.append(Line(pack("SELECT", target.db)))
        if target.client_name:
            lines.append(Line(pack("CLIENT", "SETNAME", target.client_name)))
        if node not in self._inspected:
            lines.append(Line(pack("INFO", "memory"), asked=False))
        return lines

    def greeted(self, node: Node, lines: Sequence[Line], replies: Sequence[Any]) -> None:
        """Judge the replies to a greeting. Raises StoreError."""
        if len(lines) != len(replies):
            raise nonsense()
        for line, reply in zip(lines, replies, strict=True):
            if line.asked and type(reply) is ErrorReply:
                if line.secret:
                    raise StoreError("Redis store: the server refused our name or password")
                raise refusal(reply.code)
            if not line.asked:
                self._inspected.add(node)
                _warn_of_eviction(reply)

    def tls(self, node: Node) -> ssl.SSLContext | None:
        """None: plain TCP. The files are read at first use. Raises StoreError."""
        if not (self._target.sentinel_tls if node.sentinel else self._target.tls):
            return None
        if self._context is None:
            try:
                self._context = _context(self._target.tls_options)
            except (OSError, ValueError) as error:  # SSLError is an OSError
                name = type(error).__name__
                raise StoreError(f"Redis store: a file of the TLS options can't be used ({name})") from error
        return self._context


def _credentials(username: str | None, password: str | None) -> list[Line]:
    if password is None:
        return []
    words = ["AUTH", password] if username is None else ["AUTH", username, password]
    return [Line(pack(*map(str, words)), secret=True)]


def _context(options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    verify = options.get("ssl_cert_reqs", "required")
    context.check_hostname = verify != "none" and options.get("ssl_check_hostname", "yes") == "yes"
    context.verify_mode = _VERIFY[verify]
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context


def _warn_of_eviction(reply: Any) -> None:
    """All sessions have an expiry, so every policy but one may drop them. INFO may be forbidden: then we don't know."""
    _, found, rest = reply.partition(b"\nmaxmemory_policy:") if type(reply) is bytes else (b"", b"", b"")
    policy = rest.split(b"\r", 1)[0]
    if found and policy != b"noeviction":
        _log.warning(
            'Redis store: the server has maxmemory-policy "%s": short of memory, it drops sessions of users who are '
            'logged in. Set it to "noeviction"',
            policy.decode(errors="replace"),
        )
