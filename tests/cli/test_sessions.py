"""The command `unsticky sessions`, on real stores, with sessions that real requests made."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from cli.shops import NO_ID, Opener, Shop, here, shop, shop_on
from session.visits import Browser
from support.memcached import Memcached, memcached
from support.postgres import postgres
from support.valkey import valkey
from unsticky.session.options import SessionOptions
from unsticky.session.owners import ledger_key
from unsticky.session.store import Record
from unsticky.testing import FakeClock

__all__ = ["here", "memcached", "postgres", "shop", "shop_on", "valkey"]

DAY = 86400.0
KINDS = pytest.mark.parametrize("kind", ["sqlite", "valkey", "postgres"])


@KINDS
def test_list_shows_all_sessions(kind: str, shop_on: Opener) -> None:
    """A table, the newest login first. Lists of owners and marks of take-overs are no sessions, and not in it."""
    shop = shop_on(kind)
    old, new = shop.login("ann", ago=3 * DAY + 60), shop.login(None, agent="Mozilla/5.0 (X11)", ago=0.1)
    store, now = shop.opened[0].access.store, time.time()
    store.create("v1m:" + "x" * 43, Record({}, now, now, now + 999))
    assert store.load(ledger_key("ann")) is not None
    head, first, second, space, summary = shop.done("list").splitlines()
    assert re.split(r"  +", head) == ["ID", "OWNER", "CREATED", "LAST SEEN", "ENDS", "SIZE", "NETWORK", "USER AGENT"]
    assert first.split() == [new, *"now now in 14d 5 B 203.0.113.0/24 Mozilla/5.0 (X11)".split()]
    assert second.split() == [old, *"ann 3d ago 3d ago in 10d 5 B 203.0.113.0/24 Lynx/2.9".split()]
    assert [line.index("203.") for line in (first, second)] == [head.index("NETWORK")] * 2
    assert (space, summary) == ("", f"2 sessions in {shop.url}.")


@KINDS
def test_list_for_machines(kind: str, shop_on: Opener) -> None:
    """One object per line: what `Sessions.list` says of each."""
    shop = shop_on(kind)
    shop.login("ann")
    shop.login("bob")
    shop.login("ann", ago=60)
    sessions = shop.sessions()
    expected = [asdict(session) for session in sessions.list("ann")]
    assert [json.loads(line) for line in shop.done("list", "--json", "--owner", "ann").splitlines()] == expected
    assert [one["owner"] for one in expected] == ["ann", "ann"]
    assert shop.ids() == {one["id"] for one in expected} | {sessions.list("bob")[0].id}


def test_list_with_a_limit(shop: Shop) -> None:
    """The newest logins, in both forms."""
    ids = [shop.login(None, ago=ago) for ago in (50, 10, 40, 20, 30)]
    assert [json.loads(line)["id"] for line in shop.done("list", "--json", "--limit", "2").splitlines()] == [
        ids[1],
        ids[3],
    ]
    lines = shop.done("list", "--limit", "2").splitlines()
    assert [line.split()[0] for line in lines[1:3]] == [ids[1], ids[3]]
    assert lines[-1] == f"5 sessions in {shop.url}, the newest 2 are shown."
    assert "invalid number value: '0'" in shop.refused(2, "list", "--limit", "0")


def test_an_empty_list_says_so(shop: Shop) -> None:
    """To a person; a machine gets no line."""
    shop.login("ann", ago=15 * DAY)
    assert shop.done("list") == f"No sessions in {shop.url}.\n"
    assert shop.done("list", "--owner", "ann") == f"No sessions of this owner in {shop.url}.\n"
    assert shop.done("list", "--json") == ""


def test_the_lifetime_is_the_one_of_the_app(shop: Shop) -> None:
    """Settings without `idle_timeout` don't say which framework's holds; the records know. Lists stay whole."""
    month = shop.login("ann", ago=20 * DAY, idle=31 * DAY)
    hour = shop.login("ann", ago=3600 + 60 + 5, idle=3600)  # has ended; the store keeps it for five minutes more
    assert "in 11d" in shop.done("list", "--owner", "ann")
    assert shop.ids() == {month}
    assert "ended" in shop.done("show", hour)
    assert [one.id for one in shop.sessions(idle=31 * DAY).list("ann")] == [month]
    assert shop.sessions(idle=31 * DAY).revoke_all("ann") == 2, "an app that knows a longer life might still serve it"


def test_text_of_users_steers_no_terminal(shop: Shop) -> None:
    """A User-Agent and an owner are anybody's text."""
    shop.login("a\x1b[2Jb", agent="x\x1b]0;owned\x07" + "y" * 99)
    table = shop.done("list")
    assert "\x1b" not in table
    assert "\x07" not in table
    assert "a\\x1b[2Jb" in table
    assert table.splitlines()[1].endswith("yyy...")


def test_show(shop: Shop) -> None:
    """One session, with times in the local zone; no value, and names of keys only on request."""
    id_ = shop.login("ann", ago=120, secret_diary="dear diary", cart=["tea"])
    text = shop.done("show", id_)
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines())
    assert list(shown) == ["id", "owner", "created", "last seen", "ends", "size", "user agent", "network"]
    assert (shown["id"], shown["owner"], shown["size"]) == (id_, "ann", "2 keys, 16 B")
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d {time.tzname[time.localtime().tm_isdst]} \(2m ago\)", shown["created"]
    )
    assert "diary" not in text
    with_keys = shop.done("show", id_, "--keys").splitlines()
    assert [line.split() for line in with_keys[-2:]] == [["cart", "5", "B"], ["secret_diary", "11", "B"]]
    assert len(with_keys) == len(shown) + 2
    assert "dear" not in shop.done("show", id_, "--keys")


def test_show_for_machines(shop: Shop) -> None:
    """The same as `Sessions.find` says; with --keys the bytes of each."""
    id_ = shop.login("ann", cart=["tea"])
    expected = asdict(shop.sessions().find(id_))
    assert json.loads(shop.done("show", id_, "--json")) == expected
    assert json.loads(shop.done("show", id_, "--json", "--keys")) == expected | {"sizes": {"cart": 5}}


def test_show_of_what_is_none(shop: Shop) -> None:
    """Told apart by status; what is no id is not repeated, for it may be a token; no other record is shown."""
    shop.login("ann")
    assert shop.refused(1, "show", NO_ID) == f"unsticky: {shop.url}: no such session"
    browser = Browser(shop.sessions())
    with browser.visit() as session:
        session["a"] = 1
    assert browser.token is not None
    token = f"{browser.token.handle}.{browser.token.secret}"
    for text in (token, ledger_key("ann")):
        assert shop.refused(2, "show", text) == (
            'unsticky: that is no id of a session: they begin with "v1:", as `unsticky sessions list` shows them'
        )


def test_encrypted_sessions(shop: Shop) -> None:
    """With the settings' keys the device is told; with others the list goes on without it."""
    key = "k" * 32
    shop.options = SessionOptions(metadata=True, encryption_keys=(key,))  # type: ignore[arg-type]
    id_ = shop.login("ann", cart="tea")
    Path("unsticky.toml").write_text(f'[session]\nencryption_keys = ["{key}"]\n')
    assert "Lynx/2.9" in shop.done("show", id_)
    Path("other.toml").write_text(f'[session]\nencryption_keys = ["{"x" * 32}"]\n')
    assert "Lynx" not in shop.done("list", "--settings", "other.toml")


@KINDS
def test_revoke_by_id(kind: str, shop_on: Opener) -> None:
    """Those sessions end, and no other. One that is none is told, by status too."""
    shop = shop_on(kind)
    ids = [shop.login(owner) for owner in ("ann", "ann", None, None)]
    assert shop.done("revoke", ids[0], ids[2], ids[2]) == "2 sessions ended.\n"
    assert shop.ids() == {ids[1], ids[3]}
    status, out, err = shop.run("revoke", ids[0], ids[1])
    assert (status, out) == (1, "1 session ended.\n")
    assert err == "unsticky: 1 id of 2 named no session, or one that has ended already\n"
    assert shop.sessions().list("ann") == []


@KINDS
def test_revoke_by_owner(kind: str, shop_on: Opener) -> None:
    """All of theirs, or all but one; an id to keep that is not theirs is a mistake, and ends nothing."""
    shop = shop_on(kind)
    ids, other = [shop.login("ann") for _ in range(3)], shop.login("bob")
    assert shop.refused(1, "revoke", "--owner", "ann", "--keep", other) == (
        "unsticky: nothing was ended: --keep names no session of this owner"
    )
    assert shop.done("revoke", "--owner", "ann", "--keep", ids[1]) == "2 sessions ended.\n"
    assert shop.ids() == {ids[1], other}
    assert shop.done("revoke", "--owner", "ann") == "1 session ended.\n"
    assert shop.done("revoke", "--owner", "ann") == "0 sessions ended.\n"
    assert shop.ids() == {other}


@KINDS
def test_revoke_all(kind: str, shop_on: Opener) -> None:
    """Of everybody; whoever logs in afterwards is listed as ever."""
    shop = shop_on(kind)
    for owner in ("ann", "ann", "bob", None):
        shop.login(owner)
    assert shop.done("revoke", "--all", "--yes") == "4 sessions ended.\n"
    assert shop.ids() == set()
    new = shop.login("ann")
    assert [one.id for one in shop.sessions().list("ann")] == [new]


def test_revoke_all_asks(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked it takes --yes."""
    id_ = shop.login("ann")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert shop.refused(2, "revoke", "--all") == (
        "unsticky: nothing was ended: --all needs --yes where nobody can be asked"
    )
    assert shop.ids() == {id_}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--yes"],
        [NO_ID, "--all"],
        [NO_ID, "--owner", "ann"],
        ["--owner", "ann", "--all"],
        [NO_ID, "--keep", NO_ID],
        ["--all", "--yes", "--keep", NO_ID],
        ["ann"],
    ],
)
def test_revoke_that_is_not_clear(shop: Shop, arguments: list[str]) -> None:
    """Nothing is guessed, and nothing ended."""
    id_ = shop.login("ann")
    shop.refused(2, "revoke", *arguments)
    assert shop.ids() == {id_}


def test_a_damaged_session_is_told_and_can_be_ended(shop: Shop) -> None:
    """Its user gets nothing but errors until somebody does."""
    id_ = shop.login("ann")
    with closing(sqlite3.connect("sessions.db")) as file, file:
        file.execute("UPDATE unsticky_sessions SET fields = 'x' WHERE key = ?", (id_,))
    assert shop.refused(1, "show", id_) == f"unsticky: {shop.url}: SQLite store: a record is damaged"
    assert shop.done("revoke", id_) == "1 session ended.\n"
    assert shop.refused(1, "show", id_) == f"unsticky: {shop.url}: no such session"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_purge(kind: str, shop_on: Opener) -> None:
    """What has expired is deleted, in as many batches as it takes, and nothing else; `stats` said how much."""
    shop = shop_on(kind)
    live = shop.login("ann")
    store, then = shop.opened[0].access.store, time.time() - 99
    early = shop.sessions(FakeClock(then - 99)).access.store
    for number in range(1200):
        early.create(f"v1:{number}", Record({"a": b"1"}, then, then, then))
    assert json.loads(shop.done("stats", "--json"))["purgeable"] == 1200
    assert shop.done("purge") == "1,200 expired records deleted.\n"
    assert shop.done("purge") == "0 expired records deleted.\n"
    assert early.load("v1:7") is None
    assert store.load(ledger_key("ann")) is not None
    assert shop.ids() == {live}


def test_purge_where_nothing_waits(shop_on: Opener) -> None:
    """Redis and Valkey forget by themselves."""
    shop = shop_on("valkey")
    assert shop.done("purge") == f"{shop.url}: this store forgets by itself; there is nothing to purge.\n"


@KINDS
def test_stats(kind: str, shop_on: Opener) -> None:
    """Sessions, owners, sizes and ages; our other records are not counted."""
    shop = shop_on(kind)
    for owner, ago, cart in (("ann", 9, 1), ("ann", 400, 2), ("bob", 4000, 3), (None, 2 * DAY, 9), (None, 8 * DAY, 99)):
        shop.login(owner, ago=ago, cart="x" * cart)
    shop.login("ann", ago=3600 + 60 + 9, idle=3600)
    found = json.loads(shop.done("stats", "--json"))
    ages = {"under 5m": 1, "5m to 1h": 1, "1h to 1d": 1, "1d to 7d": 1, "7d to 30d": 1, "30d and more": 0}
    assert found == {
        "sessions": 5,
        "with_owner": 3,
        "owners": 2,
        "most_of_one_owner": 2,
        "size": 2 + 3 + 4 + 10 + 101,
        "median_size": 4,
        "largest_size": 101,
        "created": ages,
        "last_seen": ages,
        "ended": 1,
        "purgeable": 0,
    }
    lines = shop.done("stats").splitlines()
    assert lines[:4] == [
        f"5  sessions in {shop.url}",
        "3  with an owner: 2 owners, at most 2 of one",
        "2  without an owner",
        "1  ended, and still in the store",
    ]
    assert ("expired records that `purge` would delete" in lines[4]) == (kind != "valkey")
    assert "size: 120 B in all, median 4 B, largest 101 B" in lines
    assert [line.split()[-2:] for line in lines[-6:]] == [[str(n)] * 2 for n in ages.values()]


def test_stats_of_nothing(shop: Shop) -> None:
    """Zeros, and no division by them."""
    shop.login(None, ago=15 * DAY)
    lines = shop.done("stats").splitlines()
    assert lines[0] == f"0  sessions in {shop.url}"
    assert "size: 0 B in all, median 0 B, largest 0 B" in lines


def test_migrate_makes_the_table(shop_on: Opener) -> None:
    """Once; where there is no schema it says that there is nothing to do."""
    shop = shop_on("postgres")
    schema = shop.url.partition("=")[2]
    assert re.fullmatch(rf"{re.escape(shop.url)}: Created the table .*{schema}.*\n", shop.done("migrate"))
    assert shop.done("migrate") == f"{shop.url}: It is up to date; there was nothing to do.\n"
    other = shop_on("valkey")
    assert other.done("migrate") == f"{other.url}: this store needs no migration; there is nothing to do.\n"


def test_what_memcached_can(memcached: Memcached, capsys: pytest.CaptureFixture[str]) -> None:
    """One session by its id; what needs a list is refused, and says why."""
    shop = Shop(memcached.url, capsys)
    id_ = shop.login(None)
    for arguments in (["list"], ["list", "--json"], ["stats"], ["revoke", "--all", "--yes"]):
        assert shop.refused(1, *arguments) == (
            f"unsticky: {shop.url}: this store can't list what it holds; `show ID` and `revoke ID` work"
        )
    for command in ("list", "revoke"):
        assert shop.refused(1, command, "--owner", "ann") == (
            f"unsticky: {shop.url}: this store may forget any record, so sessions have no owners in it; "
            "`show ID` and `revoke ID` work"
        )
    assert "forgets by itself" in shop.done("purge")
    assert id_ in shop.done("show", id_)
    assert shop.done("revoke", id_) == "1 session ended.\n"
    shop.close()
