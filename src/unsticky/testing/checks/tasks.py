"""Tasks of one event loop, for an AsyncStore; any other store passes."""

from __future__ import annotations

import asyncio
from typing import Any

from ...session.store import Applied, Change, Record
from ..trial import Trial, loaded, same


def tasks_lose_no_field(trial: Trial) -> None:
    """A hundred tasks on one loop write a pair of fields each, and each load in between sees whole pairs only."""
    one, key = trial.replica(), trial.key()
    if not one.is_async:
        return
    one.create(key, trial.record())

    async def write(n: int) -> None:
        same(await one.store.update(key, Change(0, put={f"a{n}": b"x", f"b{n}": b"x"})), Applied.APPLIED, "update")
        fields = (await one.store.load(key) or trial.record()).fields
        halves = [{name[1:] for name in fields if name[0] == half} for half in "ab"]
        same(halves[0], halves[1], "one half of the pairs")

    async def main() -> None:
        await asyncio.gather(*(write(n) for n in range(100)))

    one.run(main())
    same(len(loaded(one, key).fields), 200, "the number of fields")


def a_cancelled_task_harms_no_other(trial: Trial) -> None:
    """Tasks load and write sixty sessions at once, and every third is cancelled at some point: the others get theirs.

    A reply that reaches the wrong task shows one user another's session (redis-py #2624).
    """
    one = trial.replica()
    if not one.is_async:
        return
    keys = [trial.key() for _ in range(60)]
    for n, key in enumerate(keys):
        one.create(key, trial.record(own=b"%d" % n))

    async def work(n: int) -> Record | None:
        await one.store.update(keys[n], Change(0, put={"again": b"%d" % n}))
        record: Record | None = await one.store.load(keys[n])
        return record

    for pause in range(12):
        results = one.run(_cancelled_in_between([work(n) for n in range(60)], pause))
        for n, result in enumerate(results):
            if n % 3:
                same(result, trial.record(own=b"%d" % n, again=b"%d" % n), "what a task that was left alone loads")


async def _cancelled_in_between(works: list[Any], pause: int) -> list[Any]:
    """Their results; every third is cancelled after `pause` steps of the loop."""
    tasks = [asyncio.ensure_future(work) for work in works]
    for _ in range(pause):
        await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for error in results:
        if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
            raise error
    return results
