"""Numbers, times and tables for people."""

from __future__ import annotations

import time

import pytest

from unsticky.cli import texts

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (1.5e6, "1.5 MB"), (4e12, "4000 GB")],
)
def test_sizes(number: float, text: str) -> None:
    """Bytes, with two or three digits that matter."""
    assert texts.size(number) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOW, "now"),
        (NOW - 0.9, "now"),
        (NOW - 1, "1s ago"),
        (NOW - 119, "1m ago"),
        (NOW + 3600, "in 1h"),
        (NOW - 86400 * 1000, "1,000d ago"),
    ],
)
def test_relative_times(moment: float, text: str) -> None:
    """In the largest unit that fits."""
    assert texts.relative(moment, NOW) == text


def test_local_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the zone's name; a moment that no calendar has stays a number."""
    monkeypatch.setenv("TZ", "XYZ-3")
    time.tzset()
    try:
        assert texts.local(NOW) == "2023-11-15 01:13:20 XYZ"
        assert texts.local(1e18) == "1000000000000000000"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("Łukasz 東京", "utf-8", "Łukasz 東京"),
        ("a\x1b[2J\r\nb", None, "a\\x1b[2J\\r\\nb"),
        ("evil\u202egnp.exe", None, "evil\\u202egnp.exe"),
        ("Łukasz", "ascii", "\\u0141ukasz"),
    ],
)
def test_text_of_users_steers_no_terminal(text: str, encoding: str | None, shown: str) -> None:
    """Control characters, and what the terminal's encoding lacks, are escaped."""
    assert texts.plain(text, encoding) == shown


def test_tables_are_aligned() -> None:
    """By columns of the terminal; an empty column is left out."""
    rows = [
        ("NAME", "EMPTY", "SIZE", "LAST"),
        ("東京", "", "5 B", "x"),
        ("Zoë", "", "100 B", "y"),
        ("Zoe\u0308", "", "", ""),
    ]
    assert texts.table(rows, frozenset((2,))) == [
        "NAME   SIZE  LAST",
        "東京    5 B  x",
        "Zoë   100 B  y",
        "Zoe\u0308",
    ]
