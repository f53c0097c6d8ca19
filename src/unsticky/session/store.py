"""What a session store must do: bytes by key, with four atomic verbs. It knows no HTTP, no cookie, no policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable


@dataclass(slots=True)
class Record:
    """What a store holds for one session. Nobody changes one; freezing it would cost each load a microsecond."""

    fields: Mapping[str, bytes]  # one encoded value per top-level key, and the proofs under reserved names
    created: float  # unix seconds
    touched: float  # unix seconds of the last throttled touch
    expires: float  # unix seconds; when the store may forget it. Whether it is still valid, policy alone judges
    owner: str | None = None  # the user's index key; "" is stored as None
    generation: int = 0  # raised by a strict rotation
    # All of it, or its fields, as the store that it came from holds them: a hint for that store's next write.
    packed: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class Change:
    """What to do to an existing record: applied atomically, or not at all. A name in `drop` and `put` is put.

    Nobody changes one, as with Record.
    """

    generation: int  # must equal the record's
    put: Mapping[str, bytes] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()  # absent names are fine
    expect: Mapping[str, bytes | None] = field(default_factory=dict)  # fields that must hold these bytes; None: absent
    touched: float | None = None  # never moves a record's `touched` back
    expires: float | None = None  # replaces the record's; never moves it back
    owner: str | None = None  # None: unchanged; "": no owner any more
    raise_generation: bool = False
    # Delete the record instead, if after put and drop no field is left but those whose name starts with this prefix
    # ("": whatever is left).
    delete_if_only: str | None = None
    # The record as it was loaded, which may be old by now. A hint: a store may write if its record is still this one,
    # instead of reading it again.
    base: Record | None = None
    # What the change makes of `base`, if whoever asks for it has worked that out: no store has to do it again.
    after: Record | None = None


class Applied(Enum):
    """What became of a Change. GONE is found before CONFLICT."""

    APPLIED = "applied"
    EMPTIED = "emptied"  # applied, and the record was deleted, because `delete_if_only` asked for it
    GONE = "gone"  # no such record, past its `expires`, or another generation: nothing was written
    CONFLICT = "conflict"  # `expect` did not hold: nothing was written


APPLIED = Applied.APPLIED  # asked for at each write: on Python 3.11 a member of an Enum costs as much as a call


class Store(Protocol):
    """A store for threads. Every verb raises StoreError for system failures only, with no secret in its text.

    A record that is there and can't be read is a DamagedRecord. A store that may drop records before their `expires`
    to make room says so with an attribute, `may_evict = True`: it is not trusted with lists of an owner's sessions. One
    that asks no network says `local = True`: no breaker stands in front of it.

    A write that ends in StoreError was either applied whole or not at all; which one can't be known. A field name or
    owner that UTF-8 can't hold (a lone surrogate) is a ValueError, and nothing is written.

    One object serves all threads of a process and survives a fork. It takes its Clock, and the deadline of one
    operation in seconds, at construction. The Clock alone decides what has expired: the store's own never does.
    """

    def load(self, key: str) -> Record | None:
        """The record, or None if there is none or its `expires` has passed (`expires <= now`)."""
        ...

    def create(self, key: str, record: Record) -> bool:
        """Store `record`. False, and nothing written, if a live one exists."""
        ...

    def update(self, key: str, change: Change) -> Applied:
        """Apply `change` in one atomic step. Never creates a record."""
        ...

    def delete(self, key: str) -> None:
        """Remove the record. One that is absent is fine."""
        ...

    def close(self) -> None:
        """Give connections back. May be called twice; any later verb opens them again."""
        ...


class AsyncStore(Protocol):
    """The same for event loops. One object serves several loops. Cancelling a verb never harms another caller.

    A write that is cancelled may still be applied.
    """

    async def load(self, key: str) -> Record | None: ...

    async def create(self, key: str, record: Record) -> bool: ...

    async def update(self, key: str, change: Change) -> Applied: ...

    async def delete(self, key: str) -> None: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class ImmediateLoad(Protocol):
    """Ability of an AsyncStore that answers a load within microseconds: it may be asked on the event loop's thread."""

    def load_now(self, key: str) -> Record | None: ...


@runtime_checkable
class Purgeable(Protocol):
    """Ability of a store that does not forget by itself. `purge` blocks, of an AsyncStore too: call it in a thread."""

    def purge(self, limit: int = 1000) -> int:
        """Delete at most `limit` records that are past their `expires`; return how many."""
        ...


@runtime_checkable
class Scannable(Protocol):
    """Ability of a Store to show all that it holds, for administration."""

    def scan(self, batch: int = 500) -> Iterator[list[tuple[str, Record]]]:
        """Key and record of all that is live, in batches of about `batch`.

        A record that stays for the whole scan is seen, perhaps twice; those that come or go meanwhile may be. Damaged
        ones are left out. Many operations, each with the store's own deadline: StoreError can come in between.
        """
        ...


@runtime_checkable
class Migratable(Protocol):
    """Ability of a Store whose server has a schema: it is made at first use, or here, by somebody who may."""

    def migrate(self) -> list[str]:
        """Bring the schema up to date; return what was done, a sentence each. Empty: nothing had to be."""
        ...
