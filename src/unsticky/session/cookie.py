"""Set-Cookie, and the headers that a response with a session owes to caches. For hosts without an own cookie writer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from .commit import Committed, Cookie
from .options import CookieOptions
from .policy import Lifetime
from .token import Token, TokenSigner

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieFormat:
    """A cookie's name and attributes. `max_age` is in seconds; None: until the browser closes."""

    name: str = "session"
    path: str = "/"
    domain: str | None = None
    secure: bool = False
    http_only: bool = True
    same_site: Literal["lax", "strict", "none"] = "lax"
    partitioned: bool = False
    max_age: int | None = None

    @classmethod
    def of(cls, options: CookieOptions, lifetime: Lifetime) -> CookieFormat:
        """What the options set, and Starlette's defaults for the rest."""
        names = ("name", "path", "domain", "secure", "http_only", "same_site", "partitioned")
        chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
        return cls(**chosen, max_age=cookie_age(lifetime))

    def set(self, value: str) -> str:
        """The Set-Cookie header's value, in the order that Starlette writes it."""
        age = f"Max-Age={self.max_age}; " if self.max_age is not None else ""
        return f"{self.name}={value}; path={self.path}; {age}{self._flags()}"

    def delete(self) -> str:
        """The same cookie, ended: browsers ignore a deletion whose attributes differ from the cookie's."""
        return f"{self.name}=null; path={self.path}; expires=Thu, 01 Jan 1970 00:00:00 GMT; {self._flags()}"

    def _flags(self) -> str:
        flags = ["httponly"] if self.http_only else []
        flags.append(f"samesite={self.same_site}")
        if self.secure:
            flags.append("secure")
        if self.domain is not None:
            flags.append(f"domain={self.domain}")
        if self.partitioned:
            flags.append("partitioned")
        return "; ".join(flags)


def set_cookie(committed: Committed, form: CookieFormat, signer: TokenSigner) -> str | None:
    """The Set-Cookie header's value that a commit asks for."""
    if isinstance(committed.cookie, Token):
        return form.set(signer.dumps(committed.cookie))
    if committed.cookie is Cookie.DELETE:
        return form.delete()
    if committed.cookie is Cookie.REFRESH and committed.token is not None and form.max_age is not None:
        return form.set(signer.dumps(committed.token))
    return None


def with_session_headers(headers: Headers, cookie: str | None, *, accessed: bool) -> Headers:
    """A response's headers with what they owe to caches, and the cookie if there is one."""
    if not accessed and cookie is None:
        return headers
    headers = _rewritten(headers, "Vary", vary_on_cookie)
    if cookie is not None:
        headers = [*_rewritten(headers, "Cache-Control", uncached), ("Set-Cookie", cookie)]
    return headers


def _rewritten(headers: Headers, name: str, rewrite: Callable[[str | None], str]) -> Headers:
    values = [value for key, value in headers if key.lower() == name.lower()]
    others = [(key, value) for key, value in headers if key.lower() != name.lower()]
    return [*others, (name, rewrite(", ".join(values) if values else None))]


def cookie_age(lifetime: Lifetime) -> int:
    """Max-Age in seconds: rounded up, and longer by what a touch may lag behind."""
    return ceil(lifetime.idle + (lifetime.touch_interval if lifetime.idle > 0 else 0))


def cookie_values(headers: Iterable[str], name: str) -> list[str]:
    """Every value that the Cookie headers hold under `name`: duplicates too, for they may disagree."""
    values = []
    for header in headers:
        for pair in header.split(";"):
            key, found, value = pair.partition("=")
            if found and key.strip() == name:
                values.append(value.strip().strip('"'))
    return values


class InboundCookies(Mapping[str, str]):
    """A request's cookies, parsed when somebody asks for one. Of duplicates the first counts."""

    def __init__(self, headers: Callable[[], Iterable[str]]) -> None:
        self._headers = headers

    def _pairs(self) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for header in self._headers():
            for pair in header.split(";"):
                key, found, value = pair.partition("=")
                if found:
                    pairs.setdefault(key.strip(), value.strip().strip('"'))
        return pairs

    def __getitem__(self, name: str) -> str:
        return self._pairs()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs())

    def __len__(self) -> int:
        return len(self._pairs())


def vary_on_cookie(vary: str | None) -> str:
    """A Vary header's value with Cookie in it, once."""
    names = [name.strip() for name in (vary or "").split(",") if name.strip()]
    if "*" in names or any(name.lower() == "cookie" for name in names):
        return ", ".join(names)
    return ", ".join([*names, "Cookie"])


def uncached(cache_control: str | None) -> str:
    """A Cache-Control header's value for a response with Set-Cookie: no shared cache may keep it.

    The app's own stays if it says so itself; `private="name"` speaks of a header only (RFC 9111 5.2.2.7).
    """
    bare = re.sub(r'"[^"]*"', '""', cache_control or "")
    directives = {part.strip().lower() for part in bare.split(",")}
    return cache_control if cache_control and directives & {"private", "no-store"} else "no-store"
