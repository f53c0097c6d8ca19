"""One run: a script sent to replicas by a schedule, over a store that was emptied before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import CheckError
from .fleet import Connected, Fleet
from .responses import Response, cookies
from .schedules import FRESH, Schedule, Turn
from .step import Step
from .wire import Answer, Asked, Changed

_RESET = 60.0  # seconds for a reset of the caller's own


@dataclass(frozen=True, slots=True)
class Ran:
    """What one request of a run came to."""

    turn: Turn
    response: Response
    changed: tuple[Changed, ...]
    files: tuple[str, ...]
    trace: str


@dataclass(slots=True)
class Runner:
    """Runs schedules of one script over one fleet."""

    fleet: Fleet
    script: Sequence[Step]
    reset: str = ""  # "module:function": empties what is outside of the fleet
    asked: Callable[[], None] = lambda: None  # called after each request
    _jar: dict[str, str] = field(default_factory=dict)

    def run(self, schedule: Schedule, *, watched: bool = False, interpreters: bool = False) -> tuple[Ran, ...]:
        """Every request in turn. `interpreters`: each replica is a process of its own instead of a fork."""
        self.fleet.reset()
        if self.reset:
            _call(self.reset)
        self._jar = {}
        kept: dict[tuple[int, int], Connected] = {}
        try:
            return tuple(self._turns(schedule, kept, watched, interpreters))
        finally:
            for replica in kept.values():
                replica.end()

    def _turns(
        self, schedule: Schedule, kept: dict[tuple[int, int], Connected], watched: bool, interpreters: bool
    ) -> Iterator[Ran]:
        make = self.fleet.fresh if interpreters else self.fleet.fork
        seen: list[Response] = []
        for turn in schedule:
            slot = turn.boot, turn.replica
            replica = kept.get(slot) or make(turn.boot)
            kept[slot] = replica
            answer = self.fleet.asked(replica, self._request(turn, seen, watched))
            if turn.replica == FRESH or _is_gone(answer):
                kept.pop(slot).end()
            response = Response(answer.status, tuple(answer.headers), answer.body, answer.failure)
            seen.append(response)
            self._keep_cookies(response)
            self.asked()
            yield Ran(turn, response, tuple(answer.changed), tuple(answer.files), answer.trace)

    def _request(self, turn: Turn, seen: Sequence[Response], watched: bool) -> Asked:
        step = self.script[turn.step]
        headers, body = step.content(seen)
        if self._jar and not any(name == "cookie" for name, _ in headers):
            headers = [*headers, ("cookie", "; ".join(f"{name}={value}" for name, value in self._jar.items()))]
        return Asked(step.method, step.path, headers, body, watched)

    def _keep_cookies(self, response: Response) -> None:
        for name, value in cookies(response):
            if value is None:
                self._jar.pop(name, None)
            else:
                self._jar[name] = value


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
        raise CheckError(f"--reset {target}: {done.stderr.strip().splitlines()[-1:] or 'failed'}")
