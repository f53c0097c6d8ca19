"""What an outcome means: the one list that retries, ejection and telemetry read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from .call import Failure, Outcome


class Repeat(Enum):
    """Whether another attempt may help, and may be made."""

    NEVER = "never"
    IDEMPOTENT = "idempotent"  # the endpoint may have acted on it: idempotent methods and replayable bodies only
    ALWAYS = "always"  # nothing was sent


@dataclass(frozen=True, slots=True)
class Verdict:
    """`good`: what the outcome says about its endpoint; None is nothing. `repeat`: about another attempt."""

    good: bool | None
    repeat: Repeat


FINE = Verdict(True, Repeat.NEVER)
LATER = Verdict(None, Repeat.IDEMPOTENT)  # 429 and the like: alive, and not now
FAULTY = Verdict(False, Repeat.NEVER)  # 500: another endpoint may well do the same with this request
AWAY = Verdict(False, Repeat.IDEMPOTENT)
UNREACHABLE = Verdict(False, Repeat.ALWAYS)
SILENT = Verdict(None, Repeat.NEVER)

_FAILURES = {
    Failure.CONNECT: UNREACHABLE,
    Failure.TIMEOUT: AWAY,
    Failure.BROKEN: AWAY,
    Failure.CANCELLED: SILENT,
    Failure.LOCAL: SILENT,
}
_WORDS = {
    Failure.CONNECT: "could not connect",
    Failure.TIMEOUT: "no response in time",
    Failure.BROKEN: "connection broke",
    Failure.CANCELLED: "cancelled",
    Failure.LOCAL: "could not be sent",
}


def classify(outcome: Outcome, retry_statuses: Collection[int]) -> Verdict:
    """The verdict on `outcome`.

    5xx counts against the endpoint, as in Envoy's consecutive_5xx; 501 does not, it speaks of the request.
    """
    if outcome.failure is not None:
        return _FAILURES[outcome.failure]
    status = outcome.status or 0
    bad = status >= 500 and status != 501
    if status in retry_statuses:
        return AWAY if bad else LATER
    return FAULTY if bad else FINE


def reason(outcome: Outcome) -> str:
    """The outcome in a few words, without anything of the request: an exception is named, never quoted."""
    if outcome.failure is None:
        return f"status {outcome.status}"
    error = f" ({type(outcome.error).__name__})" if outcome.error is not None else ""
    return f"{_WORDS[outcome.failure]}{error}"
