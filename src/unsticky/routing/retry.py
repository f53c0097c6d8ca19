"""Whether an attempt may be repeated, and after how long if the server does not say."""

from __future__ import annotations

from random import Random

from .call import Call
from .classify import Repeat, Verdict
from .retry_options import RetryOptions

_MOST_DOUBLINGS = 32  # beyond it any backoff is at its maximum, and floats stay floats


def may_repeat(verdict: Verdict, call: Call, options: RetryOptions) -> bool:
    """May this call be sent again, as far as the request itself is concerned?

    When nothing was sent, yes: the driver vouches with Failure.CONNECT that even a one-time body is untouched.
    Otherwise the call must be idempotent and its body one that can be sent again.
    """
    if verdict.repeat is Repeat.IDEMPOTENT:
        return call.retry and call.replayable and is_idempotent(call, options)
    return call.retry and verdict.repeat is Repeat.ALWAYS


def is_idempotent(call: Call, options: RetryOptions) -> bool:
    """May the call be done twice? By its method (RFC 9110 9.2.2), unless who made it knows better."""
    return call.method in options.methods if call.idempotent is None else call.idempotent


def backoff(retry: int, options: RetryOptions, random: Random) -> float:
    """Seconds before the n-th retry (from 1): full jitter over [0, (2^n - 1) * backoff], capped, as Envoy's."""
    doubled = ((1 << min(retry, _MOST_DOUBLINGS)) - 1) * options.backoff
    return random.random() * min(doubled, options.maximum_backoff)
