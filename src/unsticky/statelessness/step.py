"""One request of a script."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from ..errors import ScriptError

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"})
OF_CLIENTS = frozenset(  # headers that each client makes for itself: a recording's are not sent again
    {"host", "cookie", "content-length", "connection", "accept-encoding", "transfer-encoding"}
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OPTIONS = frozenset({"json", "form", "file", "headers", "body"})


class Headers(Mapping[str, str]):
    """A response's, by name in any case; of one that came more than once the first."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self._fields = {name.lower(): value for name, value in reversed(fields)}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(frozen=True, slots=True)
class SeenResponse:
    """What a script's functions get of a response."""

    status: int
    headers: Headers
    text: str

    def json(self) -> Any:
        """Raises ValueError."""
        return json.loads(self.text)


Seen = Sequence[SeenResponse]  # the responses to the steps before


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `options` makes its headers and body of the run's responses so far: a token may come from one."""

    method: str
    path: str | Callable[[Seen], str]  # with the query; a function makes it of the run's responses so far
    options: Mapping[str, Any] | Callable[[Seen], Mapping[str, Any]] = field(default_factory=dict)
    place: str = "a function"  # in the script

    @property
    def title(self) -> str:
        """Of a path that a function makes, the place in the script: it is another one each time."""
        return f"{self.method} {self.path if isinstance(self.path, str) else f'({self.place})'}"

    def target(self, seen: Seen) -> str:
        """The path. Raises ScriptError for a function that can't make one."""
        if isinstance(self.path, str):
            return self.path
        try:
            path = self.path(seen)
        except Exception as error:
            raise ScriptError(f"{self.title}: its path's function: {type(error).__name__}: {error}") from error
        if not isinstance(path, str) or not path.startswith("/"):
            raise ScriptError(
                f"{self.title}: its path's function gave {path!r}; expected a path that begins with a slash"
            )
        return path

    def content(self, seen: Seen) -> tuple[list[tuple[str, str]], bytes]:
        """Headers and body. Raises ScriptError for options that are none, or can't be made."""
        try:
            return self._content(self.options(seen) if callable(self.options) else self.options)
        except ScriptError:
            raise
        except Exception as error:
            of = "its function" if callable(self.options) else "its options"
            raise ScriptError(f"{self.title}: {of}: {type(error).__name__}: {error}") from error

    def _content(self, options: Mapping[str, Any]) -> tuple[list[tuple[str, str]], bytes]:
        if not isinstance(options, Mapping):
            raise ScriptError(f"{self.title}: expected a mapping of options, got {type(options).__name__}")
        for name in options.keys() - _OPTIONS:
            raise ScriptError(f"{self.title}: unknown option {name!r}, allowed are {', '.join(sorted(_OPTIONS))}")
        kind, body = _body(options)
        headers = [self._header(name, value) for name, value in dict(options.get("headers", {})).items()]
        if kind and not any(name == "content-type" for name, _ in headers):
            headers.append(("content-type", kind))
        return headers, body

    def _header(self, name: object, value: object) -> tuple[str, str]:
        """As HTTP has it (RFC 9110 5.1, 5.5)."""
        if not _NAME.fullmatch(str(name)):
            raise ScriptError(f"{self.title}: {name!r} is no header's name")
        if _CONTROL.search(str(value)):
            raise ScriptError(f"{self.title}: the header {name} has a line break or another control character")
        return str(name).lower(), str(value)


def _body(options: Mapping[str, Any]) -> tuple[str, bytes]:
    given = [name for name in ("json", "form", "file", "body") if name in options]
    if len(given) > 1:
        raise ScriptError(f"{' and '.join(given)} exclude each other: a request has one body")
    if "json" in options:
        return "application/json", json.dumps(options["json"], allow_nan=False).encode()
    if "form" in options:
        return "application/x-www-form-urlencoded", urlencode(options["form"], doseq=True).encode()
    if "file" in options:
        return _multipart(*options["file"])
    body = options.get("body", b"")
    return "", body.encode() if isinstance(body, str) else bytes(body)


def _multipart(field_name: str, file_name: str, text: str) -> tuple[str, bytes]:
    boundary = "unsticky-boundary"
    head = f'Content-Disposition: form-data; name="{field_name}"; filename="{file_name}"'
    body = f"--{boundary}\r\n{head}\r\nContent-Type: text/plain\r\n\r\n{text}\r\n--{boundary}--\r\n"
    return f"multipart/form-data; boundary={boundary}", body.encode()
