"""Which replica gets which request. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .step import Step

FRESH = -1  # a replica that nobody used before, and nobody will use again


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a run: the script's `step`, the boot it is served by, and which of that boot's replicas."""

    step: int
    boot: int
    replica: int = 0  # FRESH: a new one


Schedule = tuple[Turn, ...]


def control(steps: Iterable[int], boot: int) -> Schedule:
    """Everything to one replica."""
    return tuple(Turn(step, boot) for step in steps)


def amnesia(steps: Iterable[int], boots: int) -> Schedule:
    """Each request to a fresh replica, of one boot after the other."""
    return tuple(Turn(step, number % boots, FRESH) for number, step in enumerate(steps))


def rotate(steps: Iterable[int], boots: int) -> Schedule:
    """Each request to the next replica, as a load balancer without sticky sessions does."""
    return tuple(Turn(step, number % boots) for number, step in enumerate(steps))


def of_one_boot(schedule: Schedule) -> Schedule:
    """The same with as many replicas, all of them forks of the first boot."""
    return tuple(
        replace(turn, boot=0, replica=turn.replica if turn.replica == FRESH else turn.boot) for turn in schedule
    )


def broadcast(steps: Iterable[int], boots: int) -> Schedule:
    """Runs of the same step, as `expanded` makes them, to all replicas, the others to one: the next each time."""
    turns: list[Turn] = []
    first = 0
    for step in steps:
        again = bool(turns) and turns[-1].step == step
        if not again:
            first += 1
        turns.append(Turn(step, (turns[-1].boot + 1 if again else first) % boots))
    return tuple(turns)


def expanded(script: Iterable[Step], boots: int, *, safe: Callable[[Step], bool] | None = None) -> tuple[int, ...]:
    """The script's steps with each read repeated once per replica. The control of a broadcast repeats them, too."""
    reads = safe or (lambda step: step.method in ("GET", "HEAD", "OPTIONS"))
    return tuple(number for number, step in enumerate(script) for _ in range(boots if reads(step) else 1))
