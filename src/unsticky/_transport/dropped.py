"""Bodies whose responses were dropped on an event loop: the garbage collector finds them, their loop closes them."""

from __future__ import annotations

import asyncio

from .streams import OpenBody, end


def close_dropped(loop: asyncio.AbstractEventLoop | None, body: OpenBody) -> None:
    """Close a body in its own loop. Called by the garbage collector: takes no lock.

    Where that loop is gone, or is trio's, only the lease is given back, and the connection goes with its transport.
    """
    if loop is None or loop.is_closed():
        body.end()
        return
    try:
        loop.call_soon_threadsafe(_start_closing, loop, body)
    except RuntimeError:  # closed meanwhile
        body.end()


_closing: set[asyncio.Task[None]] = set()  # event loops keep weak references only


def _start_closing(loop: asyncio.AbstractEventLoop, body: OpenBody) -> None:
    task = loop.create_task(_end(body))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _end(body: OpenBody) -> None:
    if body.end():
        await end(body)
