"""The command line, and the run: what a part has found is written as it ends, whatever becomes of those after it."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from reporting.tables import Table, markdown, text

Found = Callable[[], object]  # the figures so far, as JSON has them


def options(about: str, parts: Iterable[str], quick: str) -> argparse.Namespace:
    """`about`: the script's own docstring. `quick`: how long that takes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(parts), help="only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--smoke", action="store_true", help="does it run at all? The figures are worth nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--markdown", action="store_true", help="print tables for the documentation")
    return parser.parse_args()


def run(
    chosen: argparse.Namespace,
    parts: Mapping[str, Callable[[], Iterable[Table]]],
    goals: Callable[[], Iterable[Table]],
    found: Found,
) -> int:
    """Run the parts that were chosen, each of which returns its tables; the goals come last. Returns the exit status.

    A part that fails is told on stderr, and the others run all the same.
    """
    failed = []
    for part in chosen.only or parts:
        try:
            _print(parts[part](), chosen)
        except Exception:
            traceback.print_exc()
            failed.append(part)
        if chosen.json:
            chosen.json.write_text(json.dumps(found(), indent=1) + "\n")
    _print(goals(), chosen)
    if failed:
        print(f"failed, and not in the tables: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _print(tables: Iterable[Table], chosen: argparse.Namespace) -> None:
    lines = markdown(tables) if chosen.markdown else text(tables)
    print("\n".join(lines), flush=True)
