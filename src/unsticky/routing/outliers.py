"""What a pool's calls say about its endpoints, and whom that ejects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import inf
from random import Random

from .classify import Fault
from .ejection import (
    by_failure_percentage,
    by_success_rate,
    common,
    eject,
    end_run,
    may_eject,
    over_limit,
    overload_in_a_row,
    overload_mostly,
    take_back,
    well,
)
from .eligibility import Group, ejected
from .endpoint import EndpointState
from .events import Ejected, PoolEvent, Returned
from .options import EjectionOptions


class Outliers:
    """Outlier detection over the endpoints of one pool. Needs no timer: `tick` does what became due.

    Sweeps (success rate, failure percentage) look at what was observed since the one before: of gRPC's two buckets the
    other one would only be read here, so that there is one.
    """

    def __init__(self, options: EjectionOptions, random: Random, tell: Callable[[PoolEvent], None]) -> None:
        self.due = inf  # when `tick` has something to do
        self.changed = False  # somebody was ejected, or is back; set to False by the pool
        self._options = options
        self._random = random
        self._tell = tell
        self._states: Mapping[str, EndpointState] = {}
        self._out = 0  # of these are ejected
        self._succeeded = self._overloaded = 0  # attempts, ever
        self._seen: list[EndpointState] = []  # observed since the last sweep
        self._next_sweep = inf
        self._next_return = inf

    def replace(self, states: Mapping[str, EndpointState]) -> None:
        """The pool's endpoints are these now."""
        self._states = states
        self._out = sum(state.ejected_until is not None for state in states.values())

    def good(self, state: EndpointState, now: float) -> None:
        """A call succeeded, up to its headers. If the endpoint was ejected, that is over."""
        state.observed += 1
        if state.observed == 1:
            self._first_seen(state, now)
        state.succeeded += 1
        self._succeeded += 1
        if state.failing:
            self._recovered(state, now)

    def bad(self, state: EndpointState, fault: Fault, now: float, *, overload: bool = False) -> None:
        """A call failed before its headers, or with them. `overload`: as it may where the endpoint is only overrun."""
        self._note(state, overload=overload)
        if fault is Fault.LOCAL and self._options.split_local_failures:
            state.local_failures += 1
        else:
            state.observed += 1
            if state.observed == 1:
                self._first_seen(state, now)
            state.failures += 1
            state.gateway_failures = 0 if fault is Fault.SERVER else state.gateway_failures + 1
            state.local_failures = 0
        self._judge(state, now)

    def body(self, state: EndpointState, *, broken: bool, now: float) -> None:
        """A good response's body ended, or broke off."""
        state.broken_bodies = state.broken_bodies + 1 if broken else 0
        if broken:
            self._judge(state, now)

    def back(self, state: EndpointState, now: float) -> None:
        """The endpoint proved to be well, or its time is over."""
        take_back(state, now)
        self._out -= 1
        self.changed = True
        self._tell(Returned(state.endpoint))

    def tick(self, now: float) -> None:
        """Do what became due: sweep, and take back."""
        if now >= self._next_sweep:
            self._sweep(now)
        if now >= self._next_return:
            self._return(now)
        self.due = min(self._next_sweep, self._next_return)

    def _first_seen(self, state: EndpointState, now: float) -> None:
        """Observed for the first time since the last sweep."""
        self._seen.append(state)
        if self._next_sweep == inf:
            self._next_sweep = now + self._options.interval
            self.due = min(self.due, self._next_sweep)

    def _note(self, state: EndpointState, *, overload: bool) -> None:
        if not state.failing:
            state.failing = True
            state.before = self._succeeded, self._overloaded
        if not overload:
            state.hard_failures += 1
            return
        state.overload_failures += 1
        state.overloaded += 1
        self._overloaded += 1

    def _recovered(self, state: EndpointState, now: float) -> None:
        """One that failed succeeded. If none is well, they had their trouble in common, and it is over for all.

        Otherwise the few that there was no room to eject, or the first that is back, would have all calls to bear.
        """
        back: Group = (state,) if state.ejected_until is not None else ()
        if not self._anybody_well(state):
            back = ejected(self._states.values())
            self._forget()
        for one in back:
            self.back(one, now)
        end_run(state)

    def _anybody_well(self, first: EndpointState) -> bool:
        return well(first, self._options) or any(well(state, self._options) for state in self._states.values())

    def _judge(self, state: EndpointState, now: float) -> None:
        cause = over_limit(state, self._options)
        if not cause:
            return
        overload = overload_in_a_row(state, cause, self._options)
        if overload and common(*self._of_others(state), self._options):
            return
        failures = state.failures + state.broken_bodies
        failures = state.local_failures if cause == "consecutive_local_failures" else failures
        self._eject(state, cause, failures, now, overload=overload)

    def _of_others(self, state: EndpointState) -> tuple[int, int]:
        """Successes and overload failures of the others, since this one's failures in a row began."""
        succeeded, overloaded = state.before
        return self._succeeded - succeeded, self._overloaded - overloaded - state.overload_failures

    def _sweep(self, now: float) -> None:
        seen = [state for state in self._seen if self._states.get(state.endpoint.url) is state]
        for cause, outliers in _outliers(seen, self._options):
            for state in outliers:
                if state.ejected_until is None:
                    failures = state.observed - state.succeeded
                    self._eject(state, cause, failures, now, overload=overload_mostly(state))
        self._forget()

    def _forget(self) -> None:
        """What was observed says no more: the next sweep looks at what comes after."""
        for state in self._seen:
            state.observed = state.succeeded = state.overloaded = 0
        self._seen.clear()
        self._next_sweep = inf  # until something is observed

    def _eject(self, state: EndpointState, cause: str, failures: int, now: float, *, overload: bool) -> None:
        options = self._options
        if not options.enabled or not may_eject(self._out, len(self._states), options, overload=overload):
            return
        jitter = self._random.random() * options.maximum_jitter if options.maximum_jitter else 0.0
        seconds = eject(state, options, now, jitter)
        self._out += 1
        self._next_return = min(self._next_return, now + seconds)
        self.due = min(self.due, self._next_return)
        self.changed = True
        self._tell(Ejected(state.endpoint, seconds, failures, cause))

    def _return(self, now: float) -> None:
        left = inf
        for state in self._states.values():
            if state.ejected_until is None:
                continue
            if now >= state.ejected_until:
                self.back(state, now)
            else:
                left = min(left, state.ejected_until)
        self._next_return = left


def _outliers(seen: Collection[EndpointState], options: EjectionOptions) -> tuple[tuple[str, list[EndpointState]], ...]:
    return (
        ("success_rate", by_success_rate(seen, options)),
        ("failure_percentage", by_failure_percentage(seen, options)),
    )
