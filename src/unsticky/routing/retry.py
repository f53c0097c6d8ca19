"""Whether an attempt may be repeated, and after how long."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from math import inf
from random import Random

from .call import Call
from .classify import Repeat, Verdict
from .options import RetryOptions

_MOST_DOUBLINGS = 32  # beyond it any backoff is at its maximum, and floats stay floats
_MOST_DIGITS = 10  # 300 years: more digits are no Retry-After


def may_repeat(verdict: Verdict, call: Call, options: RetryOptions) -> bool:
    """May this call be sent again, as far as the request itself is concerned?

    When nothing was sent, yes: the driver vouches with Failure.CONNECT that even a one-time body is untouched.
    Otherwise the method must be idempotent (RFC 9110 9.2.2) and the body one that can be sent again.
    """
    if verdict.repeat is Repeat.IDEMPOTENT:
        return call.retry and call.replayable and call.method in options.methods
    return call.retry and verdict.repeat is Repeat.ALWAYS


def backoff(retry: int, options: RetryOptions, random: Random) -> float:
    """Seconds before the n-th retry (from 1): full jitter over [0, (2^n - 1) * backoff], capped, as Envoy's."""
    doubled = ((1 << min(retry, _MOST_DOUBLINGS)) - 1) * options.backoff
    return random.random() * min(doubled, options.maximum_backoff)


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3), or None. `now` is Unix time, for its date form."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= _MOST_DIGITS else inf
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, date.timestamp() - now) if date.tzinfo else None
    except (ValueError, OverflowError):
        return None
