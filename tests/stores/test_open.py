"""Which store a URL opens, and what is said when it opens none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unsticky.clock import SystemClock
from unsticky.errors import SettingsError
from unsticky.scalars import StoreURL
from unsticky.stores import check_url, open_async_store, open_store

GOOD = [
    "sqlite:///sessions.db",
    "sqlite:////srv/app/sessions.db",
    "sqlite:///a%20b.db",
    "memory://",
    "memory://shared",
    "redis://",
    "redis://localhost",
    "redis://:p%2Fw@localhost:6379/3?client_name=shop",
    "rediss://user:pw@[::1]:6380/0?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem",
    "valkey://localhost?db=2&username=u&password=p",
    "valkeys://localhost",
    "redis+sentinel://user:p%2Cw@a:26379,b,[::1]:26380/mymaster/2?sentinel_password=x&wait_replicas=1",
    "valkeys+sentinel://a/p?sentinel_tls=no&ssl_check_hostname=no",
    "valkey+cluster://:pw@a:7000,b:7001?client_name=shop",
    "rediss+cluster://a",
    "memcached://",
    "memcached://localhost/",
    "memcached://a:11211,b,10.0.0.1:11212",
    "memcached://[::1]:11211,[::2],b",
]
BAD = {
    "": 'expected a URL such as "sqlite:///sessions.db"; known: memcached://, memory://, postgres://',
    "sessions.db": "expected a URL such as",
    "rediz://localhost": 'unknown store "rediz", did you mean "redis"? known: memcached://',
    "mysql://localhost": 'unknown store "mysql"; known: memcached://',
    "memcached://user:secret@localhost": "knows no user and password",
    "memcached://localhost/secret": "nothing stands after the hosts",
    "memcached://localhost?timeout=1": "nothing stands after the hosts",
    "memcached://a,": 'lists its hosts by commas, such as "memcached://a:11211,b:11211"',
    "memcached://a:port": "lists its hosts by commas",
    "memcached://a:65536": "lists its hosts by commas",
    "memcached://a:0": "lists its hosts by commas",
    "memcached://::1": "lists its hosts by commas",
    "memcached://a:11211,b,A": "a host is listed twice",
    "redis+sentinel://a,b": "the name of the primary follows the sentinels",
    "redis+sentinel://a,,b/p": "name the hosts, with a comma between them",
    "redis+sentinel://a,b/p/x": "the database after the host is a number",
    "redis+sentinel://a/p?ssl_ca_certs=/x": 'the URL begins with "rediss+sentinel://"',
    "redis+cluster://": "name the hosts",
    "redis+cluster://a/0": "a cluster has no databases",
    "redis+cluster://a,b?db=1": 'unknown option "db"',
    "redis+cluster://a:0": "the port is not a number",
    "redis://localhost?wait_replicas=few": '"wait_replicas" is a number of servers',
    "rediss://localhost?ssl_check_hostname=false": '"ssl_check_hostname" is one of no, yes',
    "sqlite://sessions.db": "three slashes",
    "sqlite:///": "names a file",
    "sqlite:///directory/": "names a file",
    "sqlite:///:memory:": 'use "memory://"',
    "sqlite:///a.db?mode=ro": "takes no options",
    "memory://a/b": "a memory URL is",
    "redis://localhost/x": "the database after the host is a number",
    "redis://localhost:port": "the port is not a number",
    "redis://user:se/cret@localhost": 'the port is not a number up to 65535 (a "/" in a password is written "%2F")',
    "redis://localhost?clientname=x": 'unknown option "clientname", did you mean "client_name"?',
    "redis://localhost?ssl_ca_certs=/x": "needs TLS",
    "rediss://localhost?ssl_cert_reqs=maybe": "one of none, optional, required",
    "redis://:se#cret@localhost": 'a "#" in a password is written "%23"',
    "redis://:secret@[::1": "can't be read",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_good_url(url: str) -> None:
    """It passes the check, and both kinds of its store open without I/O."""
    assert check_url(url) is None
    for opened in (open_store, open_async_store):
        opened(StoreURL(url), clock=SystemClock(), timeout=0.25)


@pytest.mark.parametrize("url", BAD, ids=repr)
def test_a_bad_url(url: str) -> None:
    """The message says what is wrong and shows no password; opening raises the same."""
    message = check_url(url)
    assert message is not None
    assert BAD[url] in message
    assert "cret" not in message
    for opened in (open_store, open_async_store):
        with pytest.raises(SettingsError) as caught:
            opened(url, clock=SystemClock(), timeout=0.25)
        assert message in str(caught.value)
        assert "cret" not in str(caught.value)


def test_a_missing_driver_names_the_extra() -> None:
    """Without its driver the URL is still checked, and opening says what to install."""
    script = """
import sys
from unsticky.clock import SystemClock
from unsticky.stores import _KINDS, check_url, open_store
_KINDS["sqlite"] = (*_KINDS["sqlite"][:2], "example")
sys.modules["sqlite3"] = None
assert check_url("sqlite:///x.db") is None
open_store("memory://", clock=SystemClock(), timeout=1.0)
open_store("sqlite:///x.db", clock=SystemClock(), timeout=1.0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "session.store: the driver is not installed: pip install 'unsticky[example]'" in done.stderr


def test_checking_imports_no_driver() -> None:
    """Settings are checked at start-up without the half second that drivers take to import."""
    script = """
import sys
from unsticky.stores import check_url
for url in ("redis://localhost", "sqlite:///x.db", "memory://"):
    assert check_url(url) is None
sys.exit(" ".join({"redis", "sqlite3", "asyncio"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == ""
