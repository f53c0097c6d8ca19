"""What is below the driver for event loops: each loop has transports of its own, which end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from importlib import import_module
from typing import Any

from ..clock import Clock
from . import network
from .connections import Inner, Maker, shares
from .endpoint import AsyncEndpointTransport, close_whatever_happens
from .library import Library


class Loops:
    """Transports by event loop. `wire` is the module of one that is not the default."""

    def __init__(self, library: Library, options: dict[str, Any], wire: Any, clock: Clock) -> None:
        self.inner: dict[Any, tuple[Any, AsyncGenerator[None]]] = {}
        self._library = library
        self._options = options
        self._wire = wire
        self._clock = clock

    async def below(self) -> Any:
        """What is below for the running loop, without what is no longer needed."""
        loop = running_loop() or _NO_ASYNCIO
        found = self.inner.get(loop)
        if found is None:
            inner = self._new(loop)
            self.inner[loop] = found = inner, self._until_the_loop_ends(loop, inner)
            await anext(found[1])
        for unused in found[0].swept():
            await close_whatever_happens(unused)
        return found[0]

    def _new(self, loop: Any) -> Any:
        """An Inner, or what stands for it."""
        if self._wire is not None:
            if loop is _NO_ASYNCIO:
                raise RuntimeError('wire = "aiohttp" needs asyncio: on trio use wire = "default"')
            return self._wire.AiohttpTransport(self._library, self._options)
        make = Maker(self._library, "AsyncHTTPTransport", self._options, None if loop is _NO_ASYNCIO else network.use)
        kind = partial(AsyncEndpointTransport, self._library.module)
        return Inner(make, kind, shared=shares(self._options), clock=self._clock)

    async def _until_the_loop_ends(self, loop: Any, inner: Any) -> AsyncGenerator[None]:
        """Event loops finish open generators before they end, so that connections are closed while they can be."""
        try:
            yield
        finally:
            self.inner.pop(loop, None)
            for transport in inner.end():
                await transport.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running loop: those of others close when their loop ends."""
        if found := self.inner.get(running_loop() or _NO_ASYNCIO):
            await found[1].aclose()


def wire_module(name: str, options: dict[str, Any]) -> Any:
    """The module of a wire that is not the default one, which is None. It is imported when it is asked for."""
    if name == "default":
        return None
    if name != "aiohttp":
        raise ValueError(f'wire: expected "default" or "aiohttp", got {name!r}')
    try:
        module = import_module(".aiohttp_wire", __package__)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('wire = "aiohttp" needs: pip install unsticky[aiohttp]', name=error.name) from error
    module.check(options)
    return module


class _NoAsyncio:
    """Stands for trio's loop, of which a thread has one at a time."""


_NO_ASYNCIO = _NoAsyncio()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """None on trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
