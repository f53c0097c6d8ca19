"""The command `unsticky sessions`, where something is wrong: one line that says what, a status, and no password."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cli.shops import NO_ID, Shop, here, shop, shop_on
from support.valkey import Valkey, own_valkey
from unsticky.cli import main

__all__ = ["here", "own_valkey", "shop", "shop_on"]


def test_a_store_that_is_away(own_valkey: Valkey, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, without the password and without what the library logs for servers."""
    shop = Shop(own_valkey.url.replace("://", "://:hunter2@"), capsys)
    own_valkey.kill()
    for arguments in (["list"], ["list", "--owner", "ann"], ["show", NO_ID], ["revoke", NO_ID], ["stats"]):
        message = shop.refused(1, *arguments)
        assert message.startswith(f"unsticky: valkey://:***@127.0.0.1:{own_valkey.port}/0: Redis store: can't connect")
        assert "hunter2" not in message


def test_a_store_that_fails_half_way(shop: Shop) -> None:
    """The message says what was done before."""
    ids = [shop.login("ann") for _ in range(3)]
    with closing(sqlite3.connect("sessions.db")) as file, file:
        file.execute(
            f"CREATE TRIGGER broken BEFORE DELETE ON unsticky_sessions WHEN OLD.key = '{ids[1]}' "
            "BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END"
        )
    assert shop.refused(1, "revoke", *ids) == (
        f"unsticky: {shop.url}: SQLite store: the disk is broken; 1 session ended so far"
    )
    assert shop.ids() == set(ids[1:])


def test_a_file_that_is_not_there_is_not_made(shop: Shop, tmp_path: Path) -> None:
    """An empty store beside the right one would answer with "no sessions"."""
    for command in ("list", "stats", "purge", "migrate"):
        message = shop.refused(1, command)
        assert message == f"unsticky: {shop.url}: there is no such file (seen from {tmp_path})"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(shop: Shop) -> None:
    """SQLite's own words, in one line."""
    Path("sessions.db").write_text("nothing of the kind" * 99)
    assert shop.refused(1, "list") == f"unsticky: {shop.url}: SQLite store: file is not a database"


def test_settings_are_those_of_the_app(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that is found or named, and the environment; --store comes before them."""
    shop.login("ann")
    answer = f"1 session in {shop.url}.\n"
    Path("unsticky.toml").write_text(f'[session]\nstore = "{shop.url}"\n')
    Path("named.toml").write_text('[session]\nstore = "sqlite:///absent.db"\n')

    def list_sessions(*arguments: str) -> tuple[int, str]:
        status = main(["sessions", "list", *arguments])
        said = capsys.readouterr()
        return status, (said.out or said.err).splitlines(keepends=True)[-1]

    capsys.readouterr()
    assert list_sessions() == (0, answer)
    assert list_sessions("--settings", "named.toml", "--store", shop.url) == (0, answer)
    assert "sqlite:///absent.db: there is no such file" in list_sessions("--settings", "named.toml")[1]
    monkeypatch.setenv("UNSTICKY_SETTINGS", "named.toml")
    assert "sqlite:///absent.db: there is no such file" in list_sessions()[1]
    monkeypatch.setenv("UNSTICKY_SESSION__STORE", shop.url)
    assert list_sessions() == (0, answer)
    assert list_sessions("--settings", "nowhere.toml") == (2, "unsticky: nowhere.toml: no such file\n")


def test_wrong_settings(shop: Shop) -> None:
    """One problem is one line."""
    shop.login("ann")
    Path("unsticky.toml").write_text('[session]\nidle_timeout = "never"\n')
    assert shop.refused(1, "list").startswith("unsticky: unsticky.toml: session.idle_timeout: expected a duration")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://", "unsticky: memory://: it is inside of the app's process, and can't be seen from here"),
        ("reddis://:hunter2@h", 'unsticky: --store: unknown store "reddis", did you mean "redis"?'),
        ("redis://:hunter2/3@h", "unsticky: --store: "),
        ("sqlite://x", "unsticky: --store: a SQLite URL has three slashes"),
    ],
)
def test_a_url_that_can_not_be_used(url: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Says why, without its password."""
    status, out, err = Shop(url, capsys).run("list")
    assert (status, out, err.count("\n")) == (1 if url == "memory://" else 2, "", 1)
    assert err.startswith(message)
    assert "hunter2" not in err


@pytest.mark.parametrize(
    "arguments", [["list", "redis://:hunter2@h"], ["redis://u:hunter2@h"], ["list", "--stor=redis://:hunter2/@h", "x"]]
)
def test_a_url_in_the_wrong_place(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The usage error does not repeat its password."""
    with pytest.raises(SystemExit) as stop:
        main(["sessions", *arguments])
    assert stop.value.code == 2
    assert "hunter2" not in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["revoke"], ["purge"], ["stats"], ["migrate"]])
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help shows by example."""
    with pytest.raises(SystemExit) as stop:
        main(["sessions", *command, "--help"])
    assert stop.value.code == 0
    assert f"examples:\n  unsticky sessions {' '.join(command)}" in capsys.readouterr().out


def test_without_a_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    """It answers with its help, and the status of a wrong call."""
    assert main(["sessions"]) == 2
    assert "examples:" in capsys.readouterr().err
