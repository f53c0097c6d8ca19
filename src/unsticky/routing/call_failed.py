"""What handlers of failed calls are told."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import FailedAttempt


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call over a pool failed for good. Nothing in it is of the request but its method."""

    pool: str
    method: str
    error: BaseException | None  # None: it had a response, whose status is one of the fallback's
    status: int | None
    attempts: tuple[FailedAttempt, ...]
    seconds: float  # the fallback's excluded
    fallback: str | None = None  # what answered instead: the name of a pool, or "response"
    trace_id: str | None = None  # of the caller's span, in hex
    span_id: str | None = None

    @property
    def reason(self) -> str:
        """The error's name, or the status."""
        return str(self.status) if self.error is None else type(self.error).__name__
