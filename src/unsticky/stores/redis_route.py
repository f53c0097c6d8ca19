"""Which Redis server gets a command, and what to do when it does not answer well: decisions, without any I/O.

A Route knows where servers are. `course` is what the pools follow after a first attempt that did not go well: a
generator that yields a Step and receives what came of it. It is the same for threads and for event loops.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import StoreError
from .redis_resp import Command, ErrorReply, LostError, late, refusal

T = TypeVar("T")

# Refusals of a server that is not (or not yet, or no longer) the one to ask: nothing was applied.
_ELSEWHERE = frozenset({"CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN"})
_PAUSES = (0.005, 0.01, 0.02, 0.04, 0.08)  # seconds


class Node(NamedTuple):
    """A server's address. Sentinels have credentials of their own."""

    host: str
    port: int
    sentinel: bool = False


class Ask(NamedTuple):
    """Send a command. What came of it is its reply, an ErrorReply, or a StoreError (as a value, not raised)."""

    node: Node
    packed: bytes
    write: bool = False  # replicas may have to acknowledge it
    asking: bool = False  # a slot on the move: the node answers only if ASKING comes first
    open_only: bool = False  # without an open connection to the node, answer with a LostError
    share: float = 1.0  # of the time that is left


class Pause(NamedTuple):
    """Wait. If there is no time left for that, `trouble` is what the caller shall see."""

    seconds: float
    trouble: StoreError


class Leave(NamedTuple):
    """Keep no connection to the node: it is not the one that it was."""

    node: Node


Steps = Generator[Ask | Pause | Leave, Any, T]


class Route(Protocol):
    """Where the servers are. One object serves all threads and loops: its state is replaced whole, never changed."""

    def aim(self, command: Command, now: float) -> Ask | None:
        """The usual attempt; None if it is not known (any more) where to. `now`: seconds of a clock that runs on."""
        ...

    def again(self, command: Command, ask: Ask | None, trouble: StoreError, tries: int) -> Steps[Ask]:
        """The next attempt, after `trouble` that left nothing applied. Raises StoreError if there is none.

        `ask`: what failed; None if nothing was tried yet.
        """
        ...

    def redirected(self, command: Command, ask: Ask, reply: ErrorReply) -> Steps[Ask]:
        """The next attempt, after a MOVED or ASK. Raises StoreError."""
        ...

    def suspect(self, node: Node) -> None:
        """It did not answer well, and there was no time left to ask elsewhere: the next command should look first."""
        ...

    def primaries(self) -> Steps[list[Node]]:
        """All servers that hold a part of the data. Raises StoreError."""
        ...


def course(route: Route, command: Command, ask: Ask | None, outcome: Any) -> Steps[Any]:
    """From the outcome of a first attempt (`ask` None: there was none) to the reply. Raises StoreError."""
    tries = 0
    while ask is None or isinstance(outcome, (ErrorReply, StoreError)):
        ask = yield from _next(route, command, ask, outcome, tries)
        outcome = yield ask
        tries += 1
    return outcome


def _next(route: Route, command: Command, ask: Ask | None, outcome: Any, tries: int) -> Steps[Ask]:
    if ask is None:
        return (yield from route.again(command, None, late(), tries))
    if isinstance(outcome, StoreError):
        if not isinstance(outcome, LostError) or (outcome.sent and not command.repeatable):
            route.suspect(ask.node)
            raise outcome
        return (yield from route.again(command, ask, outcome, tries))
    if outcome.code == "NOSCRIPT" and command.whole is not None and ask.packed is command.packed:
        return ask._replace(packed=command.whole())
    if outcome.target:
        return (yield from route.redirected(command, ask, outcome))
    if outcome.code in _ELSEWHERE:
        yield Leave(ask.node)
        return (yield from route.again(command, ask, refusal(outcome.code), tries))
    raise refusal(outcome.code)


def attempt(node: Node, command: Command) -> Ask:
    return Ask(node, command.packed, command.write)


def pause(tries: int, trouble: StoreError) -> Pause:
    """Longer each time."""
    return Pause(_PAUSES[min(tries, len(_PAUSES) - 1)], trouble)


class Single:
    """One server. What goes wrong is tried once more, on a new connection, if it may be."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def aim(self, command: Command, now: float) -> Ask:
        return attempt(self._node, command)

    def again(self, command: Command, ask: Ask | None, trouble: StoreError, tries: int) -> Steps[Ask]:
        """A name may lead to another server by now, so READONLY is worth a new connection; who loads takes longer."""
        loading = "(LOADING)" in str(trouble)
        if tries or loading or (isinstance(trouble, LostError) and trouble.opening):
            raise trouble
        yield from ()
        return attempt(self._node, command)

    def redirected(self, command: Command, ask: Ask, reply: ErrorReply) -> Steps[Ask]:
        yield from ()
        raise StoreError('Redis store: this server is part of a cluster: the URL begins with "redis+cluster://"')

    def suspect(self, node: Node) -> None:
        """There is no other."""

    def primaries(self) -> Steps[list[Node]]:
        yield from ()
        return [self._node]
