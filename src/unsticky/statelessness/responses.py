"""A response, taken apart into leaves that can be compared one by one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

Path = tuple[str | int, ...]
Leaves = dict[Path, str]

_FLAGS = ("path", "domain", "secure", "httponly", "samesite", "partitioned")
_LISTS = frozenset({"allow", "vary", "access-control-allow-methods", "access-control-allow-headers"})  # in any order
_LARGE = 1 << 16  # bytes of a text that is compared by lines
IGNORED = frozenset(
    {"date", "server", "content-length", "etag", "last-modified", "age", "x-process-time", "server-timing"}
)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"  # ISO 8601
    r"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"  # HTTP
    r"|(?<![\w.])1[5-9]\d{8}(?:\.\d+|\d{3}(?:\d{3})?)?(?![\w.])"  # seconds, ms or us since 1970: 2017 to 2033
)
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")  # of an object, in its repr
_TOKEN = re.compile(r"<ts>|<address>|[\w.+-]+|[^\s\w]")


@dataclass(frozen=True, slots=True)
class Response:
    """What a replica answered. `failure` is what happened instead: an exception of the app, or of the replica."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()  # names in lower case
    body: bytes = b""
    failure: str = ""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Raises ValueError."""
        return json.loads(self.body)

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


def content(response: Response) -> Any:
    """The body as a tree: JSON as it is, text as a list of lines of tokens, anything else as its hash."""
    kind = response.header("content-type").partition(";")[0].strip().lower()
    if kind.endswith("json"):
        try:
            return response.json()
        except ValueError:
            pass
    if kind.startswith("text/") or kind.endswith(("xml", "javascript", "json", "urlencoded")) or not kind:
        text = response.text
        return [[line] if len(text) > _LARGE else _tokens(line) for line in text.splitlines()]
    return sha256(response.body).hexdigest()


def unordered(one: Any, other: Any, at: Path = ()) -> Iterator[Path]:
    """Where two trees have arrays of the same items in another order: order means nothing there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() & other.keys():
            yield from unordered(one[key], other[key], (*at, key))
    elif isinstance(one, str) and isinstance(other, str):
        if same_tokens(one, other):
            yield at
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        if one != other and _sorted(one) == _sorted(other):
            yield at
        else:
            for number, (mine, yours) in enumerate(zip(one, other, strict=True)):
                yield from unordered(mine, yours, (*at, number))


def same_tokens(one: str, other: str) -> bool:
    """Whether two texts are the same tokens in another order."""
    return one != other and sorted(_tokens(one)) == sorted(_tokens(other))


def in_any_order(text: str) -> str:
    """The same for all texts that are the same tokens."""
    return " ".join(sorted(_tokens(text)))


def leaves(response: Response, tree: Any, without_order: Iterable[Path] = ()) -> Leaves:
    """By path. `tree` is the response's `content`."""
    found: Leaves = {("status",): response.failure or str(response.status)}
    counts: dict[str, int] = {}
    for name, value in response.headers:
        if name == "set-cookie":
            key, _, attributes = _cookie(value)
            flags = [f"{flag}={attributes[flag]}" for flag in _FLAGS if flag in attributes]
            found["cookie", key] = " ".join(["cleared" if _is_gone(attributes) else "set", *flags])
        elif name not in IGNORED:
            counts[name] = number = counts.get(name, -1) + 1
            found["header", name, number] = _sorted_list(value) if name in _LISTS else _masked(value)
    found.update(_flat(tree, ("body",), frozenset(("body", *path) for path in without_order)))
    return found


def cookies(response: Response) -> Iterator[tuple[str, str | None]]:
    """What the client keeps by it: names and values; None for one that is to be forgotten."""
    for name, value in response.headers:
        if name == "set-cookie":
            key, kept, attributes = _cookie(value)
            yield key, None if _is_gone(attributes) else kept


def _cookie(value: str) -> tuple[str, str, dict[str, str]]:
    """Name, value and attributes of a Set-Cookie header, as browsers read it (RFC 6265 5.2): the value is opaque."""
    pair, *rest = value.split(";")
    name, _, kept = pair.partition("=")
    attributes = {key.strip().lower(): text.strip() for key, _, text in (part.partition("=") for part in rest)}
    return name.strip(), kept.strip(), attributes


def _is_gone(attributes: Mapping[str, str]) -> bool:
    return attributes.get("max-age") == "0" or "1970" in attributes.get("expires", "")


def _sorted_list(value: str) -> str:
    return ", ".join(sorted(part.strip() for part in value.split(",")))


def _flat(tree: Any, at: Path, without_order: frozenset[Path]) -> Leaves:
    if isinstance(tree, Mapping):
        found: Leaves = {(*at, "{}"): ""} if not tree else {}
        for key, value in tree.items():
            found.update(_flat(value, (*at, str(key)), without_order))
        return found
    if isinstance(tree, list):
        found = {(*at, "[]"): str(len(tree))}
        for number, value in enumerate(_sorted(tree) if at in without_order else tree):
            found.update(_flat(value, (*at, number), without_order))
        return found
    if isinstance(tree, str):
        return {at: in_any_order(tree) if at in without_order else _masked(tree)}
    return {at: _masked(json.dumps(tree))}


def _masked(text: str) -> str:
    """Without what is another one each time by its nature."""
    return _ADDRESS.sub("<address>", _TIME.sub("<ts>", text))


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(_masked(text))


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
