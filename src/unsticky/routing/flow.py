"""One call over a pool, from the first pick to the last outcome."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from math import inf

from ..errors import AttemptsFailed, CallTimeout, FailedAttempt, NoHealthyEndpoint, PoolOverflow, RoutingError
from .call import Attempt, Call, Failure, Lease, Outcome, Read, Send, Wait
from .classify import Verdict, classify, failed_attempt, kind
from .endpoint import EndpointState
from .hedging import Hedging
from .pool import Pool
from .pushback import Pushback, pushback
from .retry import backoff, is_idempotent, may_repeat

_EARLY = 0.001  # timers may fire a little before their time
_FOREVER = Wait(inf)
_THE_CALLERS = (Failure.CANCELLED, Failure.LOCAL)


def route(pool: Pool, call: Call) -> Generator[Send | Wait | Read, Outcome | None, Outcome]:
    """Decide one call: yield what to do, receive how it went. The package's docstring says what a driver does.

    An attempt that should and may be repeated is followed by `Wait(backoff or pushback)`, then by `Send` on another
    endpoint: each endpoint once before any is used twice. Repeats need an attempt left, time left, and budget.

    With hedging a `Send` waits for a while only, and when that passed (None) another one follows, on an endpoint that
    the call did not use. It is an attempt like the others and pays like a retry. The first good outcome ends the call;
    a failure does not, as long as another attempt is in flight.

    Returns the last Outcome: a response of any status, or the failure of the only attempt, or one that was CANCELLED or
    LOCAL. Raises AttemptsFailed, CallTimeout (the call's deadline passed) NoHealthyEndpoint or
    PoolOverflow (nothing was sent).
    """
    now = pool.clock.monotonic()
    pool.tally.calls += 1
    if call.deadline is not None and now >= call.deadline:
        raise _timeout(pool, ())
    tried: list[EndpointState] = []
    attempt = _attempt(pool, call, tried, now)
    pool.budget.deposit(now)  # what is not sent earns no retries
    trip: _Trip | None = None
    command: Send | Wait | Read | Outcome
    try:
        if pool.hedging is None and not call.buffer:  # most such calls are over before there is anything to remember
            outcome = yield Send(attempt)
            while outcome is None:
                outcome = yield _FOREVER
            now = pool.clock.monotonic()
            verdict = classify(outcome, pool.options.retry.statuses)
            pool.observe(attempt.lease, verdict, now)
            if verdict.good:
                return outcome
            trip = _Trip(pool, call, tried, attempt.lease)
            command = trip.failed(attempt.lease, verdict, outcome, now)
        else:
            trip = _Trip(pool, call, tried, attempt.lease)
            command = trip.sent(attempt, now)
        while not isinstance(command, Outcome):
            command = trip.next((yield command))
        return command
    except BaseException:  # closed: the caller went away
        attempt.lease.release()
        if trip is not None:
            trip.leave()
        raise


def _attempt(
    pool: Pool, call: Call, tried: list[EndpointState], now: float, dropped: int = 0, *, hedge: bool = False
) -> Attempt:
    """On the endpoint that a call which used `tried` so far should use next; adds it there."""
    lease = pool.lease(call.key, tried, now, call.prefer)
    deadline, timeout = call.deadline, call.attempt_timeout
    if timeout is None:
        timeout = pool.options.retry.attempt_timeout
    if timeout is not None and (deadline is None or now + timeout < deadline):
        deadline = now + timeout
    return Attempt(lease.state.endpoint, len(tried) + dropped - 1, deadline, lease, hedge)


class _Trip:
    """What one call remembers between its attempts, where there is more than one, or may be."""

    def __init__(self, pool: Pool, call: Call, tried: list[EndpointState], first: Lease) -> None:
        self.pool = pool
        self.call = call
        self.tried = tried  # one per attempt that was not dropped
        self.flying = [first]  # attempts in flight
        self.failures: list[FailedAttempt] = []
        self.backoffs = 0  # since a server named the moment of a retry
        self.retry_at: float | None = None  # when a retry is due that is paid for
        self.due = False  # a hedge is, when the driver says that time passed
        self.hedges = 0
        self.dropped = 0  # attempts that were outrun
        self.reading = False  # the body of what would be the answer
        self.repeatable = call.retry and call.replayable and is_idempotent(call, pool.options.retry)
        hedged = self.repeatable and call.hedge and (call.prefer is None or not call.prefer.only)
        self.hedging: Hedging | None = pool.hedging if hedged else None

    def sent(self, attempt: Attempt, now: float) -> Send:
        """How an attempt begins that was leased."""
        if self.hedging is None:
            return Send(attempt)
        patience = self._patience(now)
        self.due = patience < inf
        return Send(attempt, patience)

    def next(self, outcome: Outcome | None) -> Send | Wait | Read | Outcome:
        """What follows from an attempt's outcome, or from nothing but time."""
        pool = self.pool
        now = pool.clock.monotonic()
        if outcome is None:
            return self._time_passed(now)
        if self.reading:
            return self._was_read(outcome, now)
        lease = outcome.attempt.lease
        verdict = classify(outcome, pool.options.retry.statuses)
        pool.observe(lease, verdict, now)
        if self.hedging is not None:
            self._time(self.hedging, lease, outcome, verdict, now)
        if not verdict.good:
            return self.failed(lease, verdict, outcome, now)
        if self.call.buffer and self.repeatable and len(self.tried) < pool.options.retry.attempts:
            self.reading = True
            return Read(outcome, self.call.buffer)
        return outcome

    def leave(self) -> None:
        """Give back what attempts in flight hold."""
        for lease in self.flying:
            lease.release()
        self.flying.clear()

    # Hedges -----------------------------------------------------------------

    def _time_passed(self, now: float) -> Send | Wait:
        if self.retry_at is not None:
            self.retry_at = None
            return self._again(now)
        if self.due:
            self.due = False
            return self._hedge(now)
        return _FOREVER  # asked too early

    def _hedge(self, now: float) -> Send | Wait:
        """Another attempt beside those in flight, if there is one to make. Paying for it comes last."""
        pool = self.pool
        if self._late(now) or not pool.has_untried(self.tried):
            return _FOREVER
        if not pool.budget.withdraw(now):
            pool.tally.denied += 1
            return _FOREVER
        self.hedges += 1
        pool.tally.hedges += 1
        return self._again(now, hedge=True)

    def _again(self, now: float, *, hedge: bool = False) -> Send | Wait:
        try:
            return self._send(now, hedge=hedge)
        except RoutingError:
            if not self.flying:
                raise
            return _FOREVER  # there is still hope

    def _patience(self, now: float) -> float:
        """Seconds until a hedge is due, if no outcome comes before; inf: none is."""
        hedging, pool, deadline = self.hedging, self.pool, self.call.deadline
        if hedging is None or self.hedges >= hedging.maximum or len(self.tried) >= pool.options.retry.attempts:
            return inf
        if len(self.tried) >= pool.size:  # for certain there is no other endpoint
            return inf
        delay = hedging.delay(now)
        return delay if deadline is None or now + delay < deadline - _EARLY else inf

    def _time(self, hedging: Hedging, lease: Lease, outcome: Outcome, verdict: Verdict, now: float) -> None:
        """What the outcome says of the pool's latencies. A good one ends the other attempts."""
        if outcome.failure is Failure.TIMEOUT:
            hedging.outrun(now - lease.began, now)
        if not verdict.good:
            return
        hedging.answered(now - lease.began, now)
        for other in self.flying:
            if other is not lease:
                hedging.outrun(now - other.began, now)
                self.pool.outrun(other, now)
                other.release()
                # It failed nobody: if the answer's body breaks off, it may well be the one to ask.
                self.tried.remove(other.state)
                self.dropped += 1
        self.flying, self.due = [lease], False

    # Failures ---------------------------------------------------------------

    def failed(self, lease: Lease, verdict: Verdict, outcome: Outcome, now: float) -> Wait | Outcome:
        self.flying.remove(lease)
        self.failures.append(failed_attempt(outcome, now))
        self.pool.tally.failures[kind(outcome)] += 1
        if self.flying and outcome.failure in _THE_CALLERS:
            self.leave()
        self.due = False  # from now on it is the retry's turn
        wait = self._until_retry(verdict, outcome, now)
        if wait is None and not self.flying:
            return self.end(lease, outcome, now)
        lease.release()
        return _FOREVER if wait is None else Wait(wait)

    def _until_retry(self, verdict: Verdict, outcome: Outcome, now: float) -> float | None:
        """Seconds until the next attempt, or None when there is none."""
        if self.retry_at is not None:  # another one failed before, and was patient
            if self.flying or may_repeat(verdict, self.call, self.pool.options.retry):
                return max(0.0, self.retry_at - now)
            return None
        wait = self._pause(verdict, outcome, now)
        if wait is not None:
            self.retry_at = now + wait
        return wait

    def _pause(self, verdict: Verdict, outcome: Outcome, now: float) -> float | None:
        """Seconds until a retry, or None when there is none. Asking the budget spends it, so it is last."""
        options = self.pool.options.retry
        if len(self.tried) >= options.attempts or not may_repeat(verdict, self.call, options):
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

    def _was_read(self, outcome: Outcome, now: float) -> Wait | Outcome:
        """The body is there, or broke off: a second observation of the endpoint (the headers were fine)."""
        self.reading = False
        if outcome.failure is None:
            return outcome
        lease = outcome.attempt.lease
        if outcome.failure not in _THE_CALLERS:
            lease.body_failed()
        return self.failed(lease, classify(outcome, ()), outcome, now)

    def end(self, lease: Lease, outcome: Outcome, now: float) -> Outcome:
        """The last attempt was no success: give what there is."""
        outcome.failed = tuple(self.failures)
        if outcome.failure is None:
            return outcome
        lease.release()
        if outcome.failure is Failure.TIMEOUT and self._late(now):
            raise _timeout(self.pool, self.failures)
        if len(self.failures) > 1 and outcome.failure not in _THE_CALLERS:
            text = f"pool {self.pool.name!r}: all {len(self.failures)} attempts failed"
            raise AttemptsFailed(_listed(text, self.failures), pool=self.pool.name, attempts=self.failures)
        return outcome

    def _send(self, now: float, *, hedge: bool = False) -> Send:
        call, pool = self.call, self.pool
        if call.deadline is not None and now >= call.deadline:
            raise _timeout(pool, self.failures)
        try:
            attempt = _attempt(pool, call, self.tried, now, self.dropped, hedge=hedge)
        except (NoHealthyEndpoint, PoolOverflow) as error:
            if not self.failures:
                raise
            text = f"{error}, and the attempts before failed"
            raise AttemptsFailed(_listed(text, self.failures), pool=pool.name, attempts=self.failures) from None
        self.flying.append(attempt.lease)
        return self.sent(attempt, now)

    def _late(self, now: float) -> bool:
        return self.call.deadline is not None and now >= self.call.deadline - _EARLY


def _timeout(pool: Pool, failures: Sequence[FailedAttempt]) -> CallTimeout:
    count = len(failures)
    text = f"pool {pool.name!r}: the call's time was over after {count} attempt{'s'[: count != 1]}"
    return CallTimeout(_listed(text, failures), pool=pool.name, attempts=failures)


def _listed(text: str, failures: Sequence[FailedAttempt]) -> str:
    return f"{text}: {'; '.join(map(str, failures))}" if failures else text
