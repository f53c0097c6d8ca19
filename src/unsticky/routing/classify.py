"""What an outcome means: the one list that retries, ejection and telemetry read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from ..errors import FailedAttempt
from .call import Failure, Outcome
from .endpoint import condition


class Repeat(Enum):
    """Whether another attempt may help, and may be made."""

    NEVER = "never"
    IDEMPOTENT = "idempotent"  # the endpoint may have acted on it: idempotent methods and replayable bodies only
    ALWAYS = "always"  # nothing was sent


class Fault(Enum):
    """What kind of failure it is, as Envoy's outlier detection tells them apart."""

    LOCAL = "local"  # seen from here: no connection, or no answer in time
    GATEWAY = "gateway"  # 502, 503, 504
    SERVER = "server"  # any other


@dataclass(frozen=True, slots=True)
class Verdict:
    """`good`: what the outcome says about its endpoint; None is nothing. `repeat`: about another attempt."""

    good: bool | None
    repeat: Repeat
    fault: Fault = Fault.SERVER  # where `good` is False
    overload: bool = False  # an endpoint that is only overrun fails like that, too


FINE = Verdict(True, Repeat.NEVER)
LATER = Verdict(None, Repeat.IDEMPOTENT)  # 429 and the like: alive, and not now
FAULTY = Verdict(False, Repeat.NEVER)  # 500: another endpoint may well do the same with this request
AWAY = Verdict(False, Repeat.IDEMPOTENT)
LATE = Verdict(False, Repeat.IDEMPOTENT, Fault.LOCAL, overload=True)
UNREACHABLE = Verdict(False, Repeat.ALWAYS, Fault.LOCAL)
GATEWAY_AWAY = Verdict(False, Repeat.IDEMPOTENT, Fault.GATEWAY)
GATEWAY_FAULTY = Verdict(False, Repeat.NEVER, Fault.GATEWAY)
OVERRUN_AWAY = Verdict(False, Repeat.IDEMPOTENT, Fault.GATEWAY, overload=True)  # 503, 504
OVERRUN_FAULTY = Verdict(False, Repeat.NEVER, Fault.GATEWAY, overload=True)
SILENT = Verdict(None, Repeat.NEVER)

_FAILURES = {
    Failure.CONNECT: UNREACHABLE,
    Failure.TIMEOUT: LATE,
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
    if status < 500 or status == 501:
        return LATER if status in retry_statuses else FINE
    if status in (503, 504):
        return OVERRUN_AWAY if status in retry_statuses else OVERRUN_FAULTY
    if status == 502:
        return GATEWAY_AWAY if status in retry_statuses else GATEWAY_FAULTY
    return AWAY if status in retry_statuses else FAULTY


def reason(outcome: Outcome) -> str:
    """The outcome in a few words, without anything of the request: an exception is named, never quoted."""
    if outcome.failure is None:
        return f"status {outcome.status}"
    error = f" ({type(outcome.error).__name__})" if outcome.error is not None else ""
    return f"{_WORDS[outcome.failure]}{error}"


def call_failed(end: Outcome) -> bool:
    """Did a call that ended so fail, through no fault of its own? By 5xx, but for 501, too."""
    if end.failure is not None:
        return end.failure not in (Failure.CANCELLED, Failure.LOCAL)
    return end.status is not None and end.status >= 500 and end.status != 501


def kind(outcome: Outcome) -> str:
    """The failure, or the status, in one word that is one of few: for counts."""
    return str(outcome.status) if outcome.failure is None else outcome.failure.value


def failed_attempt(outcome: Outcome, now: float) -> FailedAttempt:
    """The outcome for errors, logs and handlers; it names the endpoint and the failure, nothing of the request."""
    attempt = outcome.attempt
    unfit = condition(attempt.lease.state, now)
    return FailedAttempt(
        attempt.endpoint.address,
        reason(outcome) + (f" [{unfit}]" if unfit else ""),
        outcome.status,
        None if outcome.failure is None else outcome.failure.value,
        None if outcome.error is None else type(outcome.error).__name__,
        max(0.0, now - attempt.lease.began),
        attempt.resend_count,
    )
