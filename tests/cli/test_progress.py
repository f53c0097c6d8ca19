"""The line that shows how far long work has come."""

from __future__ import annotations

import io

import pytest

from unsticky.cli.progress import Progress, line
from unsticky.testing import FakeClock


class Terminal(io.StringIO):
    """Somebody watches."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "total", "seconds", "width", "text"),
    [
        (0, None, 0.0, 80, "0 sessions ended"),
        (12_000, None, 4.0, 80, "12,000 sessions ended, 3,000/s"),
        (12_000, None, 4.0, 20, "12,000 sessions end"),
        (10, 20, 2.0, 90, "[############------------]  50%  10 of 20 sessions ended, 5/s, 2s left"),
        (10, 20, 2.0, 60, "[######-------]  50%  10 of 20 sessions ended, 5/s, 2s left"),
        (10, 20, 2.0, 48, " 50%  10 of 20 sessions ended, 5/s, 2s left"),
        (25, 20, 2.0, 90, "[########################] 100%  25 of 20 sessions ended, 12/s"),
        (0, 20, 0.0, 90, "[------------------------]   0%  0 of 20 sessions ended"),
    ],
)
def test_what_the_line_says(count: int, total: int | None, seconds: float, width: int, text: str) -> None:
    """Counts and rate; with a total also a bar, the share and the time left; never wider than the terminal."""
    assert line("sessions ended", count, total, seconds, width) == text


def test_it_is_drawn_ten_times_per_second_and_cleared() -> None:
    """However often something is counted; afterwards the terminal's line is empty."""
    terminal, clock = Terminal(), FakeClock()
    with Progress("session", "ended", stream=terminal, clock=clock) as progress:
        for _ in range(1280):
            progress.add(2)
            clock.advance(1 / 128)
    drawn = terminal.getvalue().split("\r")[1:]
    assert len(drawn) == 98 + 2
    assert drawn[0] == "28 sessions ended, 276/s"
    assert drawn[50] == "1,328 sessions ended, 256/s"
    assert drawn[-2].strip() == ""
    assert len(drawn[-2]) == len(drawn[-3])
    assert drawn[-1] == ""
    assert progress.told == "2,560 sessions ended"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_is_drawn_where_nobody_watches(stream: io.StringIO) -> None:
    """No byte goes to a pipe, nor to a terminal that shows the result meanwhile."""
    with Progress("session", "ended", stream=stream, clock=FakeClock(), quiet=stream.isatty()) as progress:
        progress.add()
    assert stream.getvalue() == ""


def ended(count: int, error: BaseException) -> None:
    """So many are ended, and then that happens."""
    with Progress("session", "ended", stream=io.StringIO()) as progress:
        progress.add(count)
        raise error


def test_what_was_done_is_told_when_it_is_stopped() -> None:
    """The exception carries it; nothing is said if nothing was done."""
    with pytest.raises(KeyboardInterrupt) as stopped:
        ended(1, KeyboardInterrupt())
    assert stopped.value.__notes__ == ["1 session ended so far"]
    with pytest.raises(ValueError, match="x") as failed:
        ended(0, ValueError("x"))
    assert not hasattr(failed.value, "__notes__")
