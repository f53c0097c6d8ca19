"""docs/sessions.md names a test for each thing that it claims: they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "sessions.md").read_text("utf-8")


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_each_row_names_a_test_that_exists() -> None:
    """And no row of the table goes without."""
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
    missing = [f"{file}::{name}" for file, name in named if name not in functions(TESTS / file)]
    assert missing == []
    table = PAGE.partition("## Beside others")[2].partition("\n\nNo lost")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert len(rows) >= 33
    assert [row for row in rows if "::test_" not in row or not re.search(r"\| (yes|128 \+ 256) \|", row)] == []
