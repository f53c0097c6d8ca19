"""docs/routing-compared.md names the tests that prove each row: they exist, assert something and are not skipped."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "routing-compared.md").read_text("utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
LATER = {"Adaptive concurrency", "Client throttling", "Criticality, carried on and shed by", "Last good responses"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def functions(file: str) -> dict[str, Function]:
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, Function)}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = re.split(r"^## ", PAGE.partition(f"## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def checks(function: Function) -> bool:
    """Does it state anything?"""
    nodes = list(ast.walk(function))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return any(isinstance(node, ast.Assert) for node in nodes) or "raises" in named


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_a_proof_is_one(file: str, name: str) -> None:
    """It is there, at the top of its module where pytest finds it, and nothing lets it pass unseen."""
    function = functions(file)[name]
    assert checks(function)
    decorators = " ".join(ast.unparse(one) for one in function.decorator_list)
    assert not re.search(r"skip|xfail", decorators)


def test_each_row_has_its_proof() -> None:
    """All but those that the table says we do not have."""
    table = rows("The table")
    assert len(table) >= 33
    assert {len(row) for row in table} == {11}
    answers = {feature: (mine, bool(re.search("::test_", proof))) for feature, mine, *_, proof in table}
    assert {feature for feature, (mine, _) in answers.items() if mine == "a later step"} == LATER
    assert [feature for feature, (mine, _) in answers.items() if mine == "no"] == []
    assert [feature for feature, (mine, proved) in answers.items() if mine.startswith("yes") is not proved] == []
    inside = rows("What comes from being inside the app")
    assert len(inside) >= 13
    assert [row for row in inside if "::test_" not in row[1]] == []
