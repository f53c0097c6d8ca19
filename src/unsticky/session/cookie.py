"""What carries the token between client and app, and the headers that a response with a session owes to caches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Literal, Protocol

from ..errors import Problem, SettingsError
from .options import CookieOptions, SessionOptions
from .policy import Lifetime
from .token import Token, TokenSigner
from .writing import DELETE, REFRESH, Committed

Headers = list[tuple[str, str]]
Header = tuple[str, str]

HOST_PREFIX = "__Host-"  # RFC 6265bis 4.1.3.2: no neighbour domain and no plain http can set such a cookie


class Carrier(Protocol):
    """Where the token travels."""

    @property
    def varies_on(self) -> str:
        """The request header that responses with a session depend on."""
        ...

    def values(self, headers: Sequence[str]) -> list[str]:
        """All that the request presents as a token, of the values of that header."""
        ...

    def set(self, value: str, permanent: bool | None = None) -> Header:
        """The response header that gives the token. `permanent`: the session's own choice, if it has made one."""
        ...

    def delete(self) -> Header: ...

    def lasts(self, permanent: bool | None) -> bool:
        """Is it sent again with each write? For its time has to be prolonged, or may just have been limited."""
        ...


@dataclass(frozen=True, kw_only=True)
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
    lasting_age: int | None = None  # of sessions that are made permanent one by one; None: as `max_age`

    varies_on = "Cookie"

    @classmethod
    def of(cls, options: CookieOptions, lifetime: Lifetime) -> CookieFormat:
        """What the options set, and Starlette's defaults for the rest; `__Host-` where browsers take it."""
        names = ("name", "path", "domain", "secure", "http_only", "same_site", "partitioned")
        chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
        age = cookie_age(lifetime)
        form = cls(**chosen, max_age=age if options.permanent is not False else None, lasting_age=age)
        return (
            form if options.name is not None else form.named(prefixed(form.name, form.secure, form.path, form.domain))
        )

    def named(self, name: str) -> CookieFormat:
        """The same under another name."""
        return CookieFormat(**{**self._attributes, "name": name})  # type: ignore[arg-type]

    def values(self, headers: Sequence[str]) -> list[str]:
        """The values of all cookies of this name: duplicates too, for they may disagree."""
        return cookie_values(headers, self.name)

    def set(self, value: str, permanent: bool | None = None) -> Header:
        """Set-Cookie, its attributes in the order that Starlette writes them."""
        return "Set-Cookie", f"{self.name}={value}{self._attributes_of[None if permanent is None else bool(permanent)]}"

    def delete(self) -> Header:
        """The same cookie, ended: browsers ignore a deletion whose attributes differ from the cookie's."""
        ended = f"{self.name}=null; path={self.path}; expires=Thu, 01 Jan 1970 00:00:00 GMT; {self._flags}"
        return "Set-Cookie", ended

    def lasts(self, permanent: bool | None) -> bool:
        """Has it a Max-Age, or is that one what the session may have taken from it?"""
        return self._lasts[None if permanent is None else bool(permanent)]

    def _age(self, permanent: bool | None) -> int | None:
        if permanent is None:
            return self.max_age
        return (self.max_age or self.lasting_age) if permanent else None

    @cached_property
    def _lasts(self) -> dict[bool | None, bool]:
        return {False: True, True: self._age(True) is not None, None: self._age(None) is not None}

    @cached_property
    def _attributes_of(self) -> dict[bool | None, str]:
        """What stands behind the value, by the session's own choice to be permanent."""
        ages = {choice: self._age(choice) for choice in (None, False, True)}
        lasts = {choice: "" if age is None else f"Max-Age={age}; " for choice, age in ages.items()}
        return {choice: f"; path={self.path}; {lasts[choice]}{self._flags}" for choice in ages}

    @cached_property
    def _attributes(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
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


@dataclass(frozen=True)
class HeaderFormat:
    """A header of its own, in requests and responses, for clients that are programs. An empty one ends the session."""

    name: str

    @property
    def varies_on(self) -> str:
        return self.name

    def values(self, headers: Sequence[str]) -> list[str]:
        """Its values."""
        return [value.strip() for value in headers]

    def set(self, value: str, permanent: bool | None = None) -> Header:
        return self.name, value

    def delete(self) -> Header:
        return self.name, ""

    def lasts(self, permanent: bool | None) -> bool:
        """Such a client keeps it as long as it wants."""
        return False


def carrier(options: SessionOptions, lifetime: Lifetime) -> Carrier:
    """As the options say. Raises SettingsError for a cookie that no browser would take."""
    if options.transport == "header":
        return HeaderFormat(options.header)
    form = CookieFormat.of(options.cookie, lifetime)
    if not form.secure and (form.same_site == "none" or form.partitioned):
        problem = Problem("session.cookie.secure", "must be true: browsers refuse the cookie otherwise")
        raise SettingsError("session", [problem])
    return form


def prefixed(name: str, secure: bool, path: str | None, domain: str | None) -> str:
    """`__Host-` in front, where browsers demand no more than what is set anyway."""
    return f"{HOST_PREFIX}{name}" if secure and path in (None, "/") and domain is None else name


def token_header(
    committed: Committed, form: Carrier, signer: TokenSigner, permanent: bool | None = None
) -> Header | None:
    """The response header that a commit asks for."""
    if isinstance(committed.cookie, Token):
        return form.set(signer.dumps(committed.cookie), permanent)
    if committed.cookie is DELETE:
        return form.delete()
    if committed.cookie is REFRESH and committed.token is not None and form.lasts(permanent):
        return form.set(signer.dumps(committed.token), permanent)
    return None


def with_session_headers(headers: Headers, form: Carrier, added: list[Header], *, accessed: bool) -> Headers:
    """A response's headers with what they owe to caches, and those that are `added` for the client."""
    if not accessed and not added:
        return headers
    headers = _rewritten(headers, "Vary", lambda value: vary_on(value, form.varies_on))
    if added:
        headers = [*_rewritten(headers, "Cache-Control", uncached), *added]
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
    values: list[str] = []
    for header in headers:
        key, _, value = header.partition("=")
        if key == name and ";" not in value:  # the usual one: there is no other cookie
            values.append(value.strip().strip('"'))
            continue
        if name not in header:
            continue
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


def vary_on(vary: str | None, header: str) -> str:
    """A Vary header's value with `header` in it, once."""
    if not vary:
        return header
    names = [name.strip() for name in vary.split(",") if name.strip()]
    if "*" in names or any(name.lower() == header.lower() for name in names):
        return ", ".join(names)
    return ", ".join([*names, header])


def uncached(cache_control: str | None) -> str:
    """A Cache-Control header's value for a response with Set-Cookie: no shared cache may keep it.

    The app's own stays if it says so itself; `private="name"` speaks of a header only (RFC 9111 5.2.2.7).
    """
    if not cache_control:
        return "no-store"
    bare = re.sub(r'"[^"]*"', '""', cache_control)
    directives = {part.strip().lower() for part in bare.split(",")}
    return cache_control if directives & {"private", "no-store"} else "no-store"
