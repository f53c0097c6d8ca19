"""The figures as text and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from .churn import Churn
from .figures import Figures

HEADS = ["", "success", "attempts per call", "p50, ms", "p99, ms", "imbalance"]
RECOVERY = "99 % again after, s"
CHURN_HEADS = ["", "one leaves, % moved", "one joins", "one is ejected", "it had", "imbalance"]
Table = tuple[list[str], list[list[str]]]


def table(found: Sequence[Figures]) -> Table:
    """Heads, and a row per policy."""
    recovers = any(one.recovery is not None for one in found)
    return [*HEADS, *([RECOVERY] if recovers else [])], [_row(one, recovers=recovers) for one in found]


def _row(one: Figures, *, recovers: bool) -> list[str]:
    row = [
        one.policy,
        f"{100 * one.success:.2f} %",
        f"{one.amplification:.3f}",
        f"{one.p50:,.0f}",
        f"{one.p99:,.0f}",
        f"{one.imbalance:.2f}",
    ]
    if recovers:
        row.append("never" if one.recovery == inf else f"{one.recovery:.1f}")
    return row


def churn_table(found: Sequence[Churn]) -> Table:
    return CHURN_HEADS, [
        [one.policy, *(f"{value:.2f}" for value in (one.left, one.joined, one.ejected, one.least, one.imbalance))]
        for one in found
    ]


def text(title: str, of: Table) -> Iterator[str]:
    heads, rows = of
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    yield f"\n{title}"
    for row in (heads, *rows):
        first, *others = (cell.ljust(widths[0]) if at == 0 else cell.rjust(widths[at]) for at, cell in enumerate(row))
        yield "  " + "  ".join((first, *others)).rstrip()


def markdown(title: str, of: Table) -> Iterator[str]:
    heads, rows = of
    yield f"\n{title}\n"
    for row in (heads, ["---", *("---:" for _ in heads[1:])], *rows):
        yield f"| {' | '.join(row)} |"
