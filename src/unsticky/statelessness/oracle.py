"""What counts as a change: two runs of the same requests, compared with the noise of two controls taken out. Pure.

A leaf that is the same in both controls must be the same in the experiment. One that differs between them is a nonce, a
date, a process's number: then not its value counts, but where the same value comes again. A fresh number for each
request is new each time in all runs; one that is made once per process comes again and again in the control, and in the
experiment it changes with the replica. (The equality pattern is that of alpha-renaming.)

The order of a set is another one with each hash seed, and the same within a process: as a made-once value it would look
like a leak. What is the same tokens in another order in the second control is order, and no value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .responses import Leaves, Path, Response, content, in_any_order, leaves, same_tokens, unordered

ABSENT = "(absent)"
Place = tuple[int, Path]


@dataclass(frozen=True, slots=True)
class Difference:
    """One leaf of one response that the routing changed."""

    turn: int  # which request of the run
    path: Path
    expected: str  # by the control
    found: str
    pattern: bool = False  # the values are noise; where they repeat is not


@dataclass(frozen=True, slots=True)
class Comparison:
    """An experiment against its controls."""

    differences: tuple[Difference, ...]
    unstable: tuple[int, ...]  # requests whose status differs between the controls: nothing can be said of them
    compared: int  # leaves


def compare(control: Sequence[Response], again: Sequence[Response], experiment: Sequence[Response]) -> Comparison:
    """The experiment's run against that of the control and of the control that was run again on another boot."""
    mine, other, tried = _taken_apart(control, again, experiment)
    unstable = {turn for turn, (a, b) in enumerate(zip(mine, other, strict=True)) if a["status",] != b["status",]}
    noisy = _noisy(mine, other)
    orders = dict(_orders(mine, other, noisy))
    noisy -= {place for place, values in orders.items() if tried[place[0]].get(place[1], ABSENT) in values}
    patterns = [_pattern(run, noisy) for run in (mine, other, tried)]
    differences: list[Difference] = []
    compared = 0
    for turn, expected in enumerate(mine):
        if turn in unstable:
            continue
        for path in sorted(expected.keys() | tried[turn].keys(), key=_order):
            compared += 1
            found = None
            if (turn, path) in noisy:
                found = _of_noise(turn, path, patterns, mine, tried)
            elif (turn, path) not in orders:
                found = _of_value(turn, path, expected, tried[turn])
            if found is not None:
                differences.append(found)
    return Comparison(tuple(differences), tuple(sorted(unstable)), compared)


def shown(path: Path) -> str:
    """ "body.items[0].name", "header x-who", "cookie session"."""
    if path[0] in ("header", "cookie"):
        return f"{path[0]} {path[1]}"
    text = str(path[0])
    for part in path[1:]:
        if part == "[]":
            return f"the length of {text}"
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text


def _taken_apart(*runs: Sequence[Response]) -> list[list[Leaves]]:
    """Each run's responses as leaves, without the order of arrays whose order differs between the controls."""
    trees: list[list[Any]] = [[content(response) for response in run] for run in runs]
    loose = [tuple(unordered(one, other)) for one, other in zip(trees[0], trees[1], strict=True)]
    apart = [
        [leaves(response, tree, paths) for response, tree, paths in zip(run, found, loose, strict=True)]
        for run, found in zip(runs, trees, strict=True)
    ]
    mine, other = apart[0], apart[1]
    for turn, path in _noisy(mine, other):  # a header's text; those of bodies are done
        if same_tokens(mine[turn].get(path, ABSENT), other[turn].get(path, ABSENT)):
            for run_leaves in apart:
                if path in run_leaves[turn]:
                    run_leaves[turn][path] = in_any_order(run_leaves[turn][path])
    return apart


def _orders(
    mine: Sequence[Leaves], other: Sequence[Leaves], noisy: frozenset[Place]
) -> Iterator[tuple[Place, frozenset[str]]]:
    """Noisy leaves whose values are each other's in the second control, and which values may stand there.

    Leaves are alike if their paths differ in nothing but indices: names beside a random number in an array of objects,
    the words of a page.
    """
    alike: dict[Place, list[Path]] = {}
    for turn, path in noisy:
        alike.setdefault((turn, _without_indices(path)), []).append(path)
    for (turn, shape), paths in alike.items():
        swapped = _swapped(mine[turn], other[turn], paths)
        if swapped:
            fixed = {
                value
                for path, value in mine[turn].items()
                if (turn, path) not in noisy and _without_indices(path) == shape
            }
            values = frozenset(fixed | {mine[turn].get(path, ABSENT) for path in swapped})
            yield from (((turn, path), values) for path in swapped)


def _swapped(one: Leaves, two: Leaves, paths: Sequence[Path]) -> Sequence[Path]:
    """Those of the paths that hold the same values in both, each as often."""
    while paths:
        ones, twos = ([run.get(path, ABSENT) for path in paths] for run in (one, two))
        common = set(ones) & set(twos)
        kept = [path for path, a, b in zip(paths, ones, twos, strict=True) if a in common and b in common]
        if len(kept) == len(paths):
            return paths if Counter(ones) == Counter(twos) else ()
        paths = kept
    return ()


def _without_indices(path: Path) -> Path:
    return tuple(0 if isinstance(part, int) else part for part in path)


def _noisy(mine: Sequence[Leaves], other: Sequence[Leaves]) -> frozenset[Place]:
    return frozenset(
        (turn, path)
        for turn, (one, two) in enumerate(zip(mine, other, strict=True))
        for path in one.keys() | two.keys()
        if one.get(path) != two.get(path)
    )


def _pattern(run: Sequence[Leaves], noisy: frozenset[Place]) -> dict[Place, Place]:
    """Of each noisy leaf, where its value came first in the run."""
    first: dict[str, Place] = {}
    found: dict[Place, Place] = {}
    for turn, path in sorted(noisy, key=lambda one: (one[0], _order(one[1]))):
        value = run[turn].get(path, ABSENT)
        found[turn, path] = first.setdefault(value, (turn, path))
    return found


def _of_noise(
    turn: int,
    path: Path,
    patterns: Sequence[dict[Place, Place]],
    mine: Sequence[Leaves],
    tried: Sequence[Leaves],
) -> Difference | None:
    control, again, experiment = (pattern[turn, path] for pattern in patterns)
    # New in the control, and seen before in the experiment: small random numbers do that, and forks with one generator.
    if control != again or control == experiment or control == (turn, path):
        return None
    came, leaf = control
    expected = f"the value of request {came + 1}, {shown(leaf)}"
    missing = path not in tried[turn] and path in mine[turn]
    return Difference(turn, path, expected, ABSENT if missing else "another value", True)


def _of_value(turn: int, path: Path, expected: Leaves, found: Leaves) -> Difference | None:
    one, other = expected.get(path, ABSENT), found.get(path, ABSENT)
    return None if one == other else Difference(turn, path, one, other)


def _order(path: Path) -> tuple[bool, list[tuple[bool, str, int]]]:
    """The status first, then in the order of a reader."""
    parts = [
        (isinstance(part, int), "" if isinstance(part, int) else part, part if isinstance(part, int) else 0)
        for part in path
    ]
    return path != ("status",), parts
