"""Where endpoints come from: the protocols of a discovery, and what its answers mean for a pool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Protocol, runtime_checkable

from ..errors import DiscoveryError
from .call import Endpoint
from .discovery_options import DiscoveryOptions
from .events import DiscoveryFailed, DiscoveryRecovered, EndpointsChanged, PoolEvent

_INTERVAL = {"file": 1.0}  # seconds between two looks, where neither the settings nor the source say it
_USUAL = 30.0
_FIRST_RETRY = 1.0  # seconds; doubled with each failure in a row, up to the interval
_EAGER = 0.25  # the same while there was no answer yet: calls are waiting
_LOG_AGAIN = 60.0  # seconds from one line about a failing source to the next


class Discovery(Protocol):
    """A source of endpoints. It is asked in a thread in the background, again and again."""

    def discover(self) -> Iterable[Endpoint]:
        """The whole set, never a delta. On any exception the last set stays; `DiscoveryError` says why."""
        ...


class AsyncDiscovery(Protocol):
    """The same, awaited in an event loop in the background, which it must not block."""

    async def discover(self) -> Iterable[Endpoint]: ...


Source = Discovery | AsyncDiscovery


@runtime_checkable
class Paced(Protocol):
    """A discovery that knows when it is worth asking again, because its answers have a time to live."""

    def due_in(self) -> float:
        """Seconds from now. Asked after each good answer."""
        ...


@dataclass(frozen=True, slots=True)
class DiscoveryStatus:
    """How a pool's discovery is at a moment."""

    source: str  # in words, such as "dns A catalog.internal"
    found: int | None  # endpoints in the last good answer; None: there was none yet
    age: float | None  # seconds since then
    problem: str = ""  # why it fails now; "" when it does not
    failing_for: float = 0.0  # seconds


def described(options: DiscoveryOptions) -> str:
    """The source in words."""
    if options.type == "file":
        return f"file {options.path}"
    return f"dns {options.record} {options.name}" if options.type == "dns" else options.type


class Findings:
    """What a source has told so far, and what follows from it. Pure: times are monotonic seconds."""

    def __init__(self, options: DiscoveryOptions, static: Iterable[Endpoint] = ()) -> None:
        """`static` are endpoints that are there whatever the source says."""
        self.events: list[PoolEvent] = []
        self.lines: list[str] = []  # for the log: not more than one a minute about failures
        self._options = options
        self._static = frozenset(static)
        self._found: frozenset[Endpoint] | None = None
        self._answered = self._failing_since = 0.0
        self._problem = ""
        self._failures = 0  # in a row
        self._logged_at: float | None = None
        self._logged = False  # this failure

    @property
    def known(self) -> bool:
        """There was a good answer, or there are endpoints without one."""
        return self._found is not None or bool(self._static)

    @property
    def problem(self) -> str:
        """With its source, for errors of calls that find no endpoint; "" when there is none."""
        problem = self._problem or ("" if self.known else "no answer yet")
        return problem and f"{described(self._options)}: {problem}"

    def answered(self, answer: object, now: float) -> frozenset[Endpoint]:
        """The pool's whole set from now on. Raises DiscoveryError about an answer that is none."""
        found = _checked(answer)
        if not found and not self._options.allow_empty:
            raise DiscoveryError("it found no endpoints (allow_empty = true would let it)")
        if self._found is not None and found != self._found:
            added, removed = len(found - self._found), len(self._found - found)
            self.events.append(EndpointsChanged(added, removed, len(found)))
        self._found, self._answered = found, now
        if self._failures:
            self._recovered(now)
        return found | self._static

    def failed(self, problem: str, now: float) -> None:
        """There was no answer, and `problem` says why. The last set stays."""
        self._failures += 1
        self._problem = problem
        if self._failures > 1:
            return
        self._failing_since = now
        self.events.append(DiscoveryFailed(described(self._options), problem))
        self._logged = self._logged_at is None or now - self._logged_at >= _LOG_AGAIN
        if self._logged:
            self._logged_at = now
            kept = "no endpoints are known yet" if self._found is None else f"the last {len(self._found)} stay"
            self.lines.append(f"{self.problem}; {kept}")

    def pause(self, paced: float | None, random: Random) -> float:
        """Seconds until the next look. `paced`: what the source says itself."""
        usual = self._options.interval or _INTERVAL.get(self._options.type, _USUAL)
        if self._failures:
            first = _FIRST_RETRY if self._found is not None else _EAGER
            seconds = min(usual, first * 2.0 ** min(self._failures - 1, 10))
            return seconds * random.uniform(0.8, 1.2)
        return max(usual * random.uniform(0.9, 1.1) if paced is None else paced, 0.01)

    def status(self, now: float) -> DiscoveryStatus:
        known = self._found is not None
        return DiscoveryStatus(
            described(self._options),
            len(self._found) if self._found is not None else None,
            now - self._answered if known else None,
            self._problem,
            now - self._failing_since if self._problem else 0.0,
        )

    def _recovered(self, now: float) -> None:
        self._failures, self._problem = 0, ""
        self.events.append(DiscoveryRecovered(described(self._options), now - self._failing_since))
        if self._logged:
            self.lines.append(
                f"{described(self._options)}: found endpoints again, after {now - self._failing_since:.0f} s"
            )


def _checked(answer: object) -> frozenset[Endpoint]:
    if not isinstance(answer, Iterable):
        raise DiscoveryError(f"discover() returned {type(answer).__name__}, expected a set of Endpoint")
    found = frozenset(answer)
    for one in found:
        if not isinstance(one, Endpoint):
            raise DiscoveryError(f"discover() found a {type(one).__name__}, expected Endpoint")
    return found
