"""The reference in docs/settings.md is made from the settings tree: `python tests/test_docs_settings.py` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

import msgspec

from unsticky.scalars import Duration
from unsticky.settings import Settings
from unsticky.settings.schema import plain
from unsticky.settings.shapes import Field, Leaf, ListOf, Shape, Table, TableOf, quoted, shape_of

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BEGIN = "<!-- begin of what tests/test_docs_settings.py writes -->\n"
END = "<!-- end -->\n"


def reference() -> str:
    """A heading and a table for each table of the tree."""
    return "".join(_section(shape_of(Settings), ""))


def _section(shape: Shape, path: str) -> Iterator[str]:
    assert isinstance(shape, Table)
    own = {name: field for name, field in shape.fields.items() if not _is_section(field.shape)}
    yield f"\n### {_heading(path)}\n\n| Setting | Default | Meaning |\n|---|---|---|\n"
    yield from (f"| `{name}` | {_default(field)} | {_meaning(field)} |\n" for name, field in own.items())
    for name, field in shape.fields.items():
        for inner, below in _below(field.shape, f"{path}.{name}".lstrip(".")):
            yield from _section(inner, below)


def _is_section(shape: Shape) -> bool:
    return isinstance(shape, Table) or (isinstance(shape, TableOf) and isinstance(shape.value, Table))


def _heading(path: str) -> str:
    if not path:
        return "At the top"
    return f"One of `{path.removesuffix('[]')}`" if path.endswith("[]") else f"`[{path}]`"


def _below(shape: Shape, path: str) -> Iterator[tuple[Shape, str]]:
    """The tables that a field leads to, and where they stand."""
    match shape:
        case Table():
            yield shape, path
        case TableOf(value=Table()):
            yield shape.value, f"{path}.NAME"
        case ListOf(item=Table()):
            yield shape.item, f"{path}[]"


def _default(field: Field) -> str:
    if field.default is MISSING:
        return "required"
    return "unset" if field.default is None else f"`{msgspec.json.encode(plain(field.default)).decode()}`"


def _meaning(field: Field) -> str:
    shape = field.shape.item if isinstance(field.shape, ListOf) else field.shape
    limits = _limits(shape) if isinstance(shape, Leaf) else ""
    return " ".join(filter(None, (field.description, limits))).replace("|", "\\|")


def _limits(leaf: Leaf) -> str:
    if leaf.choices:
        return f"One of {quoted(leaf.choices)}.".replace('"', "`")
    if leaf.least is not None and leaf.most is not None:
        return f"From {_number(leaf.least)} to {_number(leaf.most)}."
    if leaf.above is not None and leaf.type is not Duration:  # who would set a time to 0?
        return f"More than {_number(leaf.above)}."
    if leaf.least and leaf.type is Duration:
        return f"At least {Duration(leaf.least).text}."
    return f"At least {_number(leaf.least)}." if leaf.least else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def test_the_reference_is_that_of_the_code() -> None:
    """After a change of options: python tests/test_docs_settings.py."""
    _, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    assert rest.partition(END)[0] == reference()


def test_every_setting_has_a_meaning() -> None:
    """No row of the reference is left without words."""
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert all(row.split(" | ", 2)[2].strip(" |") for row in rows)


if __name__ == "__main__":
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + reference() + END + rest.partition(END)[2], "utf-8")
