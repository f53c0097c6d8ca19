"""What a server says about trying again: not before, at a moment, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import inf

from .retry_options import ResetHeaderOptions, RetryOptions

GRPC = "grpc-retry-pushback-ms"  # gRFC A6
# Whoever sends these says that another attempt is of no use: Envoy's rate limits (router filter), and Finagle's
# HttpNackFilter. Only their presence counts, as there.
REFUSALS = ("x-envoy-ratelimited", "finagle-http-nonretryable-nack")
_MOST_DIGITS = 10  # 300 years: more digits are no time


@dataclass(frozen=True, slots=True)
class Pushback:
    """`seconds` until the next attempt; inf: none shall be made. `exact`: then and not later."""

    seconds: float
    exact: bool = False


NEVER = Pushback(inf)


def pushback(headers: Mapping[str, str], options: RetryOptions, now: float) -> Pushback | None:
    """What a failing response asks for, or None. `now` is Unix time, for dates."""
    if any(name in headers for name in REFUSALS):
        return NEVER
    told = headers.get(GRPC)
    if told is not None:
        return _grpc(told)
    seconds = retry_after(headers.get("retry-after"), now)
    for header in () if seconds is not None else options.reset_headers:
        if (seconds := reset(headers.get(header.name), header, now)) is not None:
            break
    return None if seconds is None else Pushback(seconds)


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3), or None. `now` is Unix time, for its date form."""
    if header is None:
        return None
    if (seconds := _number(header)) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(header.strip())
        return max(0.0, date.timestamp() - now) if date.tzinfo else None
    except (ValueError, OverflowError):
        return None


def reset(header: str | None, options: ResetHeaderOptions, now: float) -> float | None:
    """Seconds until a rate limit lets more calls in (Envoy's rate_limited_retry_back_off), or None."""
    number = None if header is None else _number(header)
    if number is None or options.format == "seconds":
        return number
    return max(0.0, number - now)


def _grpc(text: str) -> Pushback:
    """Milliseconds. What is negative, or no number, means: not again."""
    milliseconds = _number(text)
    return NEVER if milliseconds is None else Pushback(milliseconds / 1000, exact=True)


def _number(text: str) -> float | None:
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return None
    return float(text) if len(text) <= _MOST_DIGITS else inf
