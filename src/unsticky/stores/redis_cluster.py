"""Redis Cluster: a key's slot says which server has it. The map of slots is learned from the servers themselves.

Formula and redirections: the Redis Cluster specification ("Key distribution model", "Redirection and resharding").
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import StoreError
from .redis_resp import Command, ErrorReply, nonsense, pack, refusal
from .redis_route import Ask, Leave, Node, Steps, attempt, pause

SLOTS = 16384
_QUESTION = pack("CLUSTER", "SLOTS")

SlotMap = dict[int, Node]  # slot: its primary


def slot(key: bytes) -> int:
    """CRC16 (XMODEM) of the key, or of what stands between its first `{` and the next `}`, modulo 16384."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class Cluster:
    """A Route by slots. `seeds` are asked for the map first."""

    def __init__(self, seeds: Sequence[Node]) -> None:
        self._seeds = tuple(seeds)
        self._map: SlotMap = {}
        self._suspect: Node | None = None

    def aim(self, command: Command, now: float) -> Ask | None:
        node = self._map.get(slot(command.key))
        return None if node is None or node == self._suspect else Ask(node, command.packed, command.write)

    def again(self, command: Command, ask: Ask | None, trouble: StoreError, tries: int) -> Steps[Ask]:
        if tries:
            yield pause(tries, trouble)
        if ask is None:  # its slot is not known, or its server hung when it was asked last
            suspect, self._suspect = self._suspect, None
            yield from self._learn(self._map, suspect)
        elif "(TRYAGAIN)" not in str(trouble):
            yield from self._learn(self._map, ask.node)
        return (yield from self._aimed(command))

    def redirected(self, command: Command, ask: Ask, reply: ErrorReply) -> Steps[Ask]:
        """ASK is for this one command. MOVED is for good, and a sign that other slots moved too."""
        number, node = _redirection(reply.target, ask.node)
        if reply.code == "ASK":
            return ask._replace(node=node, asking=True)
        if self._map.get(number) != node:
            known = self._map = {**self._map, number: node}
            yield from self._ask_map(node, known)
        elif node == ask.node:
            yield pause(2, refusal(reply.code))
        return ask._replace(node=node, asking=False)

    def suspect(self, node: Node) -> None:
        self._suspect = node

    def primaries(self) -> Steps[list[Node]]:
        yield from self._learn(self._map, None)
        return sorted(set(self._map.values()))

    def _aimed(self, command: Command) -> Steps[Ask]:
        tries = 0
        while (node := self._map.get(slot(command.key))) is None:
            yield pause(tries, StoreError("Redis store: no server of the cluster has this slot"))
            yield from self._learn(self._map, None)
            tries += 1
        return attempt(node, command)

    def _learn(self, known: SlotMap, failed: Node | None) -> Steps[None]:
        """Replace the map, unless somebody else did it since it was `known`. `failed` is asked last."""
        tries = 0
        while self._map is known:
            trouble = None
            for node in sorted({*known.values(), *self._seeds}, key=lambda node: (node == failed, node)):
                trouble = yield from self._ask_map(node, known)
                if trouble is None:
                    return
            yield pause(tries, trouble or nonsense())
            tries += 1

    def _ask_map(self, node: Node, known: SlotMap) -> Steps[StoreError | None]:
        """Replace the map, if it still is the `known` one, by what `node` says; or what is wrong with that."""
        learned = _slot_map((yield Ask(node, _QUESTION, share=0.4)), node)
        if isinstance(learned, StoreError):
            return learned
        if self._map is known:
            self._map = learned
            for gone in {*known.values()} - {*learned.values()}:
                yield Leave(gone)
        return None


def _redirection(target: str, asked: Node) -> tuple[int, Node]:
    """`3999 127.0.0.1:6381`; without a host it is the one that was asked."""
    try:
        number, address = target.split(" ")[:2]
        host, port = address.rsplit(":", 1)
        return int(number), Node(_host(host, asked), int(port))
    except ValueError:
        raise nonsense() from None


def _host(host: str, asked: Node) -> str:
    return asked.host if host in ("", "?") else host


def _slot_map(reply: Any, asked: Node) -> SlotMap | StoreError:
    """A CLUSTER SLOTS reply: first slot, last slot, primary, replicas... An empty one is no map."""
    if isinstance(reply, StoreError):
        return reply
    if isinstance(reply, ErrorReply):
        return refusal(reply.code)
    try:
        found = {number: node for span, node in _spans(reply, asked) for number in span}
    except (AttributeError, IndexError, TypeError, ValueError):
        return nonsense()
    return found or StoreError("Redis store: the cluster has no slots yet")


def _spans(reply: Any, asked: Node) -> Iterator[tuple[range, Node]]:
    for first, last, primary, *_ in reply:
        if not 0 <= first <= last < SLOTS:
            raise ValueError
        host = (primary[0] or b"").decode()
        yield range(first, last + 1), Node(_host(host, asked), int(primary[1]))
