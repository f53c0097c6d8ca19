"""The apps of Flask's and FastAPI's documentation, checked as their reader would: by the command line.

Told in our own words (`tutorials/`); what each keeps, and where, is as it is there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

APPS = Path(__file__).parent / "tutorials"


def checked(tmp_path: Path, app: str, script: str, *options: str, status: int) -> dict[str, Any]:
    """The report, from a directory with nothing but the apps and their empty folders for data."""
    shutil.copytree(APPS, tmp_path, dirs_exist_ok=True)
    for folder in ("data", "instance"):
        (tmp_path / folder).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "unsticky", "check", app, "--script", script, "--replicas", "2", "--json", "-"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == status, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def proven(report: dict[str, Any]) -> dict[str, str]:
    """By request: the first suspect."""
    found = [one for one in report["findings"] if one["verdict"] == "PROVEN"]
    return {one["title"]: one["suspects"][0]["name"] for one in found}


@pytest.mark.parametrize(
    ("app", "leaks"),
    [
        ("first_steps", {}),
        ("dependencies_with_yield", {}),
        ("lifespan_events", {}),
        ("security", {}),
        ("body_updates", {"GET /items/baz": "body_updates:items['baz']"}),
        ("items_in_memory", {"GET /items/baz": "items_in_memory:fake_db"}),
    ],
)
def test_fastapis_apps_without_a_database(tmp_path: Path, app: str, leaks: dict[str, str]) -> None:
    report = checked(tmp_path, f"{app}:app", f"{app}.py", "--strict", status=1 if leaks else 0)
    assert proven(report) == leaks
    assert report["suspect"] == 0


@pytest.mark.parametrize(
    ("app", "file", "leaks"),
    [
        ("sql_databases", "data/database.db", ["GET /heroes/?limit=1", "GET /heroes/", "GET /heroes/1"]),
        ("background_tasks", "data/notes.txt", ["GET /notes"]),
    ],
)
def test_fastapis_apps_that_write_to_the_disk(tmp_path: Path, app: str, file: str, leaks: list[str]) -> None:
    """Told that all replicas see the disk, it is clean. Otherwise the file is what is named."""
    given = f"{app}:app", f"{app}.py"
    shared = checked(tmp_path, *given, "--shared", "data", "--reset", f"{app}:empty", "--strict", status=0)
    assert shared["findings"] == []
    (tmp_path / file).unlink()
    local = proven(checked(tmp_path, *given, status=1))
    assert local.keys() >= set(leaks)
    assert set(local.values()) == {str(tmp_path / file)}
    assert not (tmp_path / file).exists()


def test_flasks_blog_with_a_database_that_all_replicas_see(tmp_path: Path) -> None:
    options = ["--shared", "instance", "--reset", "flaskr.testing:empty", "--strict"]
    report = checked(tmp_path, "flaskr:create_app()", "blog.py", *options, status=0)
    assert [one for one in report["findings"] if one["verdict"] != "INFO"] == []
    assert report["notes"] == []


def test_flasks_blog_with_a_database_on_the_local_disk(tmp_path: Path) -> None:
    """As its reader has it: made once by `flask init-db`, then served."""
    shutil.copytree(APPS / "flaskr", tmp_path / "flaskr")
    (tmp_path / "instance").mkdir()
    command = [sys.executable, "-m", "flask", "--app", "flaskr", "init-db"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    database = tmp_path / "instance" / "flaskr.sqlite"
    before = database.read_bytes()
    report = checked(tmp_path, "flaskr:create_app()", "blog.py", status=1)
    found = proven(report)
    assert found.keys() >= {"GET /", "POST /auth/login", "POST /1/delete", "GET /1/update"}
    assert set(found.values()) == {str(database)}
    assert database.read_bytes() == before
