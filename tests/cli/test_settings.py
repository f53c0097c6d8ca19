"""The command `unsticky settings`, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import unsticky
from unsticky import Pools, SettingsError
from unsticky.settings import load, schema

SHOP = """\
[session]
store = "redis://shop:hunter2@cache:6379/0"
secret_keys = ["hunter2"]
idle_timeout = "30m"

[pools.Catalog]
endpoints = ["http://10.0.0.1:8000", { url = "http://10.0.0.2:8000", weight = 3 }]
timeout = "2s"
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.toml").write_text(SHOP)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UNSTICKY_")}
    command = [sys.executable, "-m", "unsticky", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean | environ)


def test_check_of_a_right_file() -> None:
    """It says OK and what was understood, without secrets."""
    done = run("settings", "check", "shop.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "shop.toml: OK\n"
        "  sessions in redis://shop:***@cache:6379/0, idle 30m\n"
        "  pool catalog: 2 endpoints, least_request, 3 attempts, timeout 2s\n"
    )


def test_check_notes_faults() -> None:
    """Nobody overlooks that attempts will fail on purpose; with percentages of 0 there is nothing to note."""
    faults = '[pools.Catalog.faults]\nabort_percent = 2.5\ndelay_percent = 10\ndelay = "200ms"\n'
    Path("faulty.toml").write_text(SHOP + faults)
    done = run("settings", "check", "faulty.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[3:] == [
        "    note: 2.5 % of its attempts fail on purpose (faults.abort_percent)",
        "    note: 10 % of its attempts wait 200ms on purpose (faults.delay_percent)",
    ]
    Path("faulty.toml").write_text(SHOP + '[pools.Catalog.faults]\nabort = "connect"\n')
    assert "note" not in run("settings", "check", "faulty.toml").stdout


def test_check_of_a_wrong_file() -> None:
    """All problems go to stderr, with status 1."""
    Path("wrong.toml").write_text(SHOP + "[pools.Catalog.retry]\natempts = 3\nattempts = 0\n")
    done = run("settings", "check", "wrong.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "wrong.toml: 2 problems\n"
        '  pools.Catalog.retry.atempts: unknown key, did you mean "attempts"?\n'
        "  pools.Catalog.retry.attempts: expected an integer, at least 1, got 0\n"
    )


def test_a_missing_file_is_another_status() -> None:
    """A script can tell a missing file from a wrong one."""
    for command in ("check", "show"):
        done = run("settings", command, "absent.toml")
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "absent.toml: no such file\n")


def test_show_says_where_values_come_from() -> None:
    """Each value has its source behind it; the environment is named by variable; secrets are masked."""
    done = run("settings", "show", "shop.toml", UNSTICKY_POOLS__CATALOG__TIMEOUT="1s")
    assert done.returncode == 0
    assert "hunter2" not in done.stdout
    lines = {line.split(" = ")[0]: line for line in done.stdout.splitlines() if line.startswith(("store", "back"))}
    assert lines["store"].split() == ["store", "=", '"redis://shop:***@cache:6379/0"', "#", "shop.toml"]
    assert lines["backoff"].endswith("# default")
    assert 'timeout = "1s"                                     # UNSTICKY_POOLS__CATALOG__TIMEOUT\n' in done.stdout


def test_show_prints_toml() -> None:
    """What it prints is a settings file by itself, which the reader takes."""
    shown = run("settings", "show", "shop.toml").stdout
    assert tomllib.loads(shown)["pools"]["catalog"]["endpoints"][1] == {"url": "http://10.0.0.2:8000", "weight": 3}
    Path("shown.toml").write_text(shown)
    assert run("settings", "check", "shown.toml").returncode == 0


def test_show_without_a_file_looks_for_one() -> None:
    """It finds what an app started here would find, and says how."""
    assert "# defaults: no source was given, and there is no unsticky.toml here\n" in run("settings", "show").stdout
    Path("unsticky.toml").write_text(SHOP)
    assert run("settings", "show").stdout.startswith("# unsticky.toml: found in the current directory\n")
    named = run("settings", "show", UNSTICKY_SETTINGS="shop.toml").stdout
    assert named.startswith("# shop.toml: the file that UNSTICKY_SETTINGS names\n")


def test_schema_is_printed_as_shipped() -> None:
    """It is JSON and the package's own."""
    done = run("settings", "schema")
    assert done.stdout == schema.shipped()
    assert json.loads(done.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_version() -> None:
    """The version is the package's."""
    assert run("--version").stdout == f"unsticky {unsticky.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["settings"], ["settings", "check"], ["settings", "show"], ["settings", "schema"]]
)
def test_help_at_every_level_has_examples(arguments: list[str]) -> None:
    """Help shows by example."""
    done = run(*arguments, "--help")
    assert done.returncode == 0
    assert "examples:\n  " in done.stdout


@pytest.mark.parametrize("arguments", [[], ["settings"]])
def test_a_command_without_its_subcommand(arguments: list[str]) -> None:
    """It answers with its help, and the status of a wrong call."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "examples:" in done.stderr


def test_a_reader_that_stops_reading() -> None:
    """A closed pipe (`| head -1`) is no error and prints no traceback."""
    command = f"{sys.executable} -m unsticky settings schema | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


WAYS = """\
[pools.catalog]
endpoints = ["http://10.0.0.1:8000"]
balancer = "ring_hash"
hash.on = [{ key = "session", terminal = true }, "path"]
fallback = { status = 200, json = '{"items": []}' }

[[pools.catalog.rules]]
name = "big"
when = { path = ["/a", "/b*"], header = { x-tenant = "big-*" }, query = { "a b" = "*" }, weekdays = "fri" }
use_priority = 0
"""


def test_shown_rules_are_settings_again() -> None:
    """Tables within lists are written as TOML has them, so that what is shown can be used."""
    Path("ways.toml").write_text(WAYS)
    Path("shown.toml").write_text(run("settings", "show", "ways.toml").stdout)
    assert load("shown.toml", environ={}).pools == load("ways.toml", environ={}).pools


def test_queries_of_health_checks_are_masked() -> None:
    """They may be keys."""
    Path("up.toml").write_text(SHOP + '[pools.Catalog.health]\npath = "/up?token=sEcr&sEcr&a=sEcr"\n')
    for command in ("show", "check"):
        done = run("settings", command, "up.toml")
        assert done.returncode == 0
        assert "/up?token=***&***&a=***" in done.stdout
        assert "sEcr" not in done.stdout


def test_show_of_a_file_that_is_named_as_for_other_commands() -> None:
    """--settings FILE, or FILE, but not both."""
    assert run("settings", "show", "--settings", "shop.toml").stdout == run("settings", "show", "shop.toml").stdout
    done = run("settings", "show", "shop.toml", "--settings", "shop.toml")
    assert (done.returncode, done.stderr) == (2, "expected FILE or --settings FILE, got both\n")


def test_a_file_that_is_nested_too_deeply() -> None:
    """Is a problem like any other, and so is a variable."""
    Path("deep.toml").write_text("a = " + "[" * 20_000 + "]" * 20_000)
    done = run("settings", "check", "deep.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "deep.toml: 1 problem\n  lists or tables are nested too deeply\n"
    done = run("settings", "check", "shop.toml", UNSTICKY_SESSION__EXCLUDE="[" * 20_000)
    assert done.returncode == 1
    assert "UNSTICKY_SESSION__EXCLUDE: expected TOML or JSON" in done.stderr


STARTS = [
    ('[pools.Catalog.discovery]\ntype = "nope.mod:x"\n', 'pools.catalog.discovery: "nope.mod:x" is not there'),
    ('[pools.Catalog.health]\ntype = "tcp"\nca_file = "nope.pem"\n', "pools.catalog.health.ca_file: can't be read"),
]


@pytest.mark.parametrize(("more", "problem"), STARTS)
def test_check_and_start_agree(more: str, problem: str) -> None:
    """Both find it, and both name the file."""
    Path("start.toml").write_text(SHOP + more)
    done = run("settings", "check", "start.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"start.toml: 1 problem\n  {problem}")
    with pytest.raises(SettingsError) as caught:
        Pools.from_settings("start.toml")
    assert f"{caught.value}\n" == done.stderr


def test_check_finds_a_discovery_of_the_app_s_own() -> None:
    """From the current directory, as servers do; what the program passes is not known here."""
    Path("ours.py").write_text("class Ours:\n    def discover(self):\n        return []\n")
    Path("start.toml").write_text(SHOP + '[pools.Catalog.discovery]\ntype = "ours:Ours"\n')
    assert run("settings", "check", "start.toml").returncode == 0
    Path("start.toml").write_text(SHOP + '[pools.Catalog.discovery]\ntype = "program"\n')
    assert run("settings", "check", "start.toml").returncode == 0


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ("[pools.Catalog.fallback]\n", "fallback: is empty, so calls have no fallback"),
        ("[pools.Catalog.hedge]\n", "hedge: is empty, so no attempt is hedged"),
        ('[pools.Catalog.health]\ntimeout = "2s"\n', "health.timeout: has no effect in an app"),
        ('[pools.Catalog.health]\nheaders = { a = "b" }\n', "health.headers: has no effect in an app"),
    ],
)
def test_check_notes_what_may_be_meant(more: str, note: str) -> None:
    """The file is right all the same."""
    Path("odd.toml").write_text(SHOP + more)
    done = run("settings", "check", "odd.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("odd.toml: OK\n")
    assert done.stdout.splitlines()[-1].startswith(f"    note: {note}")
