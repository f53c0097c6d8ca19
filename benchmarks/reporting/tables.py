"""Tables, as text or as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Table(NamedTuple):
    """All cells are texts; each row has as many as there are heads."""

    title: str
    heads: list[str]
    rows: list[list[str]]


def text(tables: Iterable[Table]) -> Iterator[str]:
    """Lines for a terminal."""
    for title, heads, rows in tables:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        yield f"\n{title}"
        for row in (heads, *rows):
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def markdown(tables: Iterable[Table]) -> Iterator[str]:
    """Lines for a page of the documentation."""
    for title, heads, rows in tables:
        yield f"\n{title}\n"
        for row in (heads, ["---"] * len(heads), *rows):
            yield f"| {' | '.join(row)} |"
