"""Sessions in Redis or Valkey, for threads and for event loops.

One hash per session under `unsticky:` + key. Our own fields are `c` created, `t` touched, `e` expires (unix seconds),
`g` generation, `o` owner (only if there is one) and `k`, the key once more: a reply that strayed is never accepted.
The session's fields stand under `:` + name. A load is one HGETALL; every script touches this one key only, so it runs
in a cluster. Whether a record has expired is decided by the application's clock, given to the script; the server's
own expiry, set as the time that is left, only cleans up.

A command is repeated only if it changes nothing (load), the same twice is the same as once (delete), surely nothing
was sent, or the server refused it because another one is to be asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha1
from math import ceil
from typing import Any, TypeVar

from ..clock import Clock
from ..errors import DamagedRecord, StoreError
from ..session.store import Applied, Change, Record
from .redis_cluster import Cluster
from .redis_connect import Access
from .redis_pool import AsyncRedisPool, RedisPool
from .redis_resp import Command, ErrorReply, Word, nonsense, pack, refusal
from .redis_route import Node, Route, Single
from .redis_sentinel import Sentinels
from .redis_url import RedisTarget, redis_target

T = TypeVar("T")

_PREFIX = b"unsticky:"
_TOGETHER = 50  # records read in one round trip of a scan, which has one deadline
_LONGEST = 10**14  # milliseconds, 3,000 years: what is later would overflow the server's expiry

# KEYS: the hash. ARGV: now, expires, milliseconds to live, then field, value, ...
_CREATE = """
local expires = redis.call('HGET', KEYS[1], 'e')
if expires and tonumber(expires) > tonumber(ARGV[1]) then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
for i = 4, #ARGV, 4000 do redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 3999, #ARGV))) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

# ARGV: now, generation, what to raise it by, touched, expires, milliseconds to live, owner ('' unchanged, '-' none,
# '=' + owner), delete_if_only ('' or '=' + prefix), number of expects, number of drops; then for each expect its name
# and '' (absent) or '=' + value, the names of the drops, and field, value of each put.
_UPDATE = """
local key, at = KEYS[1], 11
local kept = redis.call('HMGET', key, 'g', 'e', 't')
if not kept[1] or kept[1] ~= ARGV[2] or tonumber(kept[2]) <= tonumber(ARGV[1]) then return 0 end
for _ = 1, ARGV[9] do
  local value = redis.call('HGET', key, ARGV[at])
  if (value and '=' .. value or '') ~= ARGV[at + 1] then return 1 end
  at = at + 2
end
local drops = at
at = at + ARGV[10]
if ARGV[8] ~= '' then
  local prefix, gone, left = ':' .. string.sub(ARGV[8], 2), {}, false
  for i = drops, at - 1 do gone[ARGV[i]] = true end
  local function stays(name)
    return string.sub(name, 1, 1) == ':' and string.sub(name, 1, #prefix) ~= prefix
  end
  for i = at, #ARGV, 2 do left = left or stays(ARGV[i]) end
  if not left then
    for _, name in ipairs(redis.call('HKEYS', key)) do left = left or (stays(name) and not gone[name]) end
  end
  if not left then
    redis.call('DEL', key)
    return 2
  end
end
-- HSET before HDEL: a server without memory refuses it, but only as a script's first write.
for i = at, #ARGV, 4000 do redis.call('HSET', key, unpack(ARGV, i, math.min(i + 3999, #ARGV))) end
for i = drops, at - 1, 4000 do redis.call('HDEL', key, unpack(ARGV, i, math.min(i + 3999, at - 1))) end
if ARGV[3] ~= '0' then redis.call('HINCRBY', key, 'g', ARGV[3]) end
if ARGV[4] ~= '' and tonumber(ARGV[4]) > tonumber(kept[3]) then redis.call('HSET', key, 't', ARGV[4]) end
if ARGV[7] == '-' then redis.call('HDEL', key, 'o') end
if string.sub(ARGV[7], 1, 1) == '=' then redis.call('HSET', key, 'o', string.sub(ARGV[7], 2)) end
if ARGV[5] ~= '' and tonumber(ARGV[5]) > tonumber(kept[2]) then
  redis.call('HSET', key, 'e', ARGV[5])
  redis.call('PEXPIRE', key, ARGV[6])
end
return 3
"""

# A DEL that finds nothing waits for no replica, though an earlier one may not have arrived there: this always writes.
_DELETE = """
if redis.call('DEL', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], '')
  redis.call('DEL', KEYS[1])
end
return 1
"""
_OUTCOMES = (Applied.GONE, Applied.CONFLICT, Applied.EMPTIED, Applied.APPLIED)


class _Script:
    """A script's text, and the digest under which the server keeps it until it restarts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(self, key: bytes, *words: Word, repeatable: bool = False) -> Command:
        packed = pack("EVALSHA", self.digest, 1, key, *words)
        return Command(packed, key, lambda: pack("EVAL", self.text, 1, key, *words), repeatable, write=True)


_create_script = _Script(_CREATE)
_update_script = _Script(_UPDATE)
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
        return _record(self._pool.ask(_load(key)), key, self._clock.time())

    def create(self, key: str, record: Record) -> bool:
        return _chosen((False, True), self._pool.ask(_create(key, record, self._clock.time())))

    def update(self, key: str, change: Change) -> Applied:
        return _chosen(_OUTCOMES, self._pool.ask(_update(key, change, self._clock.time())))

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
            some = [_hgetall(key) for key in keys[start : start + _TOGETHER]]
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
        return _record(await self._pool.ask(_load(key)), key, self._clock.time())

    async def create(self, key: str, record: Record) -> bool:
        return _chosen((False, True), await self._pool.ask(_create(key, record, self._clock.time())))

    async def update(self, key: str, change: Change) -> Applied:
        return _chosen(_OUTCOMES, await self._pool.ask(_update(key, change, self._clock.time())))

    async def delete(self, key: str) -> None:
        await self._pool.ask(_delete(key, self._replicas))

    async def aclose(self) -> None:
        await self._pool.aclose()


def _load(key: str) -> Command:
    return _hgetall(_name(key))


def _hgetall(name: bytes) -> Command:
    return Command(pack("HGETALL", name), name, repeatable=True)


def _delete(key: str, replicas: int) -> Command:
    if replicas:
        return _delete_script.call(_name(key), repeatable=True)
    return Command(pack("DEL", _name(key)), _name(key), repeatable=True, write=True)


def _name(key: str) -> bytes:
    return _PREFIX + key.encode()


def _create(key: str, record: Record, now: float) -> Command:
    fields: list[Word] = ["c", repr(record.created), "t", repr(record.touched), "e", repr(record.expires)]
    fields += ["g", record.generation, "k", key]
    if record.owner:
        fields += ["o", record.owner]
    head = (repr(now), repr(record.expires), _time_left(record.expires, now))
    return _create_script.call(_name(key), *head, *fields, *_pairs(record.fields))


def _update(key: str, change: Change, now: float) -> Command:
    expects: list[Word] = []
    for name, value in change.expect.items():
        expects += [f":{name}", b"" if value is None else b"=" + value]
    drops = [f":{name}" for name in change.drop if name not in change.put]
    owner = "" if change.owner is None else f"={change.owner}" if change.owner else "-"
    only = "" if change.delete_if_only is None else f"={change.delete_if_only}"
    expires = ("", "") if change.expires is None else (repr(change.expires), _time_left(change.expires, now))
    touched = "" if change.touched is None else repr(change.touched)
    head = (repr(now), change.generation, int(change.raise_generation), touched, *expires, owner, only)
    return _update_script.call(_name(key), *head, len(change.expect), len(drops), *expects, *drops, *_pairs(change.put))


def _scan(cursor: bytes, batch: int) -> bytes:
    return pack("SCAN", cursor, "MATCH", _PREFIX + b"*", "COUNT", batch)


def _pairs(fields: Mapping[str, bytes]) -> Iterator[Word]:
    for name, value in fields.items():
        yield f":{name}"
        yield value


def _time_left(expires: float, now: float) -> int:
    return max(1, ceil(min((expires - now) * 1000, _LONGEST)))


def _record(reply: Any, key: str, now: float) -> Record | None:
    """A HGETALL's reply. Raises StoreError if it is not the record of `key`."""
    if reply == []:
        return None
    try:
        pairs = dict(zip(reply[::2], reply[1::2], strict=True))
        if pairs[b"k"] != key.encode():
            raise StoreError("Redis store: a reply for another session was refused")
        expires = float(pairs[b"e"])
        if expires <= now:
            return None
        owner = pairs.get(b"o")
        return Record(
            fields={name[1:].decode(): value for name, value in pairs.items() if name[:1] == b":"},
            created=float(pairs[b"c"]),
            touched=float(pairs[b"t"]),
            expires=expires,
            owner=owner.decode() if owner is not None else None,
            generation=int(pairs[b"g"]),
        )
    except (TypeError, ValueError, KeyError):
        raise DamagedRecord("Redis store: a record is damaged") from None


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
        record = _record(reply, key, now)
        if record is not None:
            yield key, record


def _chosen(outcomes: tuple[T, ...], reply: Any) -> T:
    """What a script's number means."""
    if type(reply) is not int or not 0 <= reply < len(outcomes):
        raise nonsense()
    return outcomes[reply]
