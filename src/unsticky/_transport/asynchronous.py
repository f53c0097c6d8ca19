"""The driver for event loops: asyncio and trio."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from typing import Any, ClassVar

import anyio

from ..context import Client, current
from ..errors import RoutingError
from ..pools import Pools, Served
from ..routing.call import Attempt, Outcome, Read, Send, Wait
from ..telemetry.contexts import AS_IT_IS, traced_above
from ..worker import in_forked_children
from .beginnings import AsyncBeginning, worth_reading
from .connections import shares
from .dropped import close_dropped
from .exchange import Command, Exchange
from .hop import Hop
from .inbound import disconnected, inbound_client
from .injection import injected_async
from .library import Library
from .loops import Loops, running_loop, wire_module
from .race import race_in_nursery, race_of_tasks
from .rescue import Elsewhere, rescue
from .rescue import tell_async as tell
from .streams import AsyncLeasedStream, Guard, OpenBody, directly
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
        self._wire = None if transport is not None else wire_module(wire or pools.settings.wire, options)
        # One connection for each request can be thrown away, in whatever state it was left.
        self._closes_cleanly = transport is None and not shares(options)
        self._cancels_cleanly = self._closes_cleanly or self.library.cancels_cleanly
        self._waiting = "pool" if transport is not None else _waiting(options)
        self._of_parents: list[Any] = []
        self._forget()
        in_forked_children(self._forget)

    def _forget(self) -> None:
        """Connections are not shared with a parent process; what is left of its own is kept and never used."""
        self._of_parents.append((vars(self).get("_loops"), vars(self).get("_open")))
        self._loops = Loops(self.library, self._options, self._wire, self._pools.clock)
        self._open: set[OpenBody] = set()

    async def handle(self, request: Any) -> Any:
        served = self._pools.find(request.url.scheme, request.url.host, request.url.port)
        if served is None:
            return await (await self._straight(request)).handle_async_request(request)
        client = None if current.get() is None else inbound_client(request)
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
            dropped = partial(close_dropped, running_loop())
            response.stream = self.library.async_stream(body, dropped, *self._guards())
        return response

    async def _drive(self, exchange: Exchange) -> Outcome:
        try:
            if (first := exchange.served.first) is not None and first.pending:
                await first.wait_async(exchange.deadline)
            command = exchange.step(None)
            while True:
                outcome = None
                if isinstance(command, Send):
                    if command.wait < inf:
                        command = await self._race(exchange, command)
                        break
                    outcome = await self._send(exchange, command.attempt)
                elif isinstance(command, Wait):
                    await anyio.sleep(command.seconds)
                elif isinstance(command, Read):
                    outcome = await self._read(exchange, command)
                else:
                    break
                command = exchange.step(outcome)
                if command is not outcome:
                    await self._left(outcome, command)
        except BaseException:
            exchange.close()
            raise
        return exchange.end(command)

    async def _race(self, exchange: Exchange, command: Command) -> Outcome | RoutingError:
        """A call that hedges: the flow is asked again when any of its attempts ends, or its time passed."""
        racing = race_in_nursery if running_loop() is None else race_of_tasks
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
                    command = exchange.step(outcome)
                    await self._left(outcome, command)
        except BaseException:  # perhaps only when the losers were waited for
            if isinstance(command, Outcome):
                await self._discard(command)
            raise
        return command

    async def _left(self, outcome: Outcome | None, command: Command) -> None:
        """Close a response that the flow does not go on with: any `command` but these says so."""
        if outcome is not None and command is not outcome and not isinstance(command, Read):
            await self._discard(outcome)

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
        if not self._cancels_cleanly and running_loop() is not None:
            return await to_the_end(reading, seconds=seconds, patience=0)
        return await in_time(reading, seconds)

    async def _send(self, exchange: Exchange, attempt: Attempt) -> Outcome:
        hop = exchange.hop(attempt)
        attached = hop.span.sending()
        try:
            if attached is AS_IT_IS:
                response = await self._response(exchange, hop)
            else:
                with attached:
                    response = await self._response(exchange, hop)
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

    async def _response(self, exchange: Exchange, hop: Hop) -> Any:
        """The response, or None if its headers were not there in time."""
        if exchange.pool.faults is not None and (response := await injected_async(hop)) is not None:
            return response
        if must_not_cancel := self._must_not_cancel(hop):
            hop.own_body()
        transport = self._given or (await self._loops.below()).of(hop.origin, hop.request)
        sending = transport.handle_async_request(hop.request)
        if must_not_cancel:
            return await to_the_end(sending, seconds=hop.seconds, unwanted=_close)
        return await (sending if hop.seconds is None else in_time(sending, hop.seconds))

    async def _discard(self, outcome: Outcome) -> None:
        """Close the outcome's response, if it has one."""
        response: Any = outcome.response
        if response is None:
            return
        stream = response.stream  # not the response, which may be handed out with another one
        if running_loop() is not None:
            await to_the_end(stream.aclose())
            return
        with anyio.CancelScope(shield=True):
            await stream.aclose()

    def _must_not_cancel(self, hop: Hop) -> bool:
        """A TLS handshake that is cancelled would leave its socket open, in both libraries."""
        if self._wire is not None or (self._cancels_cleanly and not hop.origin.startswith("https")):
            return False
        return running_loop() is not None

    def _guards(self) -> tuple[Guard, Guard]:
        """For reading a body, and for closing it."""
        if self._closes_cleanly or running_loop() is None:
            return directly, directly
        return (directly if self._cancels_cleanly else _read_to_the_end), to_the_end

    async def _straight(self, request: Any) -> Any:
        """For a request to a host that is not a pool's."""
        return (await self._loops.below()).straight(request) if self._given is None else self._given

    async def aclose(self) -> None:
        """Close the connections of the running event loop: those of others close when their loop ends."""
        await (self._loops if self._given is None else self._given).aclose()


def _waiting(options: dict[str, Any]) -> str:
    """What an attempt is at before it connects or writes, as the phase that decides how it failed."""
    if options.get("http2"):  # waits for another's connecting, or for a free stream: perhaps its headers are queued
        return "read"
    limits = options.get("limits")
    return "connect" if limits is None or limits.max_connections is None else "pool"


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
