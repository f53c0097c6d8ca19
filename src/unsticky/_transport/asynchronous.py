"""The driver for event loops: asyncio and trio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from importlib import import_module
from math import inf
from typing import Any, ClassVar

import anyio

from ..context import Client
from ..errors import RoutingError
from ..pools import Pools, Served
from ..routing.call import Attempt, Outcome, Read, Send, Wait
from ..telemetry.otel import traced_above
from ..worker import in_forked_children
from . import network
from .beginnings import AsyncBeginning, worth_reading
from .connections import Inner, Maker, shares
from .endpoint import AsyncEndpointTransport, close_whatever_happens
from .exchange import Command, Exchange, Hop
from .inbound import disconnected, inbound_client
from .injection import injected_async
from .library import Library
from .race import race_in_nursery, race_of_tasks
from .rescue import Elsewhere, rescue
from .rescue import tell_async as tell
from .streams import AsyncLeasedStream, Guard, OpenBody, directly, end
from .unobserved import in_time, to_the_end
from .ways import chosen


class AsyncDriver:
    """What `AsyncPoolTransport` does. `transport` is the innermost hop; unset, those of the library: see
    `connections`.

    One object serves several event loops, each with connections of its own, and survives a fork; a `transport` of the
    caller's own does what it does.
    """

    library: ClassVar[Library]

    def __init__(self, pools: Pools, transport: Any = None, *, wire: str | None = None, **options: Any) -> None:
        """`options` are those of the library's AsyncHTTPTransport: verify, cert, http2, limits, ...

        `wire` is "default" or "aiohttp"; None: as in the settings. Raises ValueError for options that it does not have.
        """
        self._pools = pools
        self._options = options
        self._given = transport
        self._wire = None if transport is not None else _wire(wire or pools.settings.wire, options)
        # One connection for each request can be thrown away, in whatever state it was left.
        self._closes_cleanly = transport is None and not shares(options)
        self._cancels_cleanly = self._closes_cleanly or self.library.cancels_cleanly
        self._waiting = "pool" if transport is not None else _waiting(options)
        self._of_parents: list[Any] = []
        self._forget()
        in_forked_children(self._forget)

    def _forget(self) -> None:
        """Connections are not shared with a parent process; what is left of its own is kept and never used."""
        self._of_parents.append((vars(self).get("_inner"), vars(self).get("_open")))
        self._inner: dict[Any, tuple[Any, AsyncGenerator[None]]] = {}  # by event loop
        self._open: set[OpenBody] = set()

    async def handle(self, request: Any) -> Any:
        served = self._pools.find(request.url.scheme, request.url.host, request.url.port)
        if served is None:
            return await (await self._straight(request)).handle_async_request(request)
        client = inbound_client(request)
        if client is None:
            return await self._answered(request, served)
        gone = partial(disconnected, self.library, served, request)
        response = await client.while_there(self._answered(request, served), gone)
        if isinstance(response.stream, AsyncLeasedStream):
            response.stream.reading = partial(_read_while_there, client, gone, response.stream.reading)
        return response

    async def _answered(self, request: Any, served: Served, until: float | None = None) -> Any:
        """The response over a pool, or over what steps in for it."""
        way = chosen(self._pools, served, request, until) if served.rules or until is not None else None
        exchange = Exchange(self.library, served, request, way, above=traced_above(self, "handle_async_request"))
        try:
            outcome = await self._drive(exchange)
        except Exception as error:
            if exchange.ended is None or (response := await self._rescued(exchange, error, None)) is None:
                raise
            return response
        if outcome.status in exchange.served.failing:
            return await self._instead(exchange, outcome)
        return self._response_of(outcome)

    async def _instead(self, exchange: Exchange, outcome: Outcome) -> Any:
        """The fallback's response in the place of the one in `outcome`, which stays open until there is one."""
        try:
            response = await self._rescued(exchange, None, outcome)
        except BaseException:
            outcome.attempt.lease.release()
            await self._discard(outcome)
            raise
        if response is None:
            return self._response_of(outcome)
        outcome.attempt.lease.release()
        await self._discard(outcome)
        return response

    async def _rescued(self, exchange: Exchange, error: Exception | None, outcome: Outcome | None) -> Any:
        """The response of the fallback, or None. Handlers are told."""
        steps, reply = rescue(self._pools, exchange, error, outcome), None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                return end.value
            reply = await (self._elsewhere(exchange.request, step) if isinstance(step, Elsewhere) else tell(step))

    async def _elsewhere(self, request: Any, step: Elsewhere) -> Any:
        try:
            return await self._answered(request, step.served, step.until)
        except Exception as error:
            return error

    def _response_of(self, outcome: Outcome) -> Any:
        response: Any = outcome.response
        if response.is_closed or outcome.attempt.lease.released:  # it is read already
            outcome.attempt.lease.release()
        else:
            body = OpenBody(response.stream, outcome.attempt.lease, self._open)
            dropped = partial(_close_dropped, _running_loop())
            response.stream = self.library.async_stream(body, dropped, *self._guards())
        return response

    async def _drive(self, exchange: Exchange) -> Outcome:
        try:
            if (first := exchange.served.first) is not None and first.pending:
                await first.wait_async(exchange.deadline)
            command = exchange.step(None)
            while isinstance(command, (Send, Wait, Read)):
                outcome = None
                if isinstance(command, Send):
                    if command.wait < inf:
                        command = await self._race(exchange, command)
                        break
                    outcome = await self._send(exchange, command.attempt)
                elif isinstance(command, Read):
                    outcome = await self._read(exchange, command)
                else:
                    await anyio.sleep(command.seconds)
                command = await self._next(exchange, outcome)
        except BaseException:
            exchange.close()
            raise
        return exchange.end(command)

    async def _race(self, exchange: Exchange, command: Command) -> Outcome | RoutingError:
        """A call that hedges: the flow is asked again when any of its attempts ends, or its time passed."""
        racing = race_in_nursery if _running_loop() is None else race_of_tasks
        try:
            async with racing(self._discard) as race:
                while isinstance(command, (Send, Wait, Read)):
                    if isinstance(command, Read):
                        race.give_up()
                        outcome: Outcome | None = await self._read(exchange, command)
                    elif isinstance(command, Send):
                        race.start(partial(self._send, exchange, command.attempt))
                        outcome = await race.outcome(command.wait)
                    else:
                        outcome = await race.outcome(command.seconds)
                    command = await self._next(exchange, outcome)
        except BaseException:  # perhaps only when the losers were waited for
            if isinstance(command, Outcome):
                await self._discard(command)
            raise
        return command

    async def _next(self, exchange: Exchange, outcome: Outcome | None) -> Command:
        """What the flow wants now. A response that it does not go on with is closed before."""
        command = exchange.step(outcome)
        if outcome is not None and command is not outcome and not isinstance(command, Read):
            await self._discard(outcome)
        return command

    async def _read(self, exchange: Exchange, command: Read) -> Outcome:
        """The beginning of a body, or all of it: its endpoint's place is given back then."""
        outcome, limit = command.outcome, command.limit
        response: Any = outcome.response
        if response.is_closed or not worth_reading(response, limit):
            return outcome
        beginning = response.stream = AsyncBeginning(response.stream)
        seconds, whole, failed = exchange.seconds_left(outcome.attempt), None, None
        try:
            whole = await self._within(seconds, beginning.read(limit))
        except Exception as error:
            failed = error
        except BaseException:
            await self._discard(outcome)
            raise
        if whole is None:
            await self._discard(outcome)
            return exchange.unread(outcome, failed, seconds)
        if whole:
            await self._discard(outcome)
            outcome.attempt.lease.release()
            response.stream = self.library.module.ByteStream(b"".join(beginning.chunks))
        return outcome

    async def _within(self, seconds: float | None, reading: Coroutine[Any, Any, bool]) -> bool | None:
        if not self._cancels_cleanly and _running_loop() is not None:
            return await to_the_end(reading, seconds=seconds, patience=0)
        return await in_time(reading, seconds)

    async def _send(self, exchange: Exchange, attempt: Attempt) -> Outcome:
        hop = exchange.hop(attempt)
        try:
            with hop.span.sending():
                response = None if exchange.pool.faults is None else await injected_async(hop)
                if response is None:
                    response = await self._response(hop)
        except Exception as error:
            hop.abandon()
            return hop.failed(error)
        except BaseException:
            hop.abandon()
            hop.span.cancelled()
            raise
        if response is None:
            hop.abandon()
            return hop.late(self._waiting)
        return hop.responded(response)

    async def _response(self, hop: Hop) -> Any:
        """The response, or None if its headers were not there in time."""
        if must_not_cancel := self._must_not_cancel(hop):
            hop.own_body()
        transport = self._given or await self._transport(hop.origin, hop.request)
        sending = transport.handle_async_request(hop.request)
        if must_not_cancel:
            return await to_the_end(sending, seconds=hop.seconds, unwanted=_close)
        return await in_time(sending, hop.seconds)

    async def _discard(self, outcome: Outcome) -> None:
        """Close the outcome's response, if it has one."""
        response: Any = outcome.response
        if response is None:
            return
        stream = response.stream  # not the response, which may be handed out with another one
        if _running_loop() is not None:
            await to_the_end(stream.aclose())
            return
        with anyio.CancelScope(shield=True):
            await stream.aclose()

    def _must_not_cancel(self, hop: Hop) -> bool:
        """A TLS handshake that is cancelled would leave its socket open, in both libraries."""
        if self._wire is not None:
            return False
        return (not self._cancels_cleanly or hop.origin.startswith("https")) and _running_loop() is not None

    def _guards(self) -> tuple[Guard, Guard]:
        """For reading a body, and for closing it."""
        if self._closes_cleanly or _running_loop() is None:
            return directly, directly
        return (directly if self._cancels_cleanly else _read_to_the_end), to_the_end

    async def _straight(self, request: Any) -> Any:
        """For a request to a host that is not a pool's."""
        return (await self._below()).straight(request) if self._given is None else self._given

    async def _transport(self, origin: str, request: Any) -> Any:
        """For a request to the endpoint at `origin`."""
        inner = await self._below()
        for unused in inner.swept():
            await close_whatever_happens(unused)
        return inner.of(origin, request)

    async def _below(self) -> Any:
        loop = _running_loop() or _NO_ASYNCIO
        found = self._inner.get(loop)
        if found is None:
            inner = self._new(loop)
            self._inner[loop] = found = inner, self._until_the_loop_ends(loop, inner)
            await anext(found[1])
        return found[0]

    def _new(self, loop: Any) -> Any:
        """What is below for one event loop: an Inner, or what stands for it."""
        if self._wire is not None:
            if loop is _NO_ASYNCIO:
                raise RuntimeError('wire = "aiohttp" needs asyncio: on trio use wire = "default"')
            return self._wire.AiohttpTransport(self.library, self._options)
        make = Maker(self.library, "AsyncHTTPTransport", self._options, None if loop is _NO_ASYNCIO else network.use)
        kind = partial(AsyncEndpointTransport, self.library.module)
        return Inner(make, kind, shared=shares(self._options), clock=self._pools.clock)

    async def _until_the_loop_ends(self, loop: Any, inner: Any) -> AsyncGenerator[None]:
        """Event loops finish open generators before they end, so that connections are closed while they can be."""
        try:
            yield
        finally:
            self._inner.pop(loop, None)
            for transport in inner.end():
                await transport.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running event loop: those of others close when their loop ends."""
        if self._given is not None:
            await self._given.aclose()
        elif found := self._inner.get(_running_loop() or _NO_ASYNCIO):
            await found[1].aclose()


def _wire(name: str, options: dict[str, Any]) -> Any:
    """The module of a wire that is not the default one. It is imported when it is asked for."""
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


def _waiting(options: dict[str, Any]) -> str:
    """What an attempt is at before it connects or writes, as the phase that decides how it failed."""
    if options.get("http2"):  # waits for another's connecting, or for a free stream: perhaps its headers are queued
        return "read"
    limits = options.get("limits")
    return "connect" if limits is None or limits.max_connections is None else "pool"


class _NoAsyncio:
    """Stands for trio's loop, of which a thread has one at a time."""


_NO_ASYNCIO = _NoAsyncio()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # trio
        return None


async def _read_to_the_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """A read that is no longer wanted is cancelled at once, in a task of its own, where it can clean up."""
    return await to_the_end(coroutine, patience=0)


async def _read_while_there(
    client: Client, gone: Callable[[], Exception], reading: Guard, coroutine: Coroutine[Any, Any, Any]
) -> Any:
    if client.gone:
        coroutine.close()
        raise gone()
    return await client.while_there(_started(reading, coroutine), gone)


async def _started(reading: Guard, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await reading(coroutine)


async def _close(response: Any) -> None:
    await response.aclose()


def _close_dropped(loop: asyncio.AbstractEventLoop | None, body: OpenBody) -> None:
    """Close a body whose response was dropped, in its own loop. Called by the garbage collector: takes no lock.

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
