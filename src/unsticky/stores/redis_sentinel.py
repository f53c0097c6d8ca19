"""Redis behind Sentinel: who is the primary is asked from the sentinels, and again whenever a connection opens.

Protocol: "Guidelines for Redis clients with support for Redis Sentinel". The first sentinel that answers is believed,
if the server that it names says by ROLE that it is a primary. A second later it is asked again: after a planned
failover the old primary goes on taking writes that are lost, for ten seconds until the sentinels have stopped it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import StoreError
from .redis_resp import Command, ErrorReply, nonsense, pack, refusal
from .redis_route import Ask, Leave, Node, Steps, attempt, pause

_ROLE = pack("ROLE")
_TRUSTED = 1.0  # seconds, for which a known primary is used without a question


class Sentinels:
    """A Route to the primary that goes by `name`."""

    def __init__(self, sentinels: Sequence[Node], name: str) -> None:
        self._sentinels = tuple(sentinels)  # the one that knew last comes first
        self._question = pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        self._primary: Node | None = None
        self._asked_at = float("-inf")

    def aim(self, command: Command, now: float) -> Ask | None:
        """On an open connection only: a primary that fell and rises again may not be the primary any more."""
        if self._primary is None or now - self._asked_at > _TRUSTED:
            self._asked_at = now  # one caller asks; the others go on meanwhile with what is known
            return None
        return Ask(self._primary, command.packed, command.write, open_only=True)

    def again(self, command: Command, ask: Ask | None, trouble: StoreError, tries: int) -> Steps[Ask]:
        if ask is None and self._primary is not None:
            return (yield from self._confirmed(self._primary, command))
        if tries:
            yield pause(tries, trouble)
        return attempt((yield from self._find()), command)

    def _confirmed(self, known: Node, command: Command) -> Steps[Ask]:
        """The first sentinel's word, if it has another primary now. One that is away changes nothing."""
        named = _address((yield Ask(self._sentinels[0], self._question, share=0.3)))
        if isinstance(named, StoreError):
            self._sentinels = (*self._sentinels[1:], self._sentinels[0])
        elif named != known and _is_primary((yield Ask(named, _ROLE, share=0.3))):
            yield from self._keep(self._sentinels[0], named)
            return attempt(named, command)
        return Ask(known, command.packed, command.write, open_only=True)

    def redirected(self, command: Command, ask: Ask, reply: ErrorReply) -> Steps[Ask]:
        yield from ()
        raise refusal(reply.code)

    def suspect(self, node: Node) -> None:
        self._asked_at = float("-inf")

    def primaries(self) -> Steps[list[Node]]:
        return [(yield from self._find())]

    def _find(self) -> Steps[Node]:
        """The primary; asks until the time is over."""
        tries = 0
        while True:
            trouble: StoreError = nonsense()
            for sentinel in self._sentinels:
                found = yield from self._asked(sentinel)
                if isinstance(found, Node):
                    yield from self._keep(sentinel, found)
                    return found
                trouble = found
            yield pause(tries, trouble)
            tries += 1

    def _asked(self, sentinel: Node) -> Steps[Node | StoreError]:
        node = _address((yield Ask(sentinel, self._question, share=1 / (1 + len(self._sentinels)))))
        if isinstance(node, StoreError):
            return node
        role = yield Ask(node, _ROLE, share=0.5)
        if _is_primary(role):
            return node
        if isinstance(role, list):
            yield Leave(node)
            return StoreError("Redis store: the server that the sentinels name is no primary")
        return _trouble(role)

    def _keep(self, sentinel: Node, primary: Node) -> Steps[None]:
        before, self._primary = self._primary, primary
        if self._sentinels[0] != sentinel:
            self._sentinels = (sentinel, *(one for one in self._sentinels if one != sentinel))
        if before is not None and before != primary:
            yield Leave(before)


def _is_primary(role: Any) -> bool:
    return isinstance(role, list) and role[:1] == [b"master"]


def _address(reply: Any) -> Node | StoreError:
    if reply is None:
        return StoreError("Redis store: the sentinels know no primary of this name")
    try:
        host, port = reply
        return Node(host.decode(), int(port))
    except (AttributeError, TypeError, ValueError):
        return _trouble(reply)


def _trouble(outcome: Any) -> StoreError:
    if isinstance(outcome, ErrorReply):
        return refusal(outcome.code)
    return outcome if isinstance(outcome, StoreError) else nonsense()
