"""Failures that are made up (routing/faults.py), in the place of sending an attempt or before it."""

from __future__ import annotations

import time
from typing import Any

import anyio

from ..routing.call import Failure
from ..routing.faults import Fault
from .hop import Hop

_TEXTS = {
    Failure.CONNECT: "not connected",
    Failure.TIMEOUT: "no response headers in time",
    Failure.BROKEN: "the connection broke",
}


def injected(hop: Hop) -> Any:
    """The response that a fault consists of; None: send the attempt. Raises the library's errors."""
    fault = hop.fault()
    if fault is None:
        return None
    if fault.delay:
        time.sleep(min(fault.delay, hop.patience()))  # noqa: TID251 - drivers sleep
    return _then(hop, fault)


async def injected_async(hop: Hop) -> Any:
    """The same on an event loop."""
    fault = hop.fault()
    if fault is None:
        return None
    if fault.delay:
        await anyio.sleep(min(fault.delay, hop.patience()))
    return _then(hop, fault)


def _then(hop: Hop, fault: Fault) -> Any:
    """What comes after the delay."""
    late = fault.delay >= hop.patience()
    if fault.delay:
        hop.waited()
    abort = Failure.TIMEOUT if late else fault.abort
    if isinstance(abort, Failure):
        raise hop.made_up(abort, _TEXTS[abort])
    return None if abort is None else hop.answered(abort)
