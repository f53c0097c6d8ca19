"""Interleaved rounds of clients, and what their calls took."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter, process_time


@dataclass(frozen=True, slots=True)
class Work:
    """One way to make calls: `run` makes that many."""

    name: str
    run: Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Effort:
    """Rounds, and how many seconds of this process's CPU time one turn of one work takes."""

    rounds: int
    slice: float


@dataclass(slots=True)
class Taken:
    """Microseconds per call, one of each round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


Figures = dict[str, dict[str, float]]  # by part, then by what was measured


def tell(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


async def interleaved(works: list[Work], effort: Effort, part: str) -> dict[str, Taken]:
    """Each round runs each work once, so that a slow phase of the machine meets all of them."""
    amounts = {work.name: await _amount(work, effort.slice) for work in works}
    found = {work.name: Taken() for work in works}
    for number in range(effort.rounds):
        if number % 10 == 0:
            tell(f"{part}: round {number + 1} of {effort.rounds}")
        for work in works:
            amount = amounts[work.name]
            wall, cpu = await _once(work, amount)
            found[work.name].cpu.append(cpu / amount * 1e6)
            found[work.name].wall.append(wall / amount * 1e6)
    return found


async def _amount(work: Work, seconds: float) -> int:
    """As many calls as fill one turn; finding out warms it up."""
    await work.run(3)
    amount = 1
    while (taken := (await _once(work, amount))[1]) < seconds / 4:
        amount *= 2
    return max(1, int(amount * seconds / taken))


async def _once(work: Work, amount: int) -> tuple[float, float]:
    wall, cpu = perf_counter(), process_time()
    await work.run(amount)
    return perf_counter() - wall, process_time() - cpu


def least(taken: dict[str, Taken]) -> dict[str, float]:
    """CPU of the best round, for what only computes: whatever else runs can only add to it."""
    return {name: min(one.cpu) for name, one in taken.items()}


def middle(taken: dict[str, Taken], of: str = "cpu") -> dict[str, float]:
    """The median of the rounds, for what also waits."""
    return {name: median(getattr(one, of)) for name, one in taken.items()}
