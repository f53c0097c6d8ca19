"""Sessions in Memcached, for threads and for event loops.

One item per session (see record_bytes). Whether a record has expired, the application's clock decides; the server's
own expiry only cleans up.

An update reads the item, merges the change into it, and writes it back if it still is what was read (`gets`, `cas`),
else again: each round that fails is one that another's write won, and the deadline bounds them all. All rounds have one
connection, so that a server which restarts in between can't confuse its numbers. Deleting on condition is a `cas` that
expires at once; a plain delete needs no condition.

With several servers each key has one (rendezvous hashing), and no other if that is away: sessions that came back from
a server which missed a logout would be worse than an error.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import blake2b, sha256
from math import ceil
from typing import TypeVar

from ..clock import Clock, SystemClock
from ..errors import StoreError
from ..session.store import Applied, Change, Record
from .memcached_server import Server
from .memcached_url import HostPort, memcached_hosts
from .memcached_wire import Reply, Talk, add, cas, delete, get, gets
from .merge import check_names, merge
from .record_bytes import from_bytes, to_bytes

T = TypeVar("T")

_MONTH = 30 * 86400  # seconds: the server takes what is more for a time of day
_LAST = 2**31 - 1  # the latest time of day that the server can read
_LONGEST_KEY = 250  # bytes
_AT_ONCE = -1  # an exptime that has passed


def open_store(url: str, clock: Clock, timeout: float) -> MemcachedStore:
    return MemcachedStore(memcached_hosts(url), clock, timeout)


def open_async_store(url: str, clock: Clock, timeout: float) -> AsyncMemcachedStore:
    return AsyncMemcachedStore(memcached_hosts(url), clock, timeout)


class MemcachedStore:
    """A Store. A verb takes at most `timeout` seconds, connecting included (but for the name's lookup)."""

    may_evict = True

    def __init__(self, hosts: tuple[HostPort, ...], clock: Clock, timeout: float) -> None:
        self._clock = clock
        self._servers = {host: Server(host, timeout) for host in hosts}

    def load(self, key: str) -> Record | None:
        return self._talk(key, _load(key, self._clock))

    def create(self, key: str, record: Record) -> bool:
        return self._talk(key, _create(key, record, self._clock))

    def update(self, key: str, change: Change) -> Applied:
        check_names(change.put, change.drop, change.expect, [change.owner or ""])
        return self._talk(key, _update(key, change, self._clock))

    def delete(self, key: str) -> None:
        self._talk(key, _delete(key))

    def close(self) -> None:
        for server in self._servers.values():
            server.close()

    def _talk(self, key: str, talk: Talk[T]) -> T:
        return server_of(self._servers, key).talk(talk)


class AsyncMemcachedStore:
    """An AsyncStore. A verb takes at most `timeout` seconds, connecting included."""

    may_evict = True

    def __init__(self, hosts: tuple[HostPort, ...], clock: Clock, timeout: float) -> None:
        self._clock = clock
        self._servers = {host: Server(host, timeout) for host in hosts}

    async def load(self, key: str) -> Record | None:
        return await self._talk(key, _load(key, self._clock))

    async def create(self, key: str, record: Record) -> bool:
        return await self._talk(key, _create(key, record, self._clock))

    async def update(self, key: str, change: Change) -> Applied:
        check_names(change.put, change.drop, change.expect, [change.owner or ""])
        return await self._talk(key, _update(key, change, self._clock))

    async def delete(self, key: str) -> None:
        await self._talk(key, _delete(key))

    async def aclose(self) -> None:
        for server in self._servers.values():
            server.close()

    async def _talk(self, key: str, talk: Talk[T]) -> T:
        return await server_of(self._servers, key).talk_async(talk)


def _load(key: str, clock: Clock) -> Talk[Record | None]:
    record = _record((yield get(item_key(key))), key)
    return record if record is not None and record.expires > clock.time() else None


def _create(key: str, record: Record, clock: Clock) -> Talk[bool]:
    name, packed = item_key(key), to_bytes(key, record)
    while True:
        now = clock.time()
        if _stored((yield add(name, packed, exptime(record.expires - now))), packed):
            return True
        found = yield gets(name)
        if found.word == "END":  # it went meanwhile
            continue
        kept = _record(found, key)
        if kept is not None and kept.expires > now:
            return False
        if _stored((yield cas(name, packed, exptime(record.expires - now), _seen(found))), packed):
            return True


def _update(key: str, change: Change, clock: Clock) -> Talk[Applied]:
    name = item_key(key)
    while True:
        found, now = (yield gets(name)), clock.time()
        applied, record = merge(_record(found, key), change, now)
        if applied in (Applied.GONE, Applied.CONFLICT):
            return applied
        packed = b"" if record is None else to_bytes(key, record)
        lives = _AT_ONCE if record is None else exptime(record.expires - now)
        if _stored((yield cas(name, packed, lives, _seen(found))), packed):
            return applied


def _delete(key: str) -> Talk[None]:
    reply = yield delete(item_key(key))
    if reply.word not in ("DELETED", "NOT_FOUND"):
        raise _refusal(reply)


def _record(reply: Reply, key: str) -> Record | None:
    """What was found. Empty data is what an emptied session may leave for a moment. Raises StoreError."""
    if reply.word == "END" or (reply.word == "VALUE" and not reply.value):
        return None
    if reply.word != "VALUE":
        raise _refusal(reply)
    return from_bytes(reply.value, key, "Memcached store")


def _seen(reply: Reply) -> int:
    if not reply.cas:
        raise StoreError("Memcached store: the server runs without CAS (-C), so that updates would be lost")
    return reply.cas


def _stored(reply: Reply, packed: bytes) -> bool:
    """False if another was first. Raises StoreError if the server refused the item."""
    if reply.word == "STORED":
        return True
    if reply.word in ("NOT_STORED", "EXISTS", "NOT_FOUND"):
        return False
    if b"too large" in reply.value:
        limit = "the server's limit for an item, which is 1 MB unless it was started with -I"
        raise StoreError(f"Memcached store: a record of {len(packed):,} bytes is over {limit}")
    raise _refusal(reply)


def _refusal(reply: Reply) -> StoreError:
    """Only what the server is known to say is repeated: a stranger's text could hold anything."""
    why = "out of memory" if b"out of memory" in reply.value else reply.word
    return StoreError(f"Memcached store: the server refused the command ({why})")


def exptime(left: float) -> int:
    """What to tell the server about `left` seconds to live: a number of seconds, a time of day, or 0 for never.

    One second more, because its clock ticks once a second and an item could go that much early.
    """
    if left <= _MONTH - 2:
        return max(1, ceil(left)) + 1
    at = SystemClock.time() + left + 1  # only here do the clocks of host and server have to agree, to some minutes
    return ceil(at) if at < _LAST else 0


def item_key(key: str) -> bytes:
    """The item's name: readable if the server can hold it, else a hash. The two can't be equal."""
    name = b"unsticky:" + key.encode()
    if len(name) <= _LONGEST_KEY and all(0x20 < byte < 0x7F for byte in name):
        return name
    return b"unsticky#" + urlsafe_b64encode(sha256(key.encode()).digest())


def server_of(servers: Mapping[HostPort, T], key: str) -> T:
    """Rendezvous hashing: the same for every order of the hosts, and a new host takes keys from all alike."""
    if len(servers) == 1:
        return next(iter(servers.values()))
    encoded = key.encode()
    best = max(servers, key=lambda host: blake2b(b"%b %b" % (str(host).encode(), encoded), digest_size=8).digest())
    return servers[best]
