"""How far long work has come: one line on a terminal, redrawn; nothing at all where nobody watches."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self, TextIO

from ..clock import Clock, SystemClock
from .texts import counted, duration

_BETWEEN = 0.1  # seconds from one drawing to the next, and until the first: quick work shows nothing
_BAR, _LEAST_BAR = 24, 5  # characters
_WIDTH = 80  # of a terminal that does not tell


def line(what: str, count: int, total: int | None, seconds: float, width: int) -> str:
    """What the line says after `seconds`: "[####----]  50%  10 of 20 sessions ended, 5/s, 2s left"."""
    rate = count / seconds if seconds > 0 else 0.0
    speed = f", {rate:,.0f}/s" if rate else ""
    if not total:
        return f"{count:,} {what}{speed}"[: width - 1]
    share = min(1.0, count / total)
    left = f", {duration((total - count) / rate)} left" if rate and count < total else ""
    text = f"{share:4.0%}  {count:,} of {total:,} {what}{speed}{left}"
    room = min(_BAR, width - len(text) - len("[] ") - 1)
    filled = int(share * room)
    bar = f"[{'#' * filled}{'-' * (room - filled)}] " if room >= _LEAST_BAR else ""
    return (bar + text)[: width - 1]


class Progress:
    """Counts what was done. An exception that leaves its block gets a note: what was done so far."""

    def __init__(
        self,
        noun: str,
        done: str,
        total: int | None = None,
        *,
        stream: TextIO | None = None,
        clock: Clock | None = None,
        quiet: bool = False,
    ) -> None:
        """`noun`, `done`: "session", "ended". `total`: unknown if None. `quiet`: do not draw, whatever stderr is."""
        self.count = 0
        self._noun, self._done, self._total = noun, done, total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock or SystemClock()
        self._drawn = 0  # characters that are on the line
        self._started = self._clock.monotonic()
        self._due = self._started + _BETWEEN
        self._shown = not quiet and self._stream.isatty()

    @property
    def told(self) -> str:
        """ "10,000 sessions ended"."""
        return f"{counted(self.count, self._noun)} {self._done}"

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self.count += count
        if self._shown and self._clock.monotonic() >= self._due:
            self._due = self._clock.monotonic() + _BETWEEN
            seconds = self._clock.monotonic() - self._started
            self._draw(line(f"{self._noun}s {self._done}", self.count, self._total, seconds, self._width()))

    def clear(self) -> None:
        """Leave the terminal as it was."""
        if self._drawn:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self.clear()
        if error is not None and self.count:
            error.add_note(f"{self.told} so far")

    def _draw(self, text: str) -> None:
        # Spaces instead of an escape sequence: every terminal knows them.
        padded = text.ljust(self._drawn)
        self._drawn = len(padded)  # first: Ctrl-C may come after the writing
        self._stream.write(f"\r{padded}")
        self._stream.flush()
        self._drawn = len(text)

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or _WIDTH
        except (OSError, ValueError):
            return _WIDTH
