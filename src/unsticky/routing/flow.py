"""One call over a pool, from the first pick to the last outcome."""

from __future__ import annotations

from collections.abc import Generator

from ..errors import AttemptsFailed, CallTimeout, FailedAttempt, NoHealthyEndpoint, PoolOverflow
from .call import Attempt, Call, Failure, Lease, Outcome, Send, Wait
from .classify import Verdict, classify, failed_attempt, kind
from .endpoint import EndpointState
from .pool import Pool
from .pushback import Pushback, pushback
from .retry import backoff, may_repeat

_EARLY = 0.001  # timers may fire a little before their time
_FOREVER = Wait(float("inf"))


def route(pool: Pool, call: Call) -> Generator[Send | Wait, Outcome | None, Outcome]:
    """Decide one call: yield what to do, receive how it went. The package's docstring says what a driver does.

    An attempt that should and may be repeated is followed by `Wait(backoff or pushback)`, then by `Send` on another
    endpoint: each endpoint once before any is used twice. Repeats need an attempt left, time left, and budget.

    Returns the last Outcome: a response of any status, or the failure of the only attempt, or one that was CANCELLED or
    LOCAL. Raises AttemptsFailed, CallTimeout (the call's deadline passed) NoHealthyEndpoint or
    PoolOverflow (nothing was sent).
    """
    trip = _Trip(pool, call)
    lease, send = trip.first()
    while True:
        try:
            outcome = yield send
            while outcome is None:  # asked too early
                outcome = yield _FOREVER
        except BaseException:  # closed: the caller went away
            lease.release()
            raise
        now = pool.clock.monotonic()
        verdict = classify(outcome, pool.options.retry.statuses)
        pool.observe(lease, verdict, now)
        if verdict.good:
            return outcome
        trip.note(lease, outcome, now)
        wait = trip.pause(verdict, outcome, now)
        if wait is None:
            return trip.end(lease, outcome, now)
        lease.release()
        yield Wait(wait)
        lease, send = trip.again()


class _Trip:
    """What one call remembers between its attempts."""

    __slots__ = ("backoffs", "call", "failed", "pool", "tried")

    def __init__(self, pool: Pool, call: Call) -> None:
        self.pool = pool
        self.call = call
        self.tried: list[EndpointState] = []
        self.failed: list[FailedAttempt] = []
        self.backoffs = 0  # since a server named the moment of a retry

    def first(self) -> tuple[Lease, Send]:
        now = self.pool.clock.monotonic()
        self.pool.tally.calls += 1
        sent = self._send(now)
        self.pool.budget.deposit(now)  # what is not sent earns no retries
        return sent

    def again(self) -> tuple[Lease, Send]:
        return self._send(self.pool.clock.monotonic())

    def note(self, lease: Lease, outcome: Outcome, now: float) -> None:
        """Keep it for the errors, and count it."""
        self.failed.append(failed_attempt(outcome, now))
        self.pool.tally.failures[kind(outcome)] += 1

    def pause(self, verdict: Verdict, outcome: Outcome, now: float) -> float | None:
        """Seconds until the next attempt, or None when there is none. Asking the budget spends it, so it is last."""
        options = self.pool.options.retry
        sent = len(self.failed)
        if sent >= options.attempts or not may_repeat(verdict, self.call, options):
            return None
        asked = self._asked(outcome)
        if asked is not None and asked.seconds > options.maximum_retry_after:
            return None
        wait = self._wait(asked)
        if self.call.deadline is not None and now + wait >= self.call.deadline - _EARLY:
            return None
        if not self.pool.budget.withdraw(now):
            self.pool.tally.denied += 1
            return None
        self.pool.tally.retries[kind(outcome)] += 1
        return wait

    def _asked(self, outcome: Outcome) -> Pushback | None:
        if outcome.headers is None:
            return None
        return pushback(outcome.headers, self.pool.options.retry, self.pool.clock.time())

    def _wait(self, asked: Pushback | None) -> float:
        """A server that names the moment is taken at its word, and the backoff begins anew, as in gRFC A6."""
        if asked is not None and asked.exact:
            self.backoffs = 0
            return asked.seconds
        self.backoffs += 1
        wait = backoff(self.backoffs, self.pool.options.retry, self.pool.random)
        return wait if asked is None else max(wait, asked.seconds)

    def end(self, lease: Lease, outcome: Outcome, now: float) -> Outcome:
        """The last attempt was no success: give what there is."""
        outcome.failed = tuple(self.failed)
        if outcome.failure is None:
            return outcome
        lease.release()
        if outcome.failure is Failure.TIMEOUT and self._late(now):
            raise self._timeout()
        if len(self.failed) > 1 and outcome.failure not in (Failure.CANCELLED, Failure.LOCAL):
            text = f"pool {self.pool.name!r}: all {len(self.failed)} attempts failed"
            raise AttemptsFailed(self._listed(text), pool=self.pool.name, attempts=self.failed)
        return outcome

    def _send(self, now: float) -> tuple[Lease, Send]:
        deadline = self.call.deadline
        if deadline is not None and now >= deadline:
            raise self._timeout()
        lease = self._lease(now)
        timeout = self.call.attempt_timeout
        if timeout is None:
            timeout = self.pool.options.retry.attempt_timeout
        if timeout is not None and (deadline is None or now + timeout < deadline):
            deadline = now + timeout
        return lease, Send(Attempt(lease.state.endpoint, len(self.failed), deadline, lease))

    def _lease(self, now: float) -> Lease:
        try:
            return self.pool.lease(self.call.key, self.tried, now, self.call.prefer)
        except (NoHealthyEndpoint, PoolOverflow) as error:
            if not self.failed:
                raise
            text = f"{error}, and the attempts before failed"
            raise AttemptsFailed(self._listed(text), pool=self.pool.name, attempts=self.failed) from None

    def _late(self, now: float) -> bool:
        return self.call.deadline is not None and now >= self.call.deadline - _EARLY

    def _timeout(self) -> CallTimeout:
        count = len(self.failed)
        text = f"pool {self.pool.name!r}: the call's time was over after {count} attempt{'s'[: count != 1]}"
        return CallTimeout(self._listed(text), pool=self.pool.name, attempts=self.failed)

    def _listed(self, text: str) -> str:
        return f"{text}: {'; '.join(map(str, self.failed))}" if self.failed else text
