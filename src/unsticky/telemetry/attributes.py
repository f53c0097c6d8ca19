"""What spans and metrics say of an attempt: names, and values without secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from ..routing.call import Endpoint

METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_PORTS = {"http": 80, "https": 443}

_USER = re.compile(r"(?<=://)[^/?#@]*@")
_SIGNATURES = re.compile(
    r"(?<=[?&])(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&#]*"
)

Attributes = dict[str, str | int | float | bool]


@dataclass(slots=True)
class Traced:
    """What spans say of one attempt. `url` is absolute; `host` is the Host header that is sent.

    Made anew for each attempt, so that it is not frozen: see `routing.call`.
    """

    pool: str
    method: str
    url: str
    host: str
    resend_count: int  # 0 for the first time that this request is sent
    rule: str | None = None  # the rule that sent the call there
    hedge: bool = False  # sent beside another attempt


def attributes_of(traced: Traced, endpoint: Endpoint) -> tuple[Attributes, Attributes]:
    """Of the span, all at its creation because samplers decide by them, and of the metric."""
    url = traced.url
    fixed, metric = _fixed(
        traced.pool, traced.method, url[:5], traced.host,
        endpoint.url, endpoint.address, endpoint.priority, endpoint.locality,
    )  # fmt: skip
    span = {**fixed, "url.full": redacted(url)}
    if traced.resend_count:
        span["http.request.resend_count"] = traced.resend_count
    if traced.hedge:
        span["unsticky.hedge"] = True
    if traced.rule is not None:
        span["unsticky.rule"] = traced.rule
    return span, metric


@lru_cache(maxsize=4096)
def _fixed(
    pool: str, method: str, scheme: str, host: str, url: str, address: str, priority: int, locality: str | None
) -> tuple[Attributes, Attributes]:
    """What is the same for all such attempts. Nobody changes them. Of an endpoint its fields, whose hashes are kept."""
    known = method if method in METHODS else "_OTHER"
    server_address, server_port = server(scheme.partition(":")[0], host)
    peer, peer_port = server(url.partition("://")[0], address)
    metric: Attributes = {
        "http.request.method": known,
        "server.address": server_address,
        "server.port": server_port,
    }
    span: Attributes = {
        **metric,
        "network.peer.address": peer,
        "network.peer.port": peer_port,
        "peer.service": pool,
        "unsticky.pool": pool,
        "unsticky.endpoint": address,
    }
    if known == "_OTHER":
        span["http.request.method_original"] = method
    if priority:
        span["unsticky.endpoint.priority"] = priority
    if locality is not None:
        span["unsticky.endpoint.locality"] = locality
    return span, metric


def standard_method(method: str) -> str:
    """`method`, or "_OTHER" if it is none of those that everybody has: what a program makes up may be anything."""
    return method if method in METHODS else "_OTHER"


def redacted(url: str) -> str:
    """`url` without user, password and the values of signature parameters."""
    if "@" in url:
        url = _USER.sub("REDACTED:REDACTED@", url)
    return _SIGNATURES.sub(r"\1=REDACTED", url) if "?" in url else url


def qualified_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@lru_cache(maxsize=4096)
def server(scheme: str, authority: str) -> tuple[str, int]:
    """Host without brackets, and port, of a Host header."""
    try:
        parts = urlsplit(f"//{authority}")
        return parts.hostname or authority, parts.port or _PORTS.get(scheme, 0)
    except ValueError:  # the caller's own Host header may be anything
        return authority, _PORTS.get(scheme, 0)
