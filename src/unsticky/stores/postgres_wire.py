"""Talking to PostgreSQL through libpq: what is said is a generator, how to wait is the caller's.

libpq never blocks here: a conversation yields what it waits for, `(socket, poll events)`, and is resumed when the
socket is ready, by poll() in a thread or by an event loop's callbacks. So each has a deadline of its own, which
psycopg's connections for threads have not: they wait for a server that is paused for as long as it is.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from ..clock import SystemClock
from ..errors import StoreError
from .postgres_url import PostgresTarget

T = TypeVar("T")
Talk = Generator[tuple[int, int], None, T]
Row = tuple[bytes | None, ...]

SERVER_PATIENCE = 0.9  # of our own: its answer comes in time, and the connection can be used again
_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_NEVER_RAN = ("26000", "0A000")  # our prepared statement is gone, or its plan no longer fits: nothing was executed
_EXISTS = "42P05"  # our prepared statement is there already: a pooler gave us somebody else's server session
_READ_ONLY = "25006"
_BINARY = 1


class LostError(StoreError):
    """The connection broke; what was sent on it may have been done."""

    def __init__(self) -> None:
        super().__init__("PostgreSQL store: the connection was lost")


class LateError(StoreError):
    """The deadline passed."""

    def __init__(self, message: str = "PostgreSQL store: the server did not answer in time") -> None:
        super().__init__(message)


class RefusedError(StoreError):
    """The server answered with an error, and did nothing. Its text can hold keys and values: only its code is told."""

    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate
        try:
            name = f"{sqlstate} {psycopg.errors.lookup(sqlstate).__name__}"
        except KeyError:
            name = sqlstate
        super().__init__(f"PostgreSQL store: the server refused the statement ({name})")


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with the name it is prepared under: made of its text, so that the same name is always the same SQL."""

    name: bytes
    sql: bytes
    formats: list[int]  # of each parameter: 0 text, 1 binary. A list, as psycopg 3.2 wants it
    repeatable: bool = False  # changes nothing, or the same twice is the same as once


@dataclass(frozen=True, slots=True)
class Query:
    statement: Statement
    values: Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Script:
    """Statements without parameters, in one transaction. No rows come back."""

    sql: bytes


@dataclass(slots=True, eq=False)
class Connection:
    """One session of the server."""

    pgconn: pq.abc.PGconn
    prepares: bool
    used: dict[bytes, bool] = field(default_factory=dict)  # statement: whether it is prepared
    since: float = 0.0  # monotonic seconds: when it became idle

    @property
    def usable(self) -> bool:
        idle = self.pgconn.transaction_status == pq.TransactionStatus.IDLE
        return idle and self.pgconn.status == pq.ConnStatus.OK

    @property
    def stale(self) -> bool:
        """True if there is something to read, though nothing was asked: the end, or the server's last words."""
        fd = _socket(self.pgconn)
        return fd < 0 or _ready(fd, select.POLLIN, 0)

    def close(self) -> None:
        self.pgconn.finish()


def connecting(settings: Mapping[str, str], prepares: bool) -> Talk[Connection]:
    """Raises StoreError. The text of libpq names host, user and database, never the password."""
    try:
        pgconn = pq.PGconn.connect_start(make_conninfo("", **settings).encode())
    except psycopg.Error:  # its text can show any option's value
        raise StoreError("PostgreSQL store: an option of the URL is not understood by libpq") from None
    try:
        while (status := pgconn.connect_poll()) != pq.PollingStatus.OK:
            if status == pq.PollingStatus.FAILED:
                raise StoreError(f"PostgreSQL store: {_reason(pgconn.error_message, settings)}")
            yield pgconn.socket, select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT
        pgconn.nonblocking = 1
    except psycopg.Error:
        pgconn.finish()
        raise StoreError("PostgreSQL store: can't connect") from None
    except BaseException:
        pgconn.finish()
        raise
    return Connection(pgconn, prepares)


def exchange(connection: Connection, asked: Query | Script) -> Talk[list[Row]]:
    """What is asked, and its rows, values in binary. Raises LostError or RefusedError."""
    try:
        if isinstance(asked, Query):
            return (yield from _execute(connection, asked))
        connection.pgconn.send_query(asked.sql)
        yield from _reply(connection.pgconn)
        return []
    except psycopg.Error:
        raise LostError from None


def _execute(connection: Connection, query: Query) -> Talk[list[Row]]:
    """The first time on a connection the statement travels with its values; the second time it is prepared before."""
    name, pgconn = query.statement.name, connection.pgconn
    prepared = connection.used.get(name)
    if prepared is False and connection.prepares:
        prepared = connection.used[name] = yield from _prepare(pgconn, query.statement)
    if prepared:
        try:
            return (yield from _execute_prepared(pgconn, query))
        except RefusedError as error:
            if error.sqlstate not in _NEVER_RAN:
                raise
        connection.used.clear()
    rows = yield from _execute_unnamed(pgconn, query)
    connection.used.setdefault(name, False)
    return rows


def keeps(connection: Connection, error: BaseException | None) -> bool:
    """Whether the connection may be used again after `error`. One to a server that only reads may find no better."""
    if error is None:
        return True
    return isinstance(error, RefusedError) and error.sqlstate != _READ_ONLY and connection.usable


def repeatable(asked: Query | Script) -> bool:
    return isinstance(asked, Query) and asked.statement.repeatable


def _prepare(pgconn: pq.abc.PGconn, statement: Statement) -> Talk[bool]:
    pgconn.send_prepare(statement.name, statement.sql)
    try:
        yield from _reply(pgconn)
    except RefusedError as error:
        if error.sqlstate != _EXISTS:
            raise
    return True


def _execute_unnamed(pgconn: pq.abc.PGconn, query: Query) -> Talk[list[Row]]:
    statement = query.statement
    pgconn.send_query_params(statement.sql, list(query.values), None, statement.formats, _BINARY)
    return _rows((yield from _reply(pgconn)))


def _execute_prepared(pgconn: pq.abc.PGconn, query: Query) -> Talk[list[Row]]:
    statement = query.statement
    pgconn.send_query_prepared(statement.name, list(query.values), statement.formats, _BINARY)
    return _rows((yield from _reply(pgconn)))


def _reply(pgconn: pq.abc.PGconn) -> Talk[pq.abc.PGresult]:
    """The last result of what was sent; the connection is ready for more afterwards."""
    while pgconn.flush():
        yield pgconn.socket, select.POLLIN | select.POLLOUT
        pgconn.consume_input()
    last: pq.abc.PGresult | None = None
    while True:
        while pgconn.is_busy():
            yield pgconn.socket, select.POLLIN
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        if last is None or last.status in _DONE:
            last = result
    if last is None:
        raise LostError
    if last.status not in _DONE:
        raise _refusal(last)
    return last


def _refusal(result: pq.abc.PGresult) -> StoreError:
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
    if state is None or severity != b"ERROR":  # libpq's own word, or the session's end: it may come after a commit
        return LostError()
    return RefusedError(state.decode("ascii", "replace"))


def _rows(result: pq.abc.PGresult) -> list[Row]:
    value, columns = result.get_value, range(result.nfields)
    return [tuple([value(row, column) for column in columns]) for row in range(result.ntuples)]


def _reason(message: bytes, settings: Mapping[str, str]) -> str:
    text = " ".join(message.decode("utf-8", "replace").split())
    for name in ("password", "sslpassword", "oauth_client_secret"):
        if secret := settings.get(name):
            text = text.replace(secret, "***")
    return text or "can't connect"


# How to connect ---------------------------------------------------------------------------------------------------


def settings_of(target: PostgresTarget, timeout: float) -> dict[str, str]:
    """libpq's keywords. What the URL says wins over ours."""
    ours = {
        "fallback_application_name": "unsticky",
        # A peer that went without a word is noticed while its connection is idle, not by the next request.
        "keepalives_idle": "30",
        "keepalives_interval": "5",
        "keepalives_count": "3",
    }
    theirs = dict(target.libpq)
    if not target.shared_sessions:
        theirs["options"] = f"{_server_settings(target, timeout)} {theirs.get('options', '')}".strip()
    if target.password:
        theirs["password"] = str(target.password)
    return {**ours, **theirs, "client_encoding": "UTF8"}


def _server_settings(target: PostgresTarget, timeout: float) -> str:
    """For the session. A plan is made once: every statement finds its rows by an index, however small the table is.

    The server gives up before we do.
    """
    settings = {
        "statement_timeout": str(max(1, int(timeout * SERVER_PATIENCE * 1000))),
        "default_transaction_isolation": r"read\ committed",
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "jit": "off",
    }
    if target.synchronous_commit:
        settings["synchronous_commit"] = target.synchronous_commit
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


@dataclass(frozen=True, slots=True)
class Place:
    """One host of the URL; "" is libpq's own default. A socket's directory starts with "/" or "@"."""

    host: str
    address: str
    port: str

    @property
    def named(self) -> bool:
        """Whether the resolver has to be asked."""
        if self.address or self.host[:1] in ("", "/", "@"):
            return False
        try:
            socket.getaddrinfo(self.host, None, flags=socket.AI_NUMERICHOST)
        except OSError:
            return True
        return False

    def settings(self, address: str = "") -> dict[str, str]:
        values = {"host": self.host, "hostaddr": address or self.address, "port": self.port}
        return {name: value for name, value in values.items() if value}


def places(settings: dict[str, str]) -> list[Place]:
    """Takes the lists of hosts, addresses and ports out of `settings`."""
    hosts, addresses, ports = (settings.pop(name, "").split(",") for name in ("host", "hostaddr", "port"))
    count = max(len(hosts), len(addresses))
    hosts, addresses, ports = ([*one, *[one[0]] * (count - len(one))] for one in (hosts, addresses, ports))
    return [Place(*one) for one in zip(hosts, addresses, ports, strict=True)]


def addresses_of(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """Of getaddrinfo's answer, each once, in its order."""
    return list(dict.fromkeys(str(one[4][0]) for one in found))


# Waiting in a thread ----------------------------------------------------------------------------------------------


def complete(talk: Talk[T], deadline: float) -> T:
    """Run a conversation to its end. Raises LateError at `deadline`, in SystemClock's monotonic seconds."""
    try:
        while True:
            fd, events = next(talk)
            if not _ready(fd, events, deadline - SystemClock.monotonic()):
                raise LateError
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        talk.close()


def each_in_time(attempts: Sequence[T], deadline: float, now: Callable[[], float]) -> Iterator[tuple[T, float]]:
    """Each attempt with its own deadline: an equal share of the time that is left."""
    for n, attempt in enumerate(attempts):
        yield attempt, now() + max(0.0, deadline - now()) / (len(attempts) - n)


def _socket(pgconn: pq.abc.PGconn) -> int:
    try:
        return pgconn.socket
    except psycopg.Error:
        return -1


def _ready(fd: int, events: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(max(0, ceil(seconds * 1000))))
