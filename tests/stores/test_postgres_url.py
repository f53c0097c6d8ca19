"""What a PostgreSQL URL means, and what is said when it means nothing."""

from __future__ import annotations

import pytest

from unsticky.clock import SystemClock
from unsticky.errors import SettingsError
from unsticky.stores import check_url, open_async_store, open_store
from unsticky.stores.postgres_url import PostgresTarget, postgres_target

GOOD: dict[str, dict[str, str]] = {
    "postgresql://": {},
    "postgres://localhost": {"host": "localhost"},
    "postgresql://u@h:1234/db": {"user": "u", "host": "h", "port": "1234", "dbname": "db"},
    "postgresql://[::1]:5433/db": {"host": "::1", "port": "5433", "dbname": "db"},
    "postgresql://a:1,b:2/db": {"host": "a,b", "port": "1,2", "dbname": "db"},
    "postgresql://a,b/db?target_session_attrs=read-write": {
        "host": "a,b",
        "dbname": "db",
        "target_session_attrs": "read-write",
    },
    "postgresql://%2Fvar%2Frun/db": {"host": "/var/run", "dbname": "db"},
    "postgresql:///db?host=/var/run&port=5433": {"dbname": "db", "host": "/var/run", "port": "5433"},
    "postgresql://h/d%20b?options=-c%20geqo%3Doff": {"host": "h", "dbname": "d b", "options": "-c geqo=off"},
    "postgresql://h?ssl=true": {"host": "h", "sslmode": "require"},
    "postgresql://h?sslmode=verify-full&sslrootcert=/a+b.pem": {
        "host": "h",
        "sslmode": "verify-full",
        "sslrootcert": "/a+b.pem",
    },
}
BAD = {
    "postgresql://h?shema=x": 'unknown option "shema", did you mean "schema"?',
    "postgresql://h?client_encoding=latin1": 'unknown option "client_encoding"',
    "postgresql://h?schema=a-b": '"schema" is a name',
    'postgresql://h?table=x"y': '"table" is a name',
    f"postgresql://h?table={'x' * 49}": "at most 48",
    "postgresql://h?schema=": '"schema" is a name',
    "postgresql://h?synchronous_commit=never": '"synchronous_commit" is one of local, off, on',
    "postgresql://h?pooler=statement": '"pooler" is one of session, transaction',
    "postgresql://h?pooler=transaction&synchronous_commit=off": "ALTER ROLE",
    "postgresql://h?pool_size=0": '"pool_size" is a number',
    "postgresql://h?pool_size=many": '"pool_size" is a number',
    "postgresql://h:port/db": "the port is not a number",
    "postgresql://h:0/db": "the port is not a number",
    "postgresql://u:se/cret@h": "the port is not a number",
    "postgresql://u:se@cret@h": 'a "@" in a password is written "%40"',
    "postgresql://u:se#cret@h": 'a "#" in a password is written "%23"',
    "postgresql://u:secret@a,b/db?hostaddr=10.0.0.1": "another number of hosts",
    "postgresql://u:secret@h?application_name=a%00b": "%00",
    "postgresql://u:secret@[::1": "can't be read",
}


@pytest.mark.parametrize("url", GOOD)
def test_what_libpq_is_told(url: str) -> None:
    """As libpq itself reads a URL; opening does no I/O."""
    assert postgres_target(url).libpq == GOOD[url]
    assert check_url(url) is None
    for opened in (open_store, open_async_store):
        opened(url, clock=SystemClock(), timeout=0.25)


def test_our_own_options() -> None:
    """They are taken out of what libpq is told."""
    target = postgres_target(
        "postgresql://u:p%40ss%2Fw+%25@h/db?schema=web&table=carts&synchronous_commit=off&pool_size=3"
    )
    assert target == PostgresTarget(
        {"user": "u", "host": "h", "dbname": "db"}, target.password, "web", "carts", "off", 3, False
    )
    assert target.password is not None
    assert str(target.password) == "p@ss/w+%"
    assert postgres_target("postgresql://h?pooler=transaction").shared_sessions


def test_a_target_shows_no_secret() -> None:
    """Neither the password nor what else may be one."""
    shown = repr(postgres_target("postgresql://u:secret@h?sslpassword=secret&password=secret"))
    assert "secret" not in shown


@pytest.mark.parametrize("url", BAD, ids=repr)
def test_a_bad_url(url: str) -> None:
    """The message says what is wrong and shows no password; opening raises the same."""
    message = check_url(url)
    assert message is not None
    assert BAD[url] in message
    assert "cret" not in message
    with pytest.raises(SettingsError) as caught:
        open_store(url, clock=SystemClock(), timeout=0.25)
    assert "cret" not in str(caught.value)
