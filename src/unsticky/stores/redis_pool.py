"""Connections to Redis or Valkey servers: a few per process for threads, one per event loop.

Both pools make a first attempt, and leave it to the route's course what to do about one that did not go well.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from ..clock import SystemClock
from ..errors import StoreError
from .redis_access import Access
from .redis_connect import connect, open_transport
from .redis_link import Link
from .redis_resp import Command, ErrorReply, LostError, Talk, late, nonsense, pack
from .redis_route import Ask, Leave, Node, Pause, Route, Steps, course
from .redis_wire import Wire, wait_command

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop

_GRACE = 0.3  # seconds; a shared connection isn't given up because one who asks it has less than that left
_IDLE = 64  # connections to one server kept by the threads of one process
_monotonic = SystemClock.monotonic  # deadlines of sockets: the system keeps them, whatever Clock is given
_ASKING = pack("ASKING")
_forks = 0  # that led to this process
_inherited: list[object] = []  # of a parent process: closing them here could disturb it


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class RedisPool:
    """Connections for threads, each used by one thread at a time; the one used last is used next.

    `timeout` bounds each command in all: connecting, redirections and repetitions included.
    """

    def __init__(self, route: Route, access: Access, timeout: float, replicas: int) -> None:
        self._route, self._access = route, access
        self._timeout, self._replicas = timeout, replicas
        self._idle: dict[Node, list[Link]] = {}
        self._born = _forks
        self._epoch = 0  # raised by close(): connections in use then are not kept

    def ask(self, command: Command) -> Any:
        """The reply. Raises StoreError."""
        now = _monotonic()
        return self._ask(command, now, now + self._timeout)

    def talk(self, talk: Talk[T]) -> T:
        """What the talk returns; its commands have one deadline. Raises StoreError."""
        now = _monotonic()
        deadline = now + self._timeout
        command = next(talk)
        while True:
            reply = self._ask(command, now, deadline)
            try:
                command = talk.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            now = _monotonic()

    def _ask(self, command: Command, now: float, deadline: float) -> Any:
        ask = self._route.aim(command, now)
        outcome = None
        if ask is not None:
            outcome = self._asked(ask, deadline)
            if not isinstance(outcome, (ErrorReply, StoreError)):
                return outcome
        return self._follow(course(self._route, command, ask, outcome), deadline)

    def ask_all(self, node: Node, packed: bytes, count: int) -> list[Any]:
        """One server's replies, some perhaps ErrorReply, to `count` commands that change nothing. Raises StoreError."""
        deadline = _monotonic() + self._timeout
        try:
            return self._exchange(node, packed, count, deadline)
        except LostError:
            return self._exchange(node, packed, count, deadline)

    def primaries(self) -> list[Node]:
        """All servers that hold a part of the data. Raises StoreError."""
        return self._follow(self._route.primaries(), _monotonic() + self._timeout)

    def close(self) -> None:
        self._epoch += 1
        for node in tuple(self._idle):
            self._leave(node)

    def _follow(self, steps: Steps[T], deadline: float) -> T:
        outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            outcome = self._do(step, deadline)

    def _do(self, step: Ask | Pause | Leave, deadline: float) -> Any:
        if isinstance(step, Ask):
            now = _monotonic()
            return self._asked(step, now + (deadline - now) * step.share)
        if isinstance(step, Leave):
            return self._leave(step.node)
        if _monotonic() + step.seconds >= deadline:
            raise step.trouble
        return time.sleep(step.seconds)  # noqa: TID251 - drivers sleep

    def _asked(self, ask: Ask, deadline: float) -> Any:
        """What came of it: a reply, an ErrorReply, or a StoreError."""
        waits = bool(ask.write and self._replicas)
        try:
            if not waits and not ask.asking:
                return self._exchange(ask.node, ask.packed, 1, deadline, ask.open_only)[0]
            packed = (_ASKING if ask.asking else b"") + ask.packed
            if waits:
                packed += wait_command(self._replicas, deadline - _monotonic())
            replies = self._exchange(ask.node, packed, 1 + ask.asking + waits, deadline, ask.open_only)
            return acknowledged(replies[ask.asking], replies[-1], self._replicas if waits else 0)
        except StoreError as error:
            return error

    def _exchange(self, node: Node, packed: bytes, count: int, deadline: float, open_only: bool = False) -> list[Any]:
        epoch = self._epoch
        link = self._take(node, deadline, open_only)
        try:
            replies = link.exchange(packed, count, deadline)
        except BaseException as error:
            link.close()
            if isinstance(error, LostError):  # the idle ones broke with it
                self._leave(node)
            raise
        self._give(node, link, epoch)
        return replies

    def _take(self, node: Node, deadline: float, open_only: bool) -> Link:
        """A connection. One that the server has closed meanwhile is not taken."""
        while (link := self._pop(node)) is not None:
            if not link.stale():
                return link
            link.close()
        if open_only:
            raise LostError("Redis store: the connection was lost", sent=False)
        return connect(node, self._access, deadline)

    def _pop(self, node: Node) -> Link | None:
        if self._born != _forks:
            self._let_go()
        links = self._idle.get(node)
        try:
            return links.pop() if links else None
        except IndexError:  # another thread took the last one
            return None

    def _let_go(self) -> None:
        """After a fork: what the parent uses is closed here without a word to the server.

        Several threads may come here at once; none ever waits for another, since a fork can stop any of them for ever.
        """
        parents, self._idle, self._born = self._idle, {}, _forks
        for links in parents.values():
            _close_all(links)

    def _give(self, node: Node, link: Link, epoch: int) -> None:
        links = self._idle.setdefault(node, [])
        if epoch == self._epoch and len(links) < _IDLE:
            links.append(link)
        else:
            link.close()

    def _leave(self, node: Node) -> None:
        _close_all(self._idle.pop(node, []))


def _close_all(links: list[Link]) -> None:
    """Taken out one by one, as those who use them do: nobody may be using what is closed."""
    with suppress(IndexError):
        while True:
            links.pop().close()


def acknowledged(reply: Any, count: Any, replicas: int) -> Any:
    """`reply`, if `count`, the reply to WAIT, is high enough. Raises StoreError."""
    if not replicas or type(reply) is ErrorReply:
        return reply
    if type(count) is not int:
        raise nonsense()
    if count < replicas:
        raise StoreError(
            f"Redis store: the write was not acknowledged: {count} of {replicas} replicas have it (it may be applied)"
        )
    return reply


class AsyncRedisPool:
    """One shared connection to each server for each event loop that asks. What has to wait for replicas has its own."""

    def __init__(self, route: Route, access: Access, timeout: float, replicas: int) -> None:
        self._route, self._access = route, access
        self._timeout, self._replicas = timeout, replicas
        self._wires: dict[Loop, dict[tuple[Node, bool], Wire]] = {}
        self._turns: WeakValueDictionary[tuple[Loop, bytes], asyncio.Lock] = WeakValueDictionary()
        self._born = _forks

    def ask(self, command: Command) -> Coroutine[Any, Any, Any]:
        """The reply. Raises StoreError."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        return self._ask(command, now, now + self._timeout, loop)

    async def talk(self, talk: Talk[T]) -> T:
        """What the talk returns; its commands have one deadline. Raises StoreError."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = now + self._timeout
        reply = await self._ask(next(talk), now, deadline, loop)
        try:
            command = talk.send(reply)
            async with asyncio.timeout_at(deadline), self._turn(loop, command.key):
                while True:
                    now = loop.time()
                    reply = await self._ask(command, now, max(deadline, now + _GRACE), loop)
                    command = talk.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        except TimeoutError:
            raise late() from None

    def _turn(self, loop: Loop, key: bytes) -> asyncio.Lock:
        """Of those who change one record and were not lucky at once: a hundred would else overtake each other."""
        turn = self._turns.get((loop, key))
        if turn is None:
            turn = self._turns[loop, key] = asyncio.Lock()
        return turn

    async def _ask(self, command: Command, now: float, deadline: float, loop: Loop) -> Any:
        ask = self._route.aim(command, now)
        outcome: Any = None
        if ask is not None:
            try:
                if ask.write and self._replicas:
                    outcome = await self._asked(ask, deadline, loop)
                else:  # the same, with less ado
                    outcome = await self._wire((ask.node, False), loop, ask.open_only).ask(ask.packed, deadline)
            except StoreError as error:
                outcome = error
            if not isinstance(outcome, (ErrorReply, StoreError)):
                return outcome
        return await self._follow(course(self._route, command, ask, outcome), deadline, loop)

    async def aclose(self) -> None:
        """Close the connections of all loops; waits for this loop's own."""
        here = asyncio.get_running_loop()
        for loop in tuple(self._wires):
            wires = self._wires.pop(loop, {})
            if loop is here and wires:
                await asyncio.wait([wire.end() for wire in wires.values()])
            for wire in () if loop is here else wires.values():
                if loop.is_closed():
                    wire.bury()
                else:
                    loop.call_soon_threadsafe(wire.end)

    async def _follow(self, steps: Steps[T], deadline: float, loop: Loop) -> T:
        outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            outcome = await self._do(step, deadline, loop)

    async def _do(self, step: Ask | Pause | Leave, deadline: float, loop: Loop) -> Any:
        now = loop.time()
        if isinstance(step, Ask):
            limit = now + (deadline - now) * step.share
            try:
                async with asyncio.timeout_at(limit):
                    return await self._asked(step, limit, loop)
            except StoreError as error:
                return error
            except TimeoutError:
                return late()
        if isinstance(step, Leave):
            return self._leave(step.node, loop)
        if now + step.seconds >= deadline:
            raise step.trouble
        return await asyncio.sleep(step.seconds)

    async def _asked(self, ask: Ask, deadline: float, loop: Loop) -> Any:
        waits = bool(ask.write and self._replicas)
        wire = self._wire((ask.node, waits), loop, ask.open_only)
        if ask.asking:
            wire.ask(_ASKING, deadline).cancel()  # its reply says nothing
        waiter = wire.ask(ask.packed, deadline)
        if not waits:
            return await waiter
        count = wire.acknowledged(self._replicas, deadline)
        reply = await waiter
        if type(reply) is ErrorReply:
            return reply
        return acknowledged(reply, await asyncio.shield(count), self._replicas)

    def _wire(self, key: tuple[Node, bool], loop: Loop, open_only: bool) -> Wire:
        wires = self._wires.get(loop)
        if wires is None or self._born != _forks:
            wires = self._renew(loop)
        wire = wires.get(key)
        if wire is None or wire.closed:
            if open_only:
                raise LostError("Redis store: the connection was lost", sent=False)
            opening = partial(open_transport, key[0], self._access, self._timeout)
            wire = wires[key] = Wire(opening, self._timeout, gathers=key[1])
        return wire

    def _renew(self, loop: Loop) -> dict[tuple[Node, bool], Wire]:
        """A new loop came, or a fork: time to look what has ended."""
        if self._born != _forks:
            _inherited.append(self._wires)
            self._wires, self._born = {}, _forks
        for other in tuple(self._wires):
            if other.is_closed():
                for wire in self._wires.pop(other, {}).values():
                    wire.bury()
        return self._wires.setdefault(loop, {})

    def _leave(self, node: Node, loop: Loop) -> None:
        wires = self._wires.get(loop, {})
        for key in ((node, False), (node, True)):
            if (wire := wires.pop(key, None)) is not None:
                wire.retire()
