"""The PostgreSQL store's table and statements, and each verb as a generator of the statements that it takes.

A session is one row, its fields one jsonb object of base64 values. A change is one UPDATE whose conditions and new
values speak of that row alone: when it had to wait for another transaction, PostgreSQL evaluates all of them again for
the row as it is then (READ COMMITTED), so it is atomic without a transaction of ours, and there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from hashlib import sha256
from typing import TypeVar

from ..errors import StoreError
from ..session.store import Applied, Change, Record
from .merge import merge
from .postgres_url import PostgresTarget
from .postgres_values import array_of, object_of, pack_float, pack_int, record_of, text_of
from .postgres_wire import Query, RefusedError, Row, Script, Statement

T = TypeVar("T")
Steps = Generator[Query | Script, list[Row], T]

VERSION = 1
PURGED_AT_ONCE = 200  # rows: a statement's deadline holds for each batch
_COMMENT = "unsticky sessions, schema"
_LOCK = int.from_bytes(b"unsticky", "big")  # of all who make the table at the same time
_CHANGED = ("42P01", "42703", "3F000")  # the table, one of its columns, or its schema is not there (any more)
_FORBIDDEN = ("42501", "3F000")  # no right, or no schema that would be ours

# One transaction, for which others who want the same wait. EXTERNAL: compressing base64 gains little, and costs a write
# of 100 kB six times its time. A new `expires` within the same minute changes no index (HOT), if the page has room.
_CREATE_TABLE = """DO $unsticky$ BEGIN
PERFORM pg_advisory_xact_lock({lock});
PERFORM FROM pg_catalog.pg_class WHERE false; -- takes a lock, and so hears of what others did before we had ours
{schema}
IF to_regclass('{table}') IS NULL THEN
    CREATE TABLE {table} (
        key text COLLATE "C" PRIMARY KEY,
        fields jsonb NOT NULL,
        created double precision NOT NULL,
        touched double precision NOT NULL,
        expires double precision NOT NULL,
        owner text,
        generation bigint NOT NULL,
        expires_minute double precision NOT NULL GENERATED ALWAYS AS (floor(expires / 60)) STORED
    ) WITH (fillfactor = 70);
    ALTER TABLE {table} ALTER COLUMN fields SET STORAGE EXTERNAL;
    CREATE INDEX {index} ON {table} (expires_minute);
    COMMENT ON TABLE {table} IS '{comment}';
END IF;
END $unsticky$"""
_CREATE_SCHEMA = 'IF to_regnamespace(\'"{0}"\') IS NULL THEN CREATE SCHEMA "{0}"; END IF;'

_COLUMNS = "key, fields, created, touched, expires, owner, generation"
_LOAD = "SELECT {columns} FROM {table} WHERE key = $1::text"
_CREATE = """INSERT INTO {table} AS kept ({columns})
    VALUES ($1::text, $2::jsonb, $3::float8, $4::float8, $5::float8, $6::text, $7::int8)
    ON CONFLICT (key) DO UPDATE SET fields = excluded.fields, created = excluded.created, touched = excluded.touched,
    expires = excluded.expires, owner = excluded.owner, generation = excluded.generation
    WHERE kept.expires <= $8::float8 RETURNING key"""
_GUARD = "WHERE key = $1::text AND generation = $2::int8 AND expires > $3::float8"
_EXPECT = " AND fields @> ${}::jsonb AND NOT fields ?| ${}::text[]"
_OTHERS = "EXISTS (SELECT FROM jsonb_object_keys(fields - ${}::text[]) AS name WHERE NOT starts_with(name, ${}::text))"
_TOUCH = """touched = greatest(touched, $4::float8), expires = greatest(expires, $5::float8),
    owner = CASE WHEN $6::text IS NULL THEN owner ELSE nullif($6::text, '') END, generation = generation + $7::int8"""
_DELETE = "DELETE FROM {table} WHERE key = $1::text"
# The rows are chosen once, in an array; what others hold is left to them.
_PURGE = """DELETE FROM {table} WHERE key = ANY(ARRAY(
    SELECT key FROM {table} WHERE expires_minute <= floor($1::float8 / 60) AND expires <= $1::float8
    ORDER BY expires_minute LIMIT $2::int8 FOR UPDATE SKIP LOCKED)) AND expires <= $1::float8 RETURNING key"""
_SCAN = "SELECT {columns} FROM {table} WHERE key > $1::text AND expires > $2::float8 ORDER BY key LIMIT $3::int8"
# By pg_class, because to_regclass alone may see a table that the rest of the statement does not see yet.
_VERSION = "SELECT obj_description(oid, 'pg_class') FROM pg_catalog.pg_class WHERE oid = to_regclass($1::text)"

_T, _B = 0, 1  # formats: text, binary
_TOUCH_FORMATS = (_T, _B, _B, _B, _B, _T, _B)


class Statements:
    """All that is said to the server about one table."""

    def __init__(self, target: PostgresTarget) -> None:
        self._schema, self._name = target.schema, target.table
        self.table = f'"{target.schema}"."{target.table}"' if target.schema else f'"{target.table}"'
        self._load = self._statement(_LOAD, (_T,), repeatable=True)
        self._create = self._statement(_CREATE, (_T, _T, _B, _B, _B, _T, _B, _B))
        self._delete = self._statement(_DELETE, (_T,), repeatable=True)
        self._purge = self._statement(_PURGE, (_B, _B))
        self._scan = self._statement(_SCAN, (_T, _B, _B), repeatable=True)
        self._version = self._statement(_VERSION, (_T,), repeatable=True)
        self._updates: dict[tuple[bool, bool, bool, bool], Statement] = {}

    def _statement(self, sql: str, formats: tuple[int, ...], repeatable: bool = False) -> Statement:
        text = sql.format(table=self.table, columns=_COLUMNS).encode()
        return Statement(b"unsticky_" + sha256(text).hexdigest()[:16].encode(), text, list(formats), repeatable)

    def load(self, key: str) -> Query:
        return Query(self._load, (text_of(key),))

    def create(self, key: str, record: Record, now: float) -> Query:
        times = (pack_float(record.created), pack_float(record.touched), pack_float(record.expires))
        owner = text_of(record.owner) if record.owner else None
        row = (text_of(key), object_of(record.fields), *times, owner, pack_int(record.generation))
        return Query(self._create, (*row, pack_float(now)))

    def delete(self, key: str) -> Query:
        return Query(self._delete, (text_of(key),))

    def purge(self, now: float, limit: int) -> Query:
        return Query(self._purge, (pack_float(now), pack_int(limit)))

    def scan(self, after: bytes, now: float, batch: int) -> Query:
        return Query(self._scan, (after, pack_float(now), pack_int(batch)))

    def version(self) -> Query:
        return Query(self._version, (self.table.encode(),))

    def update(self, key: str, change: Change, now: float) -> Query:
        """The change, if anything else than `delete_if_only` is left by it."""
        drops, only = _drops(change), may_empty(change)
        shape = (bool(drops) or only, bool(change.put), bool(change.expect), only)
        values = [*_guard(key, change, now), *_touch(change)]
        values += [array_of(drops)] if shape[0] else []
        values += [object_of(change.put)] if change.put else []
        values += _expected(change)
        values += [text_of(change.delete_if_only or "")] if only else []
        return Query(self._updates.get(shape) or self._make_update(shape), values)

    def empty(self, key: str, change: Change, now: float) -> Query:
        """The other case: delete the row, if nothing else is left."""
        values = [*_guard(key, change, now), array_of(_drops(change)), text_of(change.delete_if_only or "")]
        expect = _EXPECT.format(6, 7) if change.expect else ""
        sql = f"DELETE FROM {{table}} {_GUARD} AND NOT {_OTHERS.format(4, 5)}{expect} RETURNING key"
        formats = (_T, _B, _B, _T, _T) + (_T, _T) * bool(change.expect)
        return Query(self._statement(sql, formats), [*values, *_expected(change)])

    def _make_update(self, shape: tuple[bool, bool, bool, bool]) -> Statement:
        drop, put, expect, only = shape
        fields, following = "fields", 8
        if drop:
            fields, following = f"({fields} - ${following}::text[])", following + 1
        if put:
            fields, following = f"{fields} || ${following}::jsonb", following + 1
        guard = _GUARD
        if expect:
            guard, following = guard + _EXPECT.format(following, following + 1), following + 2
        if only:
            guard, following = f"{guard} AND {_OTHERS.format(8, following)}", following + 1
        # A change of times alone leaves the fields out, so that a large value stays where it is.
        sets = f"fields = {fields}, {_TOUCH}" if drop or put else _TOUCH
        formats = _TOUCH_FORMATS + (_T,) * (following - 8)
        made = self._updates[shape] = self._statement(f"UPDATE {{table}} SET {sets} {guard} RETURNING key", formats)
        return made

    def create_table(self) -> Script:
        schema = _CREATE_SCHEMA.format(self._schema) if self._schema else ""
        index, comment = f'"{self._name}_expires"', f"{_COMMENT} {VERSION}"
        sql = _CREATE_TABLE.format(lock=_LOCK, schema=schema, table=self.table, index=index, comment=comment)
        return Script(sql.encode())


class Table:
    """One table, and whether this process has seen it."""

    def __init__(self, target: PostgresTarget) -> None:
        self.statements = Statements(target)
        self._seen = False

    def verb(self, make: Callable[[Statements], Steps[T]]) -> Steps[T]:
        """The steps of `make`, once the table is there. If it was dropped since, it is made again."""
        if not self._seen:
            yield from prepare(self.statements)
            self._seen = True
        try:
            return (yield from make(self.statements))
        except RefusedError as error:
            if error.sqlstate not in _CHANGED:
                raise
        yield from prepare(self.statements)
        return (yield from make(self.statements))


# The verbs --------------------------------------------------------------------------------------------------------


def load(statements: Statements, key: str, now: float) -> Steps[Record | None]:
    rows = yield statements.load(key)
    record = record_of(_only(rows, key)) if rows else None
    return record if record is not None and record.expires > now else None


def create(statements: Statements, key: str, record: Record, now: float) -> Steps[bool]:
    return _done((yield statements.create(key, record, now)), key)


def delete(statements: Statements, key: str) -> Steps[None]:
    yield statements.delete(key)


def update(statements: Statements, key: str, change: Change, now: float) -> Steps[Applied]:
    """One statement. Where it finds nothing to change, and that can mean several things, the row tells which."""
    empties = may_empty(change)
    while True:
        if empties and _done((yield statements.empty(key, change, now)), key):
            return Applied.EMPTIED
        if _done((yield statements.update(key, change, now)), key):
            return Applied.APPLIED
        if not empties and not change.expect:
            return Applied.GONE
        rows = yield statements.load(key)
        applied, _ = merge(record_of(_only(rows, key)) if rows else None, change, now)
        if applied in (Applied.GONE, Applied.CONFLICT):
            return applied
        # It would do now: others came between. Again, until the deadline of the verb.


def rows_of(query: Query) -> Steps[list[Row]]:
    return (yield query)


def prepare(statements: Statements) -> Steps[bool]:
    """Make sure of the table. True if it had to be made."""
    if (yield from _is_there(statements)):
        return False
    try:
        yield statements.create_table()
    except RefusedError as error:
        if error.sqlstate not in _FORBIDDEN:
            raise
        raise StoreError(
            f"PostgreSQL store: the table {statements.table} is not there, and this role may not create it: "
            "let one that may run `unsticky sessions migrate`, and GRANT SELECT, INSERT, UPDATE, DELETE on it"
        ) from None
    return True


def _is_there(statements: Statements) -> Steps[bool]:
    """Whether the table is there. Raises StoreError if it is not one that this version can use."""
    rows = yield statements.version()
    if not rows:
        return False
    version = _version(rows[0][0])
    if version is None:
        raise StoreError(
            f"PostgreSQL store: the table {statements.table} says no version of its schema. If it is unsticky's: "
            f"COMMENT ON TABLE {statements.table} IS '{_COMMENT} {VERSION}'"
        )
    if version > VERSION:
        raise StoreError(
            f"PostgreSQL store: the table {statements.table} has schema {version}, made by a newer unsticky; "
            f"this one knows {VERSION}"
        )
    return True


# Parameters and replies -----------------------------------------------------------------------------------------


def may_empty(change: Change) -> bool:
    """Whether the record may be deleted: not if the change itself puts another name."""
    prefix = change.delete_if_only
    return prefix is not None and all(name.startswith(prefix) for name in change.put)


def _drops(change: Change) -> list[str]:
    return [name for name in change.drop if name not in change.put]


def _guard(key: str, change: Change, now: float) -> tuple[bytes, ...]:
    return text_of(key), pack_int(change.generation), pack_float(now)


def _touch(change: Change) -> tuple[bytes | None, ...]:
    return (
        None if change.touched is None else pack_float(change.touched),
        None if change.expires is None else pack_float(change.expires),
        None if change.owner is None else text_of(change.owner),
        pack_int(change.raise_generation),
    )


def _expected(change: Change) -> list[bytes | None]:
    if not change.expect:
        return []
    present = {name: value for name, value in change.expect.items() if value is not None}
    return [object_of(present), array_of(name for name, value in change.expect.items() if value is None)]


def _only(rows: list[Row], key: str) -> Row:
    """The row, if it is the one of `key`."""
    if len(rows) != 1 or rows[0][0] != text_of(key):
        raise StoreError("PostgreSQL store: a reply for another session was refused")
    return rows[0]


def _done(rows: list[Row], key: str) -> bool:
    return bool(rows) and bool(_only(rows, key))


def _version(comment: bytes | None) -> int | None:
    prefix, _, number = (comment or b"").decode("utf-8", "replace").rpartition(" ")
    return int(number) if prefix == _COMMENT and number.isascii() and number.isdigit() else None
