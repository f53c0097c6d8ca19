"""Run Flask's and Starlette's own session tests against unsticky's replacements: `make conformance`.

Fetches both projects' source distributions with pip, at the versions installed here, runs their tests unchanged with
the framework's session class swapped for ours, and prints what passed. Exit status 1 if anything failed that
docs/sessions.md does not list.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

# Flask 3.1.3's conftest uses a private name of pytest that pytest 9 spells in capitals.
FLASK_STOCK = """
import _pytest.monkeypatch as private

private.notset = getattr(private, "notset", getattr(private, "NOTSET", None))
"""

FLASK_PLUGIN = """
import flask.app
import pytest
from unsticky.flask import SessionInterface

@pytest.fixture(autouse=True)
def _unsticky(tmp_path, monkeypatch):
    interface = SessionInterface({"store": f"sqlite:///{tmp_path}/sessions.db"})
    monkeypatch.setattr(flask.app.Flask, "session_interface", interface)
    yield
    interface.sessions.close()
"""

STARLETTE_PLUGIN = """
import functools
import pytest
import starlette.middleware.sessions as original
import unsticky.starlette as ours

original.Session = ours.Session
original.SessionMiddleware = ours.SessionMiddleware

@pytest.fixture(autouse=True)
def _unsticky(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
"""


@dataclass(frozen=True)
class Suite:
    """One framework's tests, and the ones among them that we fail on purpose (docs/sessions.md says why)."""

    project: str
    arguments: tuple[str, ...]
    plugin: str
    stock: str = ""
    expected_failures: frozenset[str] = frozenset()


SUITES = (
    Suite(
        "flask",
        ("tests", "-k", "session or flash or vary or cookie"),
        FLASK_PLUGIN,
        FLASK_STOCK,
        frozenset({"tests/test_basic.py::test_session_refresh_vary"}),
    ),
    Suite("starlette", ("tests/middleware/test_session.py",), STARLETTE_PLUGIN),
)


def fetch(project: str, folder: Path) -> Path:
    """Unpack the source distribution of the installed version."""
    wanted = f"{project}=={version(project)}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-binary", ":all:", "--dest", str(folder), wanted], check=True)
    archive = next(folder.glob(f"{project}-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def run(suite: Suite, source: Path, plugin: str) -> dict[str, bool]:
    """Each test's name, and whether it passed."""
    (source.parent / "unsticky_conformance.py").write_text(plugin)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "unsticky_conformance",
        "-p",
        "no:timeout",
        "-rA",
        "-q",
        "--tb=short",
    ]
    done = subprocess.run(
        [*command, *suite.arguments],
        cwd=source,
        env=os.environ | {"PYTHONPATH": str(source.parent)},
        capture_output=True,
        text=True,
    )
    results = re.findall(r"^(PASSED|FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if not results:
        raise SystemExit(f"{suite.project}: no test ran\n{done.stdout}\n{done.stderr}")
    return {name: result == "PASSED" for result, name in results}


def compare(suite: Suite, folder: Path) -> bool:
    """Print how many of the tests that the framework itself passes here also pass with ours."""
    source = fetch(suite.project, folder)
    stock = {name for name, passed in run(suite, source, suite.stock).items() if passed}
    ours = {name for name, passed in run(suite, source, suite.stock + suite.plugin).items() if passed}
    print(f"{suite.project} {version(suite.project)}: {len(stock & ours)} of {len(stock)} pass")
    for name in sorted(stock - ours):
        print(f"  fails{', as documented' if name in suite.expected_failures else ''}: {name}")
    return stock - ours == suite.expected_failures


def main() -> int:
    good = []
    for suite in SUITES:
        with tempfile.TemporaryDirectory() as folder:
            good.append(compare(suite, Path(folder)))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
