"""Is a difference the routing's doing? Without chance, without what only a fork does, and without what time does.

Random numbers of a few values repeat by chance: eight more controls, and the experiment twice more, must agree. Two
forks begin with the same random numbers, and with connections in common, which two processes do not: then the last
repetition is one with interpreters. A later answer may be another one, and an experiment is slower than a control: some
of the controls send each request when the experiment did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import schedules
from .oracle import Comparison, Difference, compare
from .responses import Path, Response
from .runs import Ran, Runner, responses
from .schedules import Schedule

_CONTROLS = 8  # more of them: a coin falls on the same side ten times in a row once in 512
_PACED = 2  # of them; a clock that goes on in the experiment goes on in these, too
_MOST_CONFIRMING = 40  # requests that are sent again to interpreters of their own

Places = set[tuple[int, Path]]


@dataclass(slots=True)
class Confirming:
    """What is left of a comparison when its runs are repeated, up to the last request that differs."""

    name: str  # of the schedule
    runner: Runner
    told: Callable[[str], None]
    schedule: Schedule
    control: Sequence[Response]
    again: Sequence[Response]
    comparison: Comparison

    def __post_init__(self) -> None:
        count = max(one.turn for one in self.comparison.differences) + 1
        self.schedule, self.control, self.again = self.schedule[:count], self.control[:count], self.again[:count]

    def confirmed(self, experiment: Sequence[Ran], noted: Callable[[str], None]) -> Comparison:
        """`experiment`: the run that was compared; `noted`: what is left out for want of time."""
        places = {(one.turn, one.path) for one in self.comparison.differences}
        pace, differ = self._once_more()
        places &= differ
        pace = [max(one.at, later) for one, later in zip(experiment, pace, strict=False)]
        for number in range(_CONTROLS):
            if places:
                places -= self._of_control(number, pace if number < _PACED else ())
        if places:
            places = self._in_processes(places, noted)
        kept = tuple(one for one in self.comparison.differences if (one.turn, one.path) in places)
        return Comparison(kept, self.comparison.unstable, self.comparison.compared)

    def _in_processes(self, places: Places, noted: Callable[[str], None]) -> Places:
        """The last repetition: with interpreters, if forks may be what makes the difference."""
        forks = self.runner.fleet.forks
        doubtful = {(one.turn, one.path) for one in self.comparison.differences if self._may_be_of_a_fork(one)}
        if forks and places & doubtful and len(self.schedule) > _MOST_CONFIRMING:
            noted(f"{self.name}: differences that forks may cause were left out: too many requests to confirm them")
            places -= doubtful
        interpreters = forks and bool(places & doubtful)
        if places:
            pace, differ = self._once_more(interpreters=interpreters)
            places &= differ
            if places and interpreters:
                places -= self._of_control(_CONTROLS, pace)
        return places

    def _once_more(self, *, interpreters: bool = False) -> tuple[list[float], Places]:
        """When each request was sent, and where the answers differ."""
        self.told(f"{self.name}, once more")
        run = self.runner.run(self.schedule, interpreters=interpreters)
        return [ran.at for ran in run], self._differ(run)

    def _of_control(self, number: int, pace: Sequence[float]) -> Places:
        """Where a control differs from its like: there the routing need not be the reason."""
        self.told(f"{self.name}, control {number + 3}")
        boot = number % len(self.runner.fleet.boots)
        steps = [turn.step for turn in self.schedule]
        return self._differ(self.runner.run(schedules.control(steps, boot), pace=pace))

    def _differ(self, run: Sequence[Ran]) -> Places:
        return {(one.turn, one.path) for one in compare(self.control, self.again, responses(run)).differences}

    def _may_be_of_a_fork(self, difference: Difference) -> bool:
        """Two forks share a connection, which then fails: an exception, or a 5xx. Not a page that is not found."""
        failed = difference.path == ("status",) and not difference.found.startswith(("2", "3", "4"))
        return difference.pattern or (failed and not self.control[difference.turn].failure)
