"""What was promised, held against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from reporting.tables import Table

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Goal(Generic[F]):
    """A value of ours and the limit for it. `value` raises KeyError where its part was not measured."""

    text: str
    unit: str
    limit: float
    value: Callable[[F], float]
    at_most: bool = True

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def row(self, value: float) -> list[str]:
        sign, verdict = "<=" if self.at_most else ">=", "met" if self.met(value) else "not met"
        return [self.text, f"{sign} {self.limit:g}{self.unit}", f"{value:.3g}{self.unit}", verdict]


def goals_table(goals: Iterable[Goal[F]], figures: F) -> Iterator[Table]:
    """Of those whose parts were measured; none where none was."""
    rows = []
    for goal in goals:
        try:
            rows.append(goal.row(goal.value(figures)))
        except KeyError:
            continue
    if rows:
        yield Table("Goals", ["", "goal", "measured", ""], rows)
