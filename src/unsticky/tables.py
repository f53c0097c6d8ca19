"""Tables of hashing balancers, built in the worker's thread a little at a time, so that no caller waits for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from .routing.hashed import Build
from .worker import worker

_PAUSE = 0.001  # seconds between slices, which take less: most of the interpreter's time is left to the callers
_log = logging.getLogger("unsticky.tables")


def aside(lock: AbstractContextManager[object]) -> Callable[[Sequence[Build]], None]:
    """For a `Pool` with this lock: begins to build, and returns at once."""

    def begin(builds: Sequence[Build]) -> None:
        worker.submit(_build(builds, lock))

    return begin


async def _build(builds: Sequence[Build], lock: AbstractContextManager[object]) -> None:
    for build in builds:
        try:
            for _ in build.slices():
                await asyncio.sleep(_PAUSE)
        except Exception:
            _log.exception("a table could not be built; the old one stays")
        with lock:
            build.install()
