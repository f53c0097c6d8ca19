"""Deadlines and attempts as headers say them.

    grpc-timeout: 1500m                      gRPC over HTTP/2: at most 8 digits, and H, M, S, m, u or n
    x-envoy-expected-rq-timeout-ms: 1500     Envoy's router; any other name in milliseconds or seconds
    x-envoy-attempt-count: 2                 Envoy: from 1
    grpc-previous-rpc-attempts: 1            gRFC A6: on retries only

They come from whoever sends a request. All that one can do with them is to have less done for oneself; what is
malformed is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from .hop_options import InboundOptions

ENVOY_ATTEMPT = "x-envoy-attempt-count"
GRPC_ATTEMPT = "grpc-previous-rpc-attempts"
OFF = "off"
_GRPC_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}
_GRPC = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_DIGITS = 8
_MOST = 1e8  # seconds
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_COUNT = re.compile(r"[0-9]{1,6}")

Form = Literal["grpc", "ms", "s"]


@dataclass(frozen=True, slots=True)
class DeadlineHeader:
    """One header that carries a time, relative to when it was sent."""

    name: str  # in lower case
    form: Form

    def read(self, text: str) -> float | None:
        """Seconds; None if `text` says nothing. 0 is a deadline that passed in gRPC's format, and none in others."""
        if self.form == "grpc":
            return _read_grpc(text.strip())
        if not _NUMBER.fullmatch(text.strip()):
            return None
        return float(text) / (1000 if self.form == "ms" else 1) or None

    def write(self, seconds: float) -> str:
        """`seconds`, rounded down to what the format can say, never to 0, and three years at most."""
        seconds = min(seconds, _MOST)
        if self.form == "grpc":
            return _write_grpc(seconds)
        milliseconds = max(1, int(seconds * 1000))
        return str(milliseconds) if self.form == "ms" else f"{milliseconds / 1000:.3f}"


@lru_cache(maxsize=64)
def deadline_header(setting: str) -> DeadlineHeader:
    """As settings write it: "grpc-timeout", "x-timeout-ms", "x-timeout:ms"."""
    name, _, form = setting.lower().partition(":")
    forms: dict[str, Form] = {"grpc": "grpc", "ms": "ms", "s": "s"}
    if form:
        return DeadlineHeader(name, forms[form])
    if name == "grpc-timeout":
        return DeadlineHeader(name, "grpc")
    return DeadlineHeader(name, "ms" if name.endswith("-ms") else "s")


def time_left(headers: Mapping[str, str], options: InboundOptions) -> float | None:
    """Seconds that the sender of `headers` (in lower case) still waits; None: no deadline."""
    asked = [
        seconds
        for header in map(deadline_header, options.deadline_headers)
        if header.name in headers and (seconds := header.read(headers[header.name])) is not None
    ]
    if not asked:
        return options.timeout
    most = options.timeout if options.maximum_timeout is None else options.maximum_timeout
    return min(asked) if most is None else min(*asked, most)


def previous_attempts(headers: Mapping[str, str]) -> int:
    """How often the request was sent before, on its way to here."""
    return max(_count(headers.get(ENVOY_ATTEMPT)) - 1, _count(headers.get(GRPC_ATTEMPT)), 0)


def attempt_text(header: str, previous: int) -> str:
    """The value of the attempt header named `header` after `previous` attempts."""
    return str(previous + 1 if header == ENVOY_ATTEMPT else previous)


def _count(text: str | None) -> int:
    return int(text) if text is not None and _COUNT.fullmatch(text.strip()) else 0


def _read_grpc(text: str) -> float | None:
    match = _GRPC.fullmatch(text)
    return int(match[1]) * _GRPC_UNITS[match[2]] if match else None


def _write_grpc(seconds: float) -> str:
    """In the finest unit that has room for it."""
    counts = ((int(seconds / length), unit) for unit, length in _GRPC_UNITS.items())
    count, unit = next(found for found in counts if found[0] < 10**_GRPC_DIGITS)
    return f"{max(count, 1)}{unit}"
