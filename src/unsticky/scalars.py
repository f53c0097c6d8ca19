"""The scalar types that options are made of: durations, moments, and texts that must not be shown."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Self

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_PASSWORD = re.compile(r"(?<=://)([^/?#:@]*):([^/?#]*)@|(?<=[?&])((?:\w*password|\w*secret)=)[^&#]*")

DURATION_FORM = 'a duration such as "250ms", "30s", "5m", "12h", "14d", or a number of seconds'


class Duration(float):
    """Seconds. ``Duration("250ms") == 0.25``, ``Duration("1h30m") == 5400``, ``Duration(2) == 2``."""

    __slots__ = ()

    def __new__(cls, value: float | str) -> Self:
        """Raises ValueError when `value` is no duration, is negative, or is not finite."""
        seconds = _parse(value) if isinstance(value, str) else float(value)
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"expected {DURATION_FORM}, got {value!r}")
        return super().__new__(cls, seconds)

    @property
    def text(self) -> str:
        """As settings spell it: ``Duration(5400).text == "1h30m"``. Less than a millisecond is rounded off."""
        if 1 <= self < 60:
            return f"{round(self, 3):g}s"
        left, parts = round(self * 1000), []
        for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
            count, left = divmod(left, length)
            parts += [f"{count}{unit}"] if count else []
        return "".join(parts) or "0s"


def _parse(text: str) -> float:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"expected {DURATION_FORM}, got {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


MOMENT_FORM = 'a date or a time such as "2027-03-31" or "2027-03-31T12:00:00Z"'


class Moment(float):
    """Unix seconds. What names no zone is UTC: ``Moment("2027-03-31").text == "2027-03-31T00:00:00Z"``."""

    __slots__ = ()

    def __new__(cls, value: str | date) -> Self:
        """Raises ValueError when `value` is neither a date nor a time."""
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(f"expected {MOMENT_FORM}, got {value!r}") from None
        if not isinstance(moment, datetime):
            moment = datetime.combine(moment, time())
        return super().__new__(cls, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())

    @property
    def text(self) -> str:
        """As settings spell it, in UTC; fractions of a second are left out."""
        return datetime.fromtimestamp(int(self), UTC).isoformat().replace("+00:00", "Z")


class Secret(str):
    """A text whose repr hides it. `str()` still gives the text: log the repr, or nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class StoreURL(str):
    """A store's URL. `repr` and `masked` hide the password in it."""

    __slots__ = ()

    @property
    def masked(self) -> str:
        return _PASSWORD.sub(lambda match: f"{match[1]}:***@" if match[1] is not None else f"{match[3]}***", str(self))

    def __repr__(self) -> str:
        return repr(self.masked)
