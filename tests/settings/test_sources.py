"""The first source found wins whole; the environment is laid over it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unsticky import settings
from unsticky.errors import SettingsError

POOL = '[pools.catalog]\nendpoints = ["http://10.0.0.1:8000"]\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(source: settings.Source | None = None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        settings.load(source, environ=environ or {})
    return str(caught.value)


def test_the_order_of_sources() -> None:
    """Argument, then UNSTICKY_SETTINGS, then ./unsticky.toml, then defaults; nothing is mixed."""
    assert settings.load(environ={}) == settings.Settings()
    Path("unsticky.toml").write_text('client = "httpx2"\n')
    assert settings.load(environ={}).client == "httpx2"
    Path("other.toml").write_text(POOL)
    by_variable = settings.load(environ={"UNSTICKY_SETTINGS": "other.toml"})
    assert (by_variable.client, list(by_variable.pools)) == ("httpx", ["catalog"])
    Path("named.toml").write_text('[session]\nidle_timeout = "5m"\n')
    for named in ("named.toml", Path("named.toml"), {"session": {"idle_timeout": "5m"}}):
        by_argument = settings.load(named, environ={"UNSTICKY_SETTINGS": "other.toml"})
        assert (by_argument.session.idle_timeout, dict(by_argument.pools)) == (300.0, {})
    assert settings.load({}, environ={"UNSTICKY_SETTINGS": "other.toml"}) == settings.Settings()


def test_without_search_no_file_is_looked_for() -> None:
    """`search=False` leaves out the files that nobody passed; the environment still counts."""
    Path("unsticky.toml").write_text(POOL)
    environ = {"UNSTICKY_SETTINGS": "absent.toml", "UNSTICKY_CLIENT": "httpx2", "UNSTICKY_SESSION__IDLE_TIMEOUT": "9"}
    found = settings.load(environ=environ, search=False)
    assert (dict(found.pools), found.client, found.session.idle_timeout) == ({}, "httpx", 9.0)


def test_files_that_can_not_be_read() -> None:
    """A file that was named and is absent, a directory, or no UTF-8 is one clear problem."""
    assert refused("absent.toml") == "absent.toml: 1 problem\n  No such file or directory"
    assert refused(environ={"UNSTICKY_SETTINGS": "gone.toml"}) == "gone.toml: 1 problem\n  No such file or directory"
    assert "Is a directory" in refused(".")
    Path("latin.toml").write_bytes(b'[session]\nstore = "\xe9"\n')
    assert refused("latin.toml") == "latin.toml: 1 problem\n  line 2: this is not UTF-8"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('client = "httpx"\nstore 5\n', "line 2, column 7"),
        ("[session", "line 1, column 9"),
        ("a = 1\na = 2\n", "line 2, "),
    ],
)
def test_syntax_errors_say_where(text: str, where: str) -> None:
    """TOML that can't be parsed gives file, line and column."""
    Path("bad.toml").write_text(text)
    assert refused("bad.toml").startswith(f"bad.toml: 1 problem\n  {where}")


def test_a_byte_order_mark_is_no_error() -> None:
    """Some editors write one."""
    Path("bom.toml").write_text('client = "httpx2"\n', encoding="utf-8-sig")
    assert settings.load("bom.toml", environ={}).client == "httpx2"


def test_problems_name_their_source() -> None:
    """The message begins with the file; problems of variables carry the variable's name."""
    Path("shop.toml").write_text(POOL + "timeout = -1\n")
    assert refused("shop.toml").startswith("shop.toml: 1 problem\n  pools.catalog.timeout: expected a duration")
    mixed = refused("shop.toml", {"UNSTICKY_POOLS__CATALOG__RETRY__ATTEMPTS": "many"})
    assert mixed.startswith("shop.toml and the environment: 2 problems\n")
    assert '  UNSTICKY_POOLS__CATALOG__RETRY__ATTEMPTS: expected an integer, at least 1, got "many"' in mixed


def test_settings_import_nothing_heavy() -> None:
    """Reading settings, and the command, import no client, framework or driver."""
    code = (
        "import sys, unsticky.cli; from unsticky import settings; settings.load({'session': {'store': 'redis://a'}});"
        "heavy = {'httpx', 'httpx2', 'httpcore', 'flask', 'starlette', 'redis', 'sqlite3', 'asyncio', 'opentelemetry'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
