"""One run: a script sent to replicas by a schedule, over a store that was emptied before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event

from ..clock import Clock, SystemClock
from ..errors import CheckError, ScriptError
from .fleet import Connected, Fleet
from .responses import Response, cookies
from .schedules import FRESH, Schedule, Turn
from .step import Headers, SeenResponse, Step
from .wire import Answer, Asked, Changed

_MOST_ALIVE = 24  # replicas at once; then the oldest ends
_RESET = 60.0  # seconds for a reset of the caller's own


@dataclass(frozen=True, slots=True)
class Ran:
    """What one request of a run came to."""

    turn: Turn
    response: Response
    changed: tuple[Changed, ...]
    files: tuple[str, ...]
    trace: str
    at: float = 0.0  # seconds from the run's start, when it was sent


def responses(run: Sequence[Ran]) -> list[Response]:
    return [ran.response for ran in run]


@dataclass(slots=True)
class Runner:
    """Runs schedules of one script over one fleet."""

    fleet: Fleet
    script: Sequence[Step]
    reset: str = ""  # "module:function": empties what is outside of the fleet
    asked: Callable[[], None] = lambda: None  # called after each request
    clock: Clock = field(default_factory=SystemClock)
    _jar: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        schedule: Schedule,
        *,
        watched: bool = False,
        interpreters: bool = False,
        put_back: str = "",
        pace: Sequence[float] = (),
    ) -> tuple[Ran, ...]:
        """Every request in turn. `interpreters`: each replica is a process of its own instead of a fork.

        `put_back`: a variable that is before each request as it was before the first; if it can't be, nothing is run.
        `pace`: seconds from the start, before which each request is not sent.
        """
        self.fleet.reset()
        if self.reset:
            _call(self.reset)
        self._jar = {}
        kept: dict[tuple[int, int], Connected] = {}
        try:
            if put_back and not self._keeps(schedule[0], kept, put_back):
                return ()
            return tuple(self._turns(schedule, kept, watched, interpreters, pace))
        except (KeyboardInterrupt, SystemExit):  # a request may hang: who interrupts does not wait for it
            while kept:
                kept.popitem()[1].drop()
            raise
        finally:
            for replica in kept.values():
                replica.end()

    def _keeps(self, turn: Turn, kept: dict[tuple[int, int], Connected], name: str) -> bool:
        """The control's replica, before its first request."""
        kept[turn.boot, -turn.replica] = replica = self.fleet.fork(turn.boot)
        return self.fleet.keep(replica, name)

    def _turns(
        self,
        schedule: Schedule,
        kept: dict[tuple[int, int], Connected],
        watched: bool,
        interpreters: bool,
        pace: Sequence[float],
    ) -> Iterator[Ran]:
        started = self.clock.monotonic()
        make = self.fleet.fresh if interpreters else self.fleet.fork
        seen: dict[int, Response] = {}  # by step; of one that is repeated the latest
        for number, turn in enumerate(schedule):
            # A fresh one lives on until the run is over: what it does after its response is part of the request.
            slot = turn.boot, number + 1 if turn.replica == FRESH else -turn.replica
            replica = kept.get(slot) or make(turn.boot)
            kept[slot] = replica
            if pace and (early := pace[number] - (self.clock.monotonic() - started)) > 0:
                Event().wait(early)
            at = self.clock.monotonic() - started
            answer = self._answer(replica, turn, seen, watched)
            if _is_gone(answer):
                kept.pop(slot).end()
            if len(kept) > _MOST_ALIVE:
                kept.pop(next(iter(kept))).end()
            response = Response(answer.status, tuple(answer.headers), answer.body, answer.failure)
            seen[turn.step] = response
            self._keep_cookies(response)
            self.asked()
            yield Ran(turn, response, tuple(answer.changed), tuple(answer.files), answer.trace, at)

    def _answer(self, replica: Connected, turn: Turn, seen: Mapping[int, Response], watched: bool) -> Answer:
        """What a request came to; also if it can't be made, because an earlier response was not what it was before."""
        try:
            request = self._request(turn, seen, watched)
        except ScriptError as error:
            return Answer(failure="the script has no request for what came before", trace=str(error))
        return self.fleet.asked(replica, request)

    def _request(self, turn: Turn, seen: Mapping[int, Response], watched: bool) -> Asked:
        step = self.script[turn.step]
        asks = callable(step.path) or callable(step.options)
        before = [_seen(seen[number]) for number in range(turn.step)] if asks else ()
        path, (headers, body) = step.target(before), step.content(before)
        if self._jar and not any(name == "cookie" for name, _ in headers):
            headers = [*headers, ("cookie", "; ".join(f"{name}={value}" for name, value in self._jar.items()))]
        return Asked(step.method, path, headers, body, watched)

    def _keep_cookies(self, response: Response) -> None:
        for name, value in cookies(response):
            if value is None:
                self._jar.pop(name, None)
            else:
                self._jar[name] = value


def _seen(response: Response) -> SeenResponse:
    return SeenResponse(response.status, Headers(response.headers), response.text)


def _is_gone(answer: Answer) -> bool:
    return answer.failure.startswith(("no answer", "the replica"))


def _call(target: str) -> None:
    """Run a function in an interpreter of its own. Raises CheckError with what it said."""
    module, _, name = target.partition(":")
    code = f"import importlib; importlib.import_module({module!r}).{name or 'reset'}()"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_RESET)
    except subprocess.TimeoutExpired:
        raise CheckError(f"--reset {target}: not done within {_RESET:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CheckError(f"--reset {target}: {said[-1] if said else 'failed'}")
