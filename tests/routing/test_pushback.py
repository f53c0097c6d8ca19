"""What servers say about trying again."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsticky.routing.pushback import NEVER, Pushback, pushback, retry_after
from unsticky.routing.retry_options import ResetHeaderOptions, RetryOptions

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's own example


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("soon", None),
        ("٣", None),
        ("9" * 5000, float("inf")),
        ("Sun, 99 Nov 1994 08:49:47 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds and dates as RFC 9110 10.2.3 has them; a date gone by is now; junk is nothing."""
    assert retry_after(header, NOW) == seconds


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ (GMT|[-+]\d+)"))
def test_retry_after_takes_anything(header: str) -> None:
    """Servers send what they like: never an exception, never a negative wait."""
    seconds = retry_after(header, NOW)
    assert seconds is None or seconds >= 0


RESETS = RetryOptions(
    reset_headers=(
        ResetHeaderOptions(name="ratelimit-reset"),
        ResetHeaderOptions(name="x-ratelimit-reset", format="unix_timestamp"),
    )
)


@pytest.mark.parametrize(
    ("headers", "options", "expected"),
    [
        ({}, RetryOptions(), None),
        ({"retry-after": "3"}, RetryOptions(), Pushback(3)),
        ({"retry-after": "junk"}, RetryOptions(), None),
        ({"grpc-retry-pushback-ms": "250"}, RetryOptions(), Pushback(0.25, exact=True)),
        ({"grpc-retry-pushback-ms": "0"}, RetryOptions(), Pushback(0, exact=True)),
        ({"grpc-retry-pushback-ms": "-1"}, RetryOptions(), NEVER),
        ({"grpc-retry-pushback-ms": "soon"}, RetryOptions(), NEVER),
        ({"grpc-retry-pushback-ms": ""}, RetryOptions(), NEVER),
        ({"grpc-retry-pushback-ms": "250", "retry-after": "9"}, RetryOptions(), Pushback(0.25, exact=True)),
        ({"x-envoy-ratelimited": ""}, RetryOptions(), NEVER),
        ({"x-envoy-ratelimited": "true", "retry-after": "1"}, RetryOptions(), NEVER),
        ({"finagle-http-nonretryable-nack": "true"}, RetryOptions(), NEVER),
        ({"ratelimit-reset": "4"}, RetryOptions(), None),
        ({"ratelimit-reset": "4"}, RESETS, Pushback(4)),
        ({"ratelimit-reset": "4", "retry-after": "1"}, RESETS, Pushback(1)),
        ({"ratelimit-reset": "4", "retry-after": "junk"}, RESETS, Pushback(4)),
        ({"x-ratelimit-reset": "784111780"}, RESETS, Pushback(3)),
        ({"x-ratelimit-reset": "784111000"}, RESETS, Pushback(0)),
        ({"ratelimit-reset": "4.5", "x-ratelimit-reset": "784111780"}, RESETS, Pushback(3)),
        ({"x-ratelimit-reset": "9" * 40}, RESETS, Pushback(inf)),
    ],
)
def test_pushback(headers: dict[str, str], options: RetryOptions, expected: Pushback | None) -> None:
    """Refusals first, then gRPC's, Retry-After, and the headers that the settings name."""
    assert pushback(headers, options, NOW) == expected
