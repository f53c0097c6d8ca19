"""Sessions in Redis or Valkey, for threads and for event loops.

One string per session under `unsticky:` + key: the record as bytes (see record_bytes). A load is one GET, a create one
SET NX. An update merges its change into the record as the caller knows it, and has a script swap the one for the
other, if the server still has the first: a compare-and-set, one round trip. If it has another one by now, that is
what the script answers, and the change is merged into it instead. Each round that fails is one that another's write
won, and the deadline bounds them all.

The script touches this one key only, so it runs in a cluster. Whether a record has expired is decided by the
application's clock; the server's own expiry, set as the time that is left, only cleans up.

A command is repeated only if it changes nothing (load), the same twice is the same as once (delete), surely nothing
was sent, or the server refused it because another one is to be asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha1
from math import ceil
from typing import Any

from ..clock import Clock
from ..errors import StoreError
from ..session.store import APPLIED, Applied, Change, Record
from .merge import check_names, merge
from .record_bytes import from_bytes, to_bytes
from .redis_access import Access
from .redis_cluster import Cluster
from .redis_pool import AsyncRedisPool, RedisPool
from .redis_resp import Command, ErrorReply, Talk, nonsense, pack, pack_bytes, refusal
from .redis_route import Node, Route, Single
from .redis_sentinel import Sentinels
from .redis_url import RedisTarget, redis_target

_PREFIX = b"unsticky:"
_STORE = "Redis store"
_TOGETHER = 50  # records read in one round trip of a scan, which has one deadline
_LONGEST = 10**14  # milliseconds, 3,000 years: what is later would overflow the server's expiry

# ARGV: the record that is to be there, the one to put in its place ('' for none), milliseconds to live ('' as before).
# 1: done. Anything else is what is there instead.
_SWAP = """
local kept = redis.call('GET', KEYS[1])
if kept ~= ARGV[1] then return kept end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
elseif ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
"""

# A DEL that finds nothing waits for no replica, though an earlier one may not have arrived there: this always writes.
_DELETE = """
if redis.call('DEL', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], '')
  redis.call('DEL', KEYS[1])
end
return 1
"""


class _Script:
    """A script's text, and the digest under which the server keeps it until it restarts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest().encode()

    def call(self, key: bytes, *words: bytes, repeatable: bool = False) -> Command:
        packed = pack_bytes(b"EVALSHA", self.digest, b"1", key, *words)
        return Command(packed, key, lambda: pack("EVAL", self.text, 1, key, *words), repeatable, write=True)


_swap_script = _Script(_SWAP)
_delete_script = _Script(_DELETE)


def open_store(url: str, clock: Clock, timeout: float) -> RedisStore:
    return RedisStore(redis_target(url), clock, timeout)


def open_async_store(url: str, clock: Clock, timeout: float) -> AsyncRedisStore:
    return AsyncRedisStore(redis_target(url), clock, timeout)


def route(target: RedisTarget) -> Route:
    """How its servers are found."""
    nodes = [Node(host, port, target.kind == "sentinel") for host, port in target.addresses]
    if target.kind == "sentinel":
        return Sentinels(nodes, target.primary)
    return Cluster(nodes) if target.kind == "cluster" else Single(nodes[0])


class RedisStore:
    """A Store. A verb takes at most `timeout` seconds, connecting included."""

    def __init__(self, target: RedisTarget, clock: Clock, timeout: float) -> None:
        self._clock = clock
        self._replicas = target.wait_replicas
        self._pool = RedisPool(route(target), Access(target), timeout, target.wait_replicas)

    def load(self, key: str) -> Record | None:
        record = _record(self._pool.ask(_get(_name(key))), key)
        return record if record is not None and record.expires > self._clock.time() else None

    def create(self, key: str, record: Record) -> bool:
        return self._pool.talk(_create(key, record, self._clock))

    def update(self, key: str, change: Change) -> Applied:
        return self._pool.talk(_update(key, change, self._clock))

    def delete(self, key: str) -> None:
        self._pool.ask(_delete(key, self._replicas))

    def scan(self, batch: int = 500) -> Iterator[list[tuple[str, Record]]]:
        """See Scannable. The server is asked for `batch` of all its keys at a time, ours or not."""
        for node in self._pool.primaries():
            cursor = b""
            while cursor != b"0":
                (reply,) = self._pool.ask_all(node, _scan(cursor or b"0", batch), 1)
                cursor, keys = _page(reply)
                if found := self._read(node, keys):
                    yield found

    def _read(self, node: Node, keys: list[bytes]) -> list[tuple[str, Record]]:
        found: list[tuple[str, Record]] = []
        for start in range(0, len(keys), _TOGETHER):
            some = [_get(key) for key in keys[start : start + _TOGETHER]]
            replies = self._pool.ask_all(node, b"".join(command.packed for command in some), len(some))
            for command, reply in zip(some, replies, strict=True):
                moved = type(reply) is ErrorReply and reply.target  # to another server of the cluster, meanwhile
                found += _readable(command.key, self._pool.ask(command) if moved else reply, self._clock.time())
        return found

    def close(self) -> None:
        self._pool.close()


class AsyncRedisStore:
    """An AsyncStore. A verb takes at most `timeout` seconds, connecting included."""

    def __init__(self, target: RedisTarget, clock: Clock, timeout: float) -> None:
        self._clock = clock
        self._replicas = target.wait_replicas
        self._pool = AsyncRedisPool(route(target), Access(target), timeout, target.wait_replicas)

    async def load(self, key: str) -> Record | None:
        record = _record(await self._pool.ask(_get(_name(key))), key)
        return record if record is not None and record.expires > self._clock.time() else None

    async def create(self, key: str, record: Record) -> bool:
        return await self._pool.talk(_create(key, record, self._clock))

    async def update(self, key: str, change: Change) -> Applied:
        return await self._pool.talk(_update(key, change, self._clock))

    async def delete(self, key: str) -> None:
        await self._pool.ask(_delete(key, self._replicas))

    async def aclose(self) -> None:
        await self._pool.aclose()


def _get(name: bytes) -> Command:
    return Command(pack_bytes(b"GET", name), name, None, True)


def _delete(key: str, replicas: int) -> Command:
    if replicas:
        return _delete_script.call(_name(key), repeatable=True)
    return Command(pack("DEL", _name(key)), _name(key), repeatable=True, write=True)


def _name(key: str) -> bytes:
    return _PREFIX + key.encode()


def _create(key: str, record: Record, clock: Clock) -> Talk[bool]:
    name, packed = _name(key), to_bytes(key, record)
    while True:
        now = clock.time()
        lives = _time_left(record.expires, now)
        if _is_new((yield Command(pack_bytes(b"SET", name, packed, b"NX", b"PX", lives), name, write=True))):
            return True
        there = yield _get(name)
        kept = _record(there, key)
        if kept is None:  # it went meanwhile
            continue
        if kept.expires > now:
            return False
        if (yield _swap_script.call(name, there, packed, lives)) == 1:
            return True


def _update(key: str, change: Change, clock: Clock) -> Talk[Applied]:
    check_names(change.put, change.drop, change.expect, [change.owner or ""])
    name, record = _name(key), change.base
    there = b"" if record is None else record.packed or to_bytes(key, record)
    is_there = False  # so far the caller only believes it
    while True:
        now = clock.time()
        applied, after = merge(record, change, now)
        if applied is APPLIED or applied is Applied.EMPTIED:
            packed = to_bytes(key, after) if after is not None else b""
            lives = _time_left(after.expires, now) if after is not None and change.expires is not None else b""
            there = yield _swap_script.call(name, there, packed, lives)
            if there == 1:
                return applied
        elif is_there:
            return applied
        else:
            there = yield _get(name)
        record, is_there = _record(there, key), True


def _scan(cursor: bytes, batch: int) -> bytes:
    return pack("SCAN", cursor, "MATCH", _PREFIX + b"*", "COUNT", batch)


def _time_left(expires: float, now: float) -> bytes:
    """In milliseconds."""
    return b"%d" % max(1, ceil(min((expires - now) * 1000, _LONGEST)))


def _record(reply: Any, key: str) -> Record | None:
    """What a GET found. Raises StoreError if it is not the record of `key`."""
    if reply is None:
        return None
    if type(reply) is not bytes:
        raise nonsense()
    return from_bytes(reply, key, _STORE)


def _is_new(reply: Any) -> bool:
    """What became of a SET NX."""
    if reply is not None and reply != b"OK":
        raise nonsense()
    return reply is not None


def _page(reply: Any) -> tuple[bytes, list[bytes]]:
    """A SCAN's reply: the next cursor, and keys."""
    if type(reply) is ErrorReply:
        raise refusal(reply.code)
    try:
        cursor, keys = reply
    except (TypeError, ValueError):
        raise nonsense() from None
    if type(cursor) is not bytes or type(keys) is not list:
        raise nonsense()
    return cursor, keys


def _readable(name: bytes, reply: Any, now: float) -> Iterator[tuple[str, Record]]:
    """The live record; nothing, if it is damaged, gone or no record at all."""
    with suppress(StoreError, UnicodeDecodeError):
        key = name.decode().removeprefix(_PREFIX.decode())
        record = _record(reply, key)
        if record is not None and record.expires > now:
            yield key, record
