"""What unsticky gives to tests."""

from __future__ import annotations

import pytest

from unsticky.testing import FakeClock


def test_both_times_move_together() -> None:
    """And only when told to."""
    clock = FakeClock(time=1000.0, monotonic=5.0)
    assert (clock.time(), clock.monotonic()) == (1000.0, 5.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (1002.5, 7.5)


def test_time_does_not_go_back() -> None:
    """Monotonic time can't."""
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-1)
