"""What the texts in settings must look like: rules that stand next to the fields, as `Annotated[str, ORIGIN]`.

The reader of settings applies them, the JSON Schema shows their pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 5.6.2


@dataclass(frozen=True, slots=True)
class Rule:
    """The form of a text. `read` returns its normal spelling, or raises ValueError with a sentence on what is wrong."""

    pattern: str  # for the JSON Schema; may allow a little more than `read`
    read: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Shorthand:
    """A table that may also be written as the text of its field `key` alone."""

    key: str


@dataclass(frozen=True, slots=True)
class OneOrMore:
    """A list that may also be written as its only item."""


def matching(pattern: str, form: str, normal: Callable[[str], str] = str) -> Rule:
    """A rule that is a pattern alone; `form` says in words what is allowed."""
    compiled = re.compile(pattern, re.ASCII)

    def read(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"expected {form}, got {text!r}")
        return normal(text)

    return Rule(f"^(?:{pattern})$", read)


ORIGIN_FORM = 'an origin such as "http://10.0.0.1:8000"'


def read_origin(text: str) -> str:
    """``scheme://host[:port]`` in lower case. Names no part of a user or password in its error."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"expected {ORIGIN_FORM}; host or port is not valid") from None
    problem = _origin_problem(parts, port)
    if problem:
        raise ValueError(f"expected {ORIGIN_FORM}; {problem}")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(':')}"


def _origin_problem(parts: SplitResult, port: int | None) -> str | None:
    if parts.scheme not in ("http", "https"):
        return "it must begin with http:// or https://"
    if "@" in parts.netloc:
        return "no user or password is allowed in it"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "no path, query or fragment is allowed in it"
    if port == 0 or not _is_host(parts.hostname or "", bracketed="[" in parts.netloc):
        return "host or port is not valid"
    return None


def _is_host(host: str, *, bracketed: bool) -> bool:
    if not bracketed:
        return re.fullmatch(_HOST, host, re.ASCII) is not None
    try:
        return bool(IPv6Address(host))
    except ValueError:
        return False


ORIGIN = Rule(r"^https?://[^/?#@\s]+/?$", read_origin)
HOST_NAME = matching(_HOST, 'a host name such as "catalog" or "api.internal"', str.lower)
SRV_NAME = matching(
    rf"{_HOST}\.?", 'a host name such as "catalog.internal" or "_http._tcp.catalog.internal"', str.lower
)
DISCOVERY = matching(
    r"file|dns|program|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", '"file", "dns", "program" or "module:attribute" of your own'
)
METHOD = matching(_TOKEN, 'an HTTP method such as "GET"', str.upper)
_PATH = re.compile(r"/[!-~]*")


def _check_path(text: str) -> str:
    if not _PATH.fullmatch(text):  # its query is not repeated: it may be a secret
        given = text.partition("?")[0]
        raise ValueError(f'expected a path that begins with "/", in ASCII and without spaces, got {given!r}')
    return text


PATH = Rule(f"^(?:{_PATH.pattern})$", _check_path)
HEADER_NAME = matching(_TOKEN, 'a header name such as "X-Session"')
DEADLINE_HEADER = matching(
    rf"{_TOKEN}(?::(?:grpc|ms|s))?", 'a header name, and perhaps its format, such as "X-Timeout" or "X-Timeout:ms"'
)
_FRAMING = frozenset(  # they say where a message ends, whom it is for, and what becomes of its connection
    "connection content-length expect host keep-alive proxy-connection te trailer transfer-encoding upgrade".split()
)
_IDENTITY = frozenset("authorization cookie proxy-authorization".split())  # they say who sends it
_CONTENT = frozenset("content-encoding content-range content-type".split())  # they say how its body is read


def unless(rule: Rule, names: frozenset[str], reason: str) -> Rule:
    """`rule` without the header names in `names`; `reason` says why, and what to use instead."""

    def read(text: str) -> str:
        found = rule.read(text)
        if (name := found.partition(":")[0].lower()) in names:
            raise ValueError(f'expected another header name than "{name}": {reason}')
        return found

    return Rule(rule.pattern, read)


SENT_DEADLINE_HEADER = unless(
    DEADLINE_HEADER,
    _FRAMING | _IDENTITY | _CONTENT,
    'requests need it for something else; use a name of its own, such as "x-timeout-ms", or "off"',
)
CHECK_HEADER = unless(
    HEADER_NAME, _FRAMING, "the HTTP client sets it, so that the request is well-formed; for Host there is `host`"
)
ANSWER_HEADER = unless(
    HEADER_NAME, _FRAMING | {"content-encoding"}, "it is worked out from the body, which is a text that is not encoded"
)
_VISIBLE = r"[!-~\x80-\xff]"


def _check_header_value(text: str) -> str:
    if not _HEADER_VALUE.fullmatch(text):  # it is not repeated: it may be a secret
        raise ValueError(
            "expected a header value: of the characters of Latin-1, with no line break or other control character, "
            "and no space at its ends"
        )
    return text


_HEADER_VALUE = re.compile(rf"(?:{_VISIBLE}(?:[\t -~\x80-\xff]*{_VISIBLE})?)?")
HEADER_VALUE = Rule(f"^(?:{_HEADER_VALUE.pattern})$", _check_header_value)
COOKIE_NAME = matching(_TOKEN, "a cookie name of letters, digits and !#$%&'*+-.^_`|~")
COOKIE_PATH = matching(r"/[ -:<-~]*", 'a path that begins with "/" and has no ";"')
COOKIE_DOMAIN = matching(r"\.?[A-Za-z0-9][A-Za-z0-9.-]*", 'a domain such as "example.com"', str.lower)
METRIC = matching(
    r"(?:cpu|mem|application)_utilization|(?:utilization|named_metrics)\.[A-Za-z0-9_./-]+",
    '"cpu_utilization", "mem_utilization", "application_utilization", "utilization.NAME" or "named_metrics.NAME"',
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
CLOCK_TIMES = matching(rf"({_CLOCK})-(?!\1)(?:{_CLOCK}|24:00)", 'two different times of day such as "22:00-06:00"')
PATH_PATTERN = matching(
    r"[/*][!-\"$->@-~]*",
    'a path as it is sent, that begins with "/" or "*" and has no query: for what follows "?" there is `query`',
)
PATTERN = matching(r"(?s:.+)", "a text that is not empty, in which * stands for any characters")
QUERY_NAME = matching(r"(?s:.+)", "the name of a query parameter")
HASH_KEY = matching(
    rf"path|session|query:.+|cookie:{_TOKEN}|header:{_TOKEN}|inbound-header:{_TOKEN}",
    '"path", "query:NAME", "header:NAME", "cookie:NAME", "inbound-header:NAME" or "session"',
)


def read_nameserver(text: str) -> tuple[str, int]:
    """Address and port of "10.0.0.2", "10.0.0.2:5353", "fd00::2" or "[fd00::2]:5353"."""
    try:
        if text.count(":") > 1 and not text.startswith("["):
            return str(IPv6Address(text)), 53
        parts = urlsplit(f"//{text}")
        address, port = str(ip_address(parts.hostname or "")), 53 if parts.port is None else parts.port
        if parts.netloc != text or port == 0:
            raise ValueError
    except ValueError:
        raise ValueError('expected an address such as "10.0.0.2" or "10.0.0.2:5353"') from None
    return address, port


def _check_nameserver(text: str) -> str:
    read_nameserver(text)
    return text


NAMESERVER = Rule(r"^[0-9A-Fa-f.:\[\]]+$", _check_nameserver)


def _read_key(text: str) -> str:
    if len(text) < 16:
        raise ValueError("expected a text of 16 characters or more; make one with `openssl rand -base64 32`")
    return text


LONG_SECRET = Rule("^.{16,}$", _read_key)
