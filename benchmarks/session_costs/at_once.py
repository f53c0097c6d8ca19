"""ASGI, in-process, as an event loop is under load: many requests at once, each in a session of its own.

One after the other, a request waits for its round trips, and nothing can shorten those. At once, what they cost the
process counts: commands that travel together, and pools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from session_costs import asgi
from session_costs.measure import MODES, Effort, Figures, Work, interleaved, over_bare

AT_ONCE = 32
_FEWER = 5  # rounds; a slice of theirs is longer
PART = "at once"


def run(folder: Path, port: int, effort: Effort, figures: Figures) -> None:
    """Measure all stacks, on one event loop. The times are per request."""
    effort = replace(effort, rounds=max(1, effort.rounds // _FEWER))
    with asyncio.Runner() as runner, ExitStack() as closing:
        works = []
        for stack in asgi.all_stacks(folder, port, runner, closing):
            cookies = runner.run(_sessions(stack))
            works += [Work(stack.name, mode, _slice(runner, stack, mode, cookies)) for mode in MODES]
        for key, cost in over_bare(interleaved(works, effort, PART), asgi.BARE).items():
            figures.microseconds[PART, *key] = cost


async def _sessions(stack: asgi.Stack) -> list[bytes]:
    """Cookies of as many sessions as there are requests at once."""
    headers = [await asgi.ask(stack.app, "seed", None) for _ in range(AT_ONCE)]
    return [header[0].split(b";")[0] if header else stack.cookie for header in headers]


def _slice(runner: asyncio.Runner, stack: asgi.Stack, mode: str, cookies: list[bytes]) -> Callable[[int], float]:
    async def ask_at_once(amount: int) -> float:
        started = perf_counter()
        await asyncio.gather(*(asgi.ask_often(stack.app, mode, cookie, amount) for cookie in cookies))
        return (perf_counter() - started) / len(cookies)

    return lambda amount: runner.run(ask_at_once(amount))
