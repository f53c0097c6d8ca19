"""Pools and flows for the tests of routing: small builders, and a driver that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from unsticky.routing.call import Attempt, Call, Endpoint, Failure, Lease, Outcome, Read, Send, Wait
from unsticky.routing.endpoint import EndpointState
from unsticky.routing.flow import route
from unsticky.routing.options import EjectionOptions, HealthOptions, PoolOptions, RetryOptions
from unsticky.routing.pool import Pool
from unsticky.testing import FakeClock

Flow = Generator[Send | Wait | Read, Outcome | None, Outcome]
Answer = Callable[[Attempt], Outcome]


def endpoint(
    name: str, *, weight: int = 1, priority: int = 0, locality: str | None = None, draining: bool = False
) -> Endpoint:
    return Endpoint(f"http://{name}:80", f"{name}:80", weight, priority, locality, draining)


def state(name: str, *, weight: int = 1, priority: int = 0, **fields: Any) -> EndpointState:
    return EndpointState(endpoint(name, weight=weight, priority=priority), **fields)


def make_pool(
    *endpoints: Endpoint | str,
    clock: FakeClock | None = None,
    seed: int = 1,
    retry: RetryOptions | None = None,
    ejection: EjectionOptions | None = None,
    health: HealthOptions | None = None,
    zone: str | None = None,
    **options: Any,
) -> Pool:
    """A pool of the given endpoints, or names of endpoints, at a clock that stands still."""
    made = [endpoint(one) if isinstance(one, str) else one for one in endpoints]
    pool_options = PoolOptions(
        endpoints=(),
        retry=retry or RetryOptions(),
        ejection=ejection or EjectionOptions(),
        health=health or HealthOptions(),
        **options,
    )
    return Pool("catalog", pool_options, clock or FakeClock(), Random(seed), made, locality=zone)


def in_flight(pool: Pool) -> dict[str, int]:
    return {status.endpoint.address: status.in_flight for status in pool.snapshot()}


def respond(status: int, retry_after: str | None = None, **headers: str) -> Answer:
    """`headers` are spelt with `_` for `-`."""
    given = {"retry-after": retry_after} if retry_after is not None else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda attempt: Outcome(attempt, status, given if status >= 400 else None)


def fail(failure: Failure, error: BaseException | None = None) -> Answer:
    return lambda attempt: Outcome(attempt, failure=failure, error=error)


OK = respond(200)
DOWN = fail(Failure.CONNECT, ConnectionRefusedError("GET http://a:80/secret?token=1"))


@dataclass
class Run:
    """What one call did."""

    attempts: list[Attempt] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    outcome: Outcome | None = None
    error: BaseException | None = None

    @property
    def hosts(self) -> list[str]:
        return [attempt.endpoint.address.partition(":")[0] for attempt in self.attempts]

    @property
    def status(self) -> int | None:
        return self.outcome.status if self.outcome else None


def drive(pool: Pool, call: Call, answer: Answer, clock: FakeClock | None = None, *, took: float = 0.0) -> Run:
    """Run one call: each attempt takes `took` seconds and ends as `answer` says, each wait passes on `clock`."""
    run, flow, reply = Run(), route(pool, call), None
    try:
        while True:
            command = flow.send(reply)
            if isinstance(command, Send):
                run.attempts.append(command.attempt)
                if clock:
                    clock.advance(took)
                reply = answer(command.attempt)
            elif isinstance(command, Read):
                reply = command.outcome
            else:
                run.waits.append(command.seconds)
                if clock:
                    clock.advance(command.seconds)
                reply = None
    except StopIteration as stop:
        run.outcome = stop.value
    except Exception as error:
        run.error = error
    return run


def finish(run: Run) -> None:
    """Close the body of the run's response."""
    if run.outcome is not None:
        run.outcome.attempt.lease.release()


def get(pool: Pool, answer: Answer = OK, clock: FakeClock | None = None, **call: Any) -> Run:
    """One GET whose response is read to its end."""
    run = drive(pool, Call("GET", **call), answer, clock)
    finish(run)
    return run


def answers(*given: Answer) -> Answer:
    """One after the other."""
    left = list(given)
    return lambda attempt: left.pop(0)(attempt)


def by_host(**given: Answer) -> Answer:
    """As the endpoint's host name says; OK for the others."""
    return lambda attempt: given.get(attempt.endpoint.address.partition(":")[0], OK)(attempt)


__all__ = [
    "DOWN", "OK", "Answer", "Flow", "Lease", "Run", "answers", "by_host", "drive", "endpoint", "fail", "finish",
    "get", "in_flight", "make_pool", "respond", "state",
]  # fmt: skip
