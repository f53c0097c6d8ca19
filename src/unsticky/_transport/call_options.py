"""What one call wants otherwise than its pool."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """`extensions={"unsticky": {...}}`: what one call wants otherwise."""

    timeout: float | None = None  # seconds, of the whole call; replaces the pool's
    retry: bool = True
    hash_key: str | None = None
    idempotent: bool | None = None  # None: as the method and the headers say
    hedge: bool = True
    buffer_body: int | None = None  # bytes; None: as the pool says
    inbound: bool = True  # False: what is known of the inbound request has no effect
    fallback: bool = True  # False: the call fails where the pool's fallback would step in

    @classmethod
    def read(cls, given: object) -> CallOptions:
        """Raises ValueError, with what is allowed."""
        if given is None:
            return DEFAULTS
        if not isinstance(given, Mapping):
            raise ValueError(f'extensions["unsticky"]: expected a mapping, got {type(given).__name__}')
        return cls.checked(given, 'extensions["unsticky"]', '["{}"]')

    @classmethod
    def checked(cls, given: Mapping[str, Any], place: str, key: str) -> CallOptions:
        """Raises ValueError, which names the `place` where they are `given`, and `key` with an option's name in it."""
        for name in given.keys() - _NAMES:
            near = difflib.get_close_matches(str(name), _NAMES, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"allowed are {', '.join(sorted(_NAMES))}"
            raise ValueError(f'{place}: unknown key "{name}", {hint}')
        options = cls(**given)
        if (wrong := options._wrong()) is not None:
            raise ValueError(f"{place}{key.format(wrong[0])}: expected {wrong[1]}")
        return options

    def _wrong(self) -> tuple[str, str] | None:
        """The first option that can't be meant, and what is expected."""
        timeout = self.timeout
        if timeout is not None and (
            isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0
        ):
            return "timeout", "seconds above 0"
        for name in _CHOICES:
            choice = getattr(self, name)
            if not isinstance(choice, bool) and not (name == "idempotent" and choice is None):
                return name, "true or false"
        buffer = self.buffer_body
        if buffer is not None and (isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 0):
            return "buffer_body", "bytes, 0 or more"
        key: object = self.hash_key
        return None if key is None or isinstance(key, str) else ("hash_key", "a text")


_CHOICES = ("retry", "idempotent", "hedge", "inbound", "fallback")
DEFAULTS = CallOptions()
_NAMES = frozenset(field.name for field in fields(CallOptions))
