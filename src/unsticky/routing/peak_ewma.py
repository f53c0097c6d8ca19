"""Peak EWMA of Finagle: how long an endpoint takes to answer, quick to see a slow answer, slow to forget it.

Finagle PeakEwma.scala, and Envoy's peak_ewma for the constants. What differs: an answer's time ends with its headers;
attempts that failed in a row count as if they were pending, and never make an endpoint look fast, as a refused
connection takes no time at all.
"""

from __future__ import annotations

from collections.abc import Collection
from math import exp
from random import Random

from .draw import Draws
from .eligibility import Group
from .endpoint import EndpointState

PENALTY = float((2**63 - 1) >> 16) / 1e9  # seconds; Finagle's, which is in nanoseconds
NEVER_ANSWERED = 1.0  # seconds that the failure of an unknown endpoint counts as: it is tried again as they fade


def observe(state: EndpointState, seconds: float, now: float, decay: float) -> None:
    """The endpoint answered after `seconds`. `now` is monotonic seconds, `decay` the mean lifetime of what was seen."""
    if seconds > state.rtt:
        state.rtt = seconds
    else:
        weight = exp(min(0.0, state.rtt_at - now) / decay)
        state.rtt = state.rtt * weight + seconds * (1.0 - weight)
    state.rtt_at = now


def observe_failure(state: EndpointState, seconds: float, now: float) -> None:
    """An attempt failed after `seconds`: that can only make the endpoint look slower."""
    if not state.rtt:
        seconds = max(seconds, NEVER_ANSWERED)
    if seconds > state.rtt:
        state.rtt, state.rtt_at = seconds, now


def observe_unanswered(state: EndpointState, seconds: float, now: float) -> None:
    """An attempt was given up after `seconds` without an answer: it would have taken at least as long."""
    if seconds > state.rtt:
        state.rtt, state.rtt_at = seconds, now


def cost(rtt: float, pending: float, *, unknown: float = 0.0, penalty: float = PENALTY) -> float:
    """What one more call would wait, in the unit of `rtt`.

    An endpoint that never answered costs `unknown` (0: it is tried at once) while it has no call, and then `penalty`
    and more: it is probed by one call at a time.
    """
    if rtt > 0.0:
        return rtt * (pending + 1.0)
    return penalty + pending if pending else unknown


class PeakEwma:
    """Of two endpoints that are drawn by weight, the one with the lower cost; the first of equals.

    Where weights differ, calls in flight count in proportion to the mean weight over the endpoint's own.
    """

    def __init__(self, random: Random, decay: float) -> None:
        """`decay`: the mean lifetime of what was seen, in seconds."""
        self._draws = Draws(random)
        self._decay = decay

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState], now: float) -> EndpointState:
        draw = self._draws.among(group, tried)
        if len(draw.group) == 1:
            return draw.group[0]
        first, second = draw.two()
        mean = draw.mean_weight
        return first if self._cost(first, mean, now) <= self._cost(second, mean, now) else second

    def _cost(self, state: EndpointState, mean: float | None, now: float) -> float:
        """As in Finagle a look observes 0 seconds, so that what is not used is forgotten."""
        rtt = state.rtt
        if rtt and now > state.rtt_at:
            state.rtt = rtt = rtt * exp((state.rtt_at - now) / self._decay)
            state.rtt_at = now
        pending: float = state.in_flight + state.failures
        return cost(rtt, pending if mean is None else pending * mean / state.weight)
