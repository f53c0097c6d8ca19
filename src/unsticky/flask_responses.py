"""What a session does to a Flask response, by the shortest way: it is done at every request that uses one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from flask import Response
from werkzeug.http import dump_cookie

from .session.cookie import uncached


def answer(response: Response, status: int, body: bytes) -> None:
    """Turn `response` into another one in place: after the view and its hooks, no other can take its place."""
    close = getattr(response.response, "close", None)
    if close is not None:
        close()
    response.direct_passthrough = False
    response.headers.clear()
    response.status_code = status
    response.mimetype = "text/plain"
    response.set_data(body)
    response.headers["Cache-Control"] = "no-store"


def vary_on(response: Response, header: str) -> None:
    """The response depends on that header of the request."""
    if "vary" in _names(response):
        response.vary.add(header)
    else:  # the usual case, without Werkzeug's set of headers
        response.headers.add("Vary", header)


def forbid_caching(response: Response) -> None:
    """It sets a cookie: no shared cache may keep it."""
    if "cache-control" in _names(response):
        response.headers["Cache-Control"] = uncached(response.headers["Cache-Control"])
    else:
        response.headers.add("Cache-Control", "no-store")


def cookie_text(name: str, token: str, expires: datetime | None, attributes: Mapping[str, Any]) -> str:
    """As `Response.set_cookie` writes it; a token needs no quotes."""
    until = None if expires is None else expires.replace(microsecond=0)
    return f"{name}={token}{_behind(until, *attributes.items())}"


@lru_cache(maxsize=64)  # the cookies of one second differ in nothing else
def _behind(expires: datetime | None, *attributes: tuple[str, Any]) -> str:
    """All that follows a cookie's value."""
    return dump_cookie("name", "value", expires=expires, **dict(attributes)).removeprefix("name=value")


def _names(response: Response) -> set[str]:
    """Werkzeug's own `in` makes an exception of each header that is not there, with an HTTP response in it."""
    return {name.lower() for name, _ in response.headers}
