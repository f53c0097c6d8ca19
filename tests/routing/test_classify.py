"""What outcomes mean."""

from __future__ import annotations

import pytest

from support.routing import state
from unsticky.routing.call import Attempt, Failure, Lease, Outcome
from unsticky.routing.classify import Repeat, classify, reason
from unsticky.routing.options import RetryOptions

ONE = state("a")
ATTEMPT = Attempt(ONE.endpoint, 0, None, Lease(ONE, 0, lambda lease: None))


@pytest.mark.parametrize(
    ("outcome", "good", "repeat"),
    [
        (200, True, Repeat.NEVER),
        (304, True, Repeat.NEVER),
        (404, True, Repeat.NEVER),
        (408, True, Repeat.NEVER),
        (429, None, Repeat.IDEMPOTENT),
        (500, False, Repeat.NEVER),
        (501, True, Repeat.NEVER),
        (502, False, Repeat.IDEMPOTENT),
        (503, False, Repeat.IDEMPOTENT),
        (504, False, Repeat.IDEMPOTENT),
        (507, False, Repeat.NEVER),
        (Failure.CONNECT, False, Repeat.ALWAYS),
        (Failure.TIMEOUT, False, Repeat.IDEMPOTENT),
        (Failure.BROKEN, False, Repeat.IDEMPOTENT),
        (Failure.CANCELLED, None, Repeat.NEVER),
        (Failure.LOCAL, None, Repeat.NEVER),
    ],
)
def test_verdicts(outcome: int | Failure, good: bool | None, repeat: Repeat) -> None:
    """By the default statuses."""
    given = Outcome(ATTEMPT, outcome) if isinstance(outcome, int) else Outcome(ATTEMPT, failure=outcome)
    verdict = classify(given, RetryOptions().statuses)
    assert (verdict.good, verdict.repeat) == (good, repeat)


OVERLOAD = {503, 504, Failure.TIMEOUT}


@pytest.mark.parametrize("outcome", [200, 429, 500, 502, 503, 504, 507, *Failure])
@pytest.mark.parametrize("retried", [True, False])
def test_what_an_overload_causes_too(outcome: int | Failure, retried: bool) -> None:
    """Whether or not it is retried."""
    given = Outcome(ATTEMPT, outcome) if isinstance(outcome, int) else Outcome(ATTEMPT, failure=outcome)
    assert classify(given, RetryOptions().statuses if retried else ()).overload is (outcome in OVERLOAD)


def test_statuses_are_the_users() -> None:
    """A 409 that may be retried says nothing about the endpoint; a 503 that may not still counts."""
    assert classify(Outcome(ATTEMPT, 409), {409}).repeat is Repeat.IDEMPOTENT
    assert classify(Outcome(ATTEMPT, 409), {409}).good is None
    assert classify(Outcome(ATTEMPT, 503), {409}).repeat is Repeat.NEVER
    assert classify(Outcome(ATTEMPT, 503), {409}).good is False


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(ATTEMPT, 503), "status 503"),
        (Outcome(ATTEMPT, failure=Failure.CONNECT, error=OSError("GET /secret")), "could not connect (OSError)"),
        (Outcome(ATTEMPT, failure=Failure.TIMEOUT), "no response in time"),
        (Outcome(ATTEMPT, failure=Failure.BROKEN, error=EOFError()), "connection broke (EOFError)"),
        (Outcome(ATTEMPT, failure=Failure.LOCAL, error=ValueError("x: token")), "could not be sent (ValueError)"),
        (Outcome(ATTEMPT, failure=Failure.CANCELLED), "cancelled"),
    ],
)
def test_reasons_quote_nothing(outcome: Outcome, words: str) -> None:
    """An exception is named; its text may hold paths, queries and tokens."""
    assert reason(outcome) == words
