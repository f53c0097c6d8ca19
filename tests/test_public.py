"""The public names, what an import costs, and that optional dependencies stay optional."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import unsticky

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_names_are_sorted_few_and_there() -> None:
    """`__all__` is what it says."""
    assert unsticky.__all__ == sorted(unsticky.__all__)
    assert len(unsticky.__all__) <= 25
    for name in unsticky.__all__:
        assert getattr(unsticky, name)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("flask", ["SessionInterface", "SessionUnavailable", "Unsticky"]),
        ("starlette", ["Session", "SessionMiddleware", "UnstickyMiddleware"]),
        ("wsgi", ["UnstickyMiddleware"]),
        ("httpx", ["AsyncPoolTransport", "PoolTransport", "NoHealthyEndpoint", "AttemptsFailed", "CallTimeout"]),
        ("requests", ["PoolAdapter", "call_options", "NoHealthyEndpoint", "AttemptsFailed", "CallTimeout"]),
        ("httpx2", ["AsyncPoolTransport", "PoolTransport", "NoHealthyEndpoint", "AttemptsFailed", "CallTimeout"]),
    ],
)
def test_the_documented_names_of_each_host(module: str, names: list[str]) -> None:
    """What the documentation imports can be imported."""
    loaded = __import__(f"unsticky.{module}", fromlist=names)
    for name in names:
        assert hasattr(loaded, name)


BLOCKED = (
    "flask",
    "werkzeug",
    "starlette",
    "httpx2",
    "redis",
    "requests",
    "aiohttp",
    "psycopg",
    "cryptography",
    "dns",
    "cachetools",
)
BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r} or name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_the_core_needs_no_extra() -> None:
    """With every optional dependency blocked: sessions on SQLite, pools over httpx, settings, WSGI."""
    code = """
import unsticky, unsticky.wsgi, unsticky.httpx, unsticky.settings, unsticky.cli, unsticky.testing
from unsticky import Pools, Sessions
with Pools.from_settings({"pools": {"catalog": {"endpoints": ["http://127.0.0.1:1"]}}}) as pools:
    pools.client().close()
Sessions()
print("fine")
"""
    assert python(BLOCKER + code) == "fine"


@pytest.mark.parametrize(("url", "extra"), [("postgresql://localhost/app", "postgres")])
def test_a_missing_driver_names_its_extra(url: str, extra: str) -> None:
    """At start-up, in one line that can be pasted."""
    code = f"""
from unsticky import SettingsError, Sessions
from unsticky.session.options import SessionOptions
try:
    Sessions(SessionOptions(store={url!r}))
except SettingsError as error:
    print(error)
"""
    assert f"pip install 'unsticky[{extra}]'" in python(BLOCKER + code)


def test_the_import_is_light() -> None:
    """The package itself loads no HTTP client, no framework, no driver."""
    loaded = python("import sys, unsticky; print(*sorted(name.split('.')[0] for name in sys.modules))").split()
    assert not {"httpx", "httpcore", "flask", "starlette", "redis", "sqlite3", "opentelemetry"} & set(loaded)


def test_every_extra_of_the_design_exists() -> None:
    """The names are fixed; and nothing optional is in the core."""
    extras = PROJECT["optional-dependencies"]
    wanted = {"flask", "starlette", "httpx2", "requests", "aiohttp", "redis", "postgres", "memcached", "crypto", "otel"}
    assert wanted | {"dns", "test"} == set(extras)
    core = {requirement.split(">")[0].split("<")[0] for requirement in PROJECT["dependencies"]}
    assert core == {"msgspec", "httpx", "sniffio", "opentelemetry-api", "itsdangerous", "xxhash"}


def test_no_pickle_and_no_star_import() -> None:
    """Not anywhere in the package."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "marshal", "shelve", "dill", "*"}, path


def test_it_is_typed() -> None:
    """py.typed is shipped."""
    assert (ROOT / "src" / "unsticky" / "py.typed").exists()
