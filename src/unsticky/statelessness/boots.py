"""What two interpreters that did the same do not agree on: a key or a salt that each makes at its start. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .responses import Response
from .walk import Held

_WORD = re.compile(r"[\w.+/=-]+")
_LARGEST = 1 << 16  # characters of a body that are looked through


@dataclass(frozen=True, slots=True)
class BootValues:
    """By name, and as the first of the two holds them."""

    names: tuple[str, ...]
    held: Held  # of the interpreter that serves the control
    fingerprint: Callable[[str], str]  # of a value's repr, as in `held`

    def shown_in(self, response: Response) -> Iterator[str]:
        """Those whose value stands in a response of the control's: no request changed them, and they explain it."""
        if self.names:
            prints = {self.fingerprint(text) for word in _words(response) for text in _forms(word)}
            yield from (name for name in self.names if self.held.get(name) in prints)


def _words(response: Response) -> set[str]:
    texts = (response.text[:_LARGEST], *(value for _, value in response.headers))
    return {word for text in texts for word in (text, *_WORD.findall(text))}


def _forms(word: str) -> Iterator[str]:
    """How a value that reads so may be held: as a text, as bytes, as a number, as a UUID."""
    yield repr(word)
    yield repr(word.encode())
    yield word
    yield f"UUID({word!r})"
