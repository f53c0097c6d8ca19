"""Numbers, times and tables as people read them. Pure: the time is given."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from unicodedata import combining, east_asian_width

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def counted(number: int, noun: str) -> str:
    """ "1 session", "10,000 sessions"."""
    return f"{number:,} {noun}{'s'[: number != 1]}"


def size(number: float) -> str:
    """Bytes: "512 B", "1.5 kB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"


def duration(seconds: float) -> str:
    """In its largest unit: "3m"."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length:,.0f}{unit}"
    return "0s"


def relative(moment: float, now: float) -> str:
    """ "5m ago", "in 29m", "now"."""
    text = duration(abs(moment - now))
    if text == "0s":
        return "now"
    return f"{text} ago" if moment < now else f"in {text}"


def local(moment: float) -> str:
    """In the machine's zone, which is named; unix seconds, if no calendar has it."""
    try:
        return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f}"


def plain(text: str, encoding: str | None = None) -> str:
    """Text of users without what would steer the terminal, as far as `encoding` has it; the rest is escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Aligned columns; the first row is the head. `right`: indexes of columns that are aligned to the right.

    A column without a text below its head is left out.
    """
    columns = range(len(rows[0]))
    kept = [n for n in columns if len(rows) == 1 or any(row[n] for row in rows[1:])]
    widths = {n: max(_width(row[n]) for row in rows) for n in kept}
    return ["  ".join(_cell(row[n], widths[n], n in right) for n in kept).rstrip() for row in rows]


def _cell(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    """Columns of a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
