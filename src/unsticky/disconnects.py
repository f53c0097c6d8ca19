"""Who sent an ASGI request: whether they are still there, with every message of theirs for the app all the same.

A server tells by the message http.disconnect, and only to whoever receives: uvicorn to everybody from then on,
hypercorn once. It says the same when a response is complete. So one receives at a time, here or in the app; what is
received here is kept for the app, and nobody listens any more when the response is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from .context import Arrival

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

PATIENCE = 0.02  # seconds before anybody listens: most calls are done by then, and then it costs them no task
_GONE = "http.disconnect"


def listening(arrival: Arrival, receive: Receive) -> Receive:
    """As `receive`, and the arrival has a client whose leaving is noticed."""
    arrival.client = client = AsgiClient(receive)
    return client.receive


class AsgiClient:
    """Of one HTTP request. Its `receive` is the app's."""

    _timer: asyncio.TimerHandle | None = None
    _listener: asyncio.Task[None] | None = None
    _arrived: asyncio.Event | None = None  # since there is a listener
    _receiving = 0  # by the app
    _begun = _complete = False  # the request, as far as it was received
    _over = False
    gone = False

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio._get_running_loop()  # None: trio's
        self._kept: list[Message] = []  # received here, not by the app yet
        self._calls: set[asyncio.Timeout] = set()

    async def receive(self) -> Message:
        """The request's next message, whoever received it."""
        while not self._kept:
            if self._listener is None or self._arrived is None:
                return await self._receive_here()
            self._arrived.clear()
            await self._arrived.wait()
        if self._kept[0]["type"] == _GONE:
            return self._kept[0]  # and the same to whoever asks again
        return self._kept.pop(0)

    async def while_there(self, call: Coroutine[Any, Any, T], gone: Callable[[], Exception]) -> T:
        """Await `call`; when the client goes away first, cancel it, and raise what `gone` makes.

        The task that awaits goes on: only the call is cancelled. On another event loop than the request's, and once the
        response is complete, it is awaited and no more.
        """
        if self._over or self._loop is None or asyncio._get_running_loop() is not self._loop:
            return await call
        if self.gone:
            call.close()
            raise gone()
        try:
            async with asyncio.timeout(None) as scope:
                self._calls.add(scope)
                if self._timer is None and self._listener is None:
                    self._timer = self._loop.call_later(PATIENCE, self._listen)
                try:
                    return await call
                finally:
                    self._calls.discard(scope)
        except TimeoutError:
            if scope.expired():
                raise gone() from None
            raise

    def end(self) -> None:
        """The response is complete, or there will be none."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()

    async def _receive_here(self) -> Message:
        self._receiving += 1
        try:
            message = await self._receive()
            self._note(message)
        finally:
            self._receiving -= 1
            if self._calls and self._timer is None:
                self._listen()
        return message

    def _note(self, message: Message) -> None:
        if message["type"] != _GONE:
            self._begun, self._complete = True, not message.get("more_body", False)
        elif not self._over and not self.gone:  # once: a call that is being cancelled can't be told again
            self.gone = True
            for scope in self._calls:
                scope.reschedule(0)

    def _listen(self) -> None:
        """Receive, unless the app does, or will because it is in the middle of the body."""
        self._timer = None
        in_the_body = self._begun and not self._complete
        if not (self._over or self.gone or self._receiving or self._listener or in_the_body) and self._calls:
            self._arrived = self._arrived or asyncio.Event()
            self._listener = asyncio.ensure_future(self._hear())
            self._listener.add_done_callback(self._heard)

    async def _hear(self) -> None:
        """Up to the client's leaving, or to a part of the body after which there are more: those are the app's."""
        try:
            while True:
                message = await self._receive()
                self._note(message)
                self._kept.append(message)
                if self._arrived is not None:
                    self._arrived.set()
                if message["type"] == _GONE or not self._complete:
                    return
        except Exception:  # the app will meet it in its own receive
            pass

    def _heard(self, _: object) -> None:
        """Nobody listens any more. A callback: a task that is cancelled before it has begun runs no `finally`."""
        self._listener = None
        if self._arrived is not None:
            self._arrived.set()
