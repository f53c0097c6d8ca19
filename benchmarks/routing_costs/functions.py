"""How many functions a call calls, of Python's and of C's: what no other work on the machine changes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable


async def functions(run: Callable[[int], Awaitable[object]], amount: int = 500) -> float:
    """Per call, of calls that were made before: the first ones make connections, and fill caches."""
    count = 0

    def called(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    await run(amount)
    sys.setprofile(called)
    try:
        await run(amount)
    finally:
        sys.setprofile(None)
    return count / amount
