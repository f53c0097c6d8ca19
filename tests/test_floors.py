"""Imports point down only, and folders on the floor of decisions never import each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "unsticky"

GROUND, DECISIONS, WORLD, HOSTS, PEOPLE = range(5)
FLOORS = {
    "errors": GROUND,
    "clock": GROUND,
    "context": GROUND,
    "rules": GROUND,
    "scalars": GROUND,
    "local": GROUND,
    "guard": DECISIONS,
    "session": DECISIONS,
    "routing": DECISIONS,
    "settings": WORLD,
    "stores": WORLD,
    "discoverers": WORLD,
    "telemetry": WORLD,
    "blocking": WORLD,
    "worker": WORLD,
    "load": WORLD,
    "sealing": WORLD,
    "access": HOSTS,
    "arrivals": HOSTS,
    "discovery": HOSTS,
    "jar": HOSTS,
    "probes": HOSTS,
    "tables": HOSTS,
    "pools": HOSTS,
    "proxies": HOSTS,
    "sessions": HOSTS,
    "_transport": HOSTS,
    "disconnects": HOSTS,
    "httpx": HOSTS,
    "httpx2": HOSTS,
    "requests": HOSTS,
    "asgi": HOSTS,
    "reporting": HOSTS,
    "wsgi_body": HOSTS,
    "wsgi_context": HOSTS,
    "flask": HOSTS,
    "flask_responses": HOSTS,
    "flask_sessions": HOSTS,
    "flask_takeover": HOSTS,
    "starlette": HOSTS,
    "wsgi": HOSTS,
    "__main__": PEOPLE,
    "cli": PEOPLE,
    "testing": PEOPLE,
    "statelessness": HOSTS,
}
PURE_IMPORTS = frozenset(
    ("__future__ abc array base64 binascii bisect collections contextlib dataclasses datetime decimal email enum "
     "functools hashlib heapq hmac http importlib ipaddress itertools itsdangerous json markupsafe math msgspec "
     "operator random re secrets struct types typing urllib uuid xxhash")
    .split()
)  # fmt: skip
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute dotted names of all that a module imports, inside functions too."""
    package = ["unsticky", *path.relative_to(PACKAGE).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*package[: len(package) - node.level + 1], node.module or ""] if node.level else [node.module or ""]
            )
            names.update(
                f"{base.rstrip('.')}.{alias.name}" if node.level and not node.module else base for alias in node.names
            )
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A module imports from its own room, and from floors below its own."""
    own = FLOORS[room(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "unsticky" or len(parts) == 1 or parts[1] == "__version__":
            continue
        other = parts[1]
        assert other == room(path) or FLOORS[other] < own or (FLOORS[other] == own and own != DECISIONS), (
            f"{path.name} imports {name}, which is not below it"
        )


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if FLOORS[room(path)] <= DECISIONS],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_decisions_import_nothing_that_acts(path: Path) -> None:
    """The ground and the decisions import no I/O, no threads and no event loop."""
    allowed = PURE_IMPORTS | ({"time", "contextvars"} if FLOORS[room(path)] == GROUND else set())
    outside = {name.split(".")[0] for name in imports(path)} - {"unsticky"}
    assert outside <= allowed, f"{path.name} imports {sorted(outside - allowed)}"


def test_every_module_has_a_floor() -> None:
    """A new file is put on a floor on purpose."""
    assert {room(path) for path in MODULES} <= FLOORS.keys()


def test_the_page_shows_the_same_floors() -> None:
    """docs/architecture.md, row by row."""
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text("utf-8")
    floors = ["ground", "decisions", "world", "hosts", "people"]
    rows = [re.search(rf"^\| {name} \| ([^|]+) \|", page, re.MULTILINE) for name in floors]
    shown = {name: floor for floor, row in enumerate(rows) if row for name in re.findall(r"`(\w+)/?`", row[1])}
    assert shown == FLOORS
