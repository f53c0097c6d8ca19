"""What WSGI apps return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def is_ready(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Nothing of the app runs in it; and servers want to recognise their own file wrapper (uWSGI's is no class)."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, (list, tuple, wrapper) if isinstance(wrapper, type) else (list, tuple))


def close(body: Iterable[bytes]) -> None:
    """Call its `close`, if it has one."""
    end = getattr(body, "close", None)
    if end is not None:
        end()


class BodyOf:
    """A body that the app makes while it is sent: each step sees `variable` as its request has it, nothing else does.

    Subclasses say what its close is.
    """

    __slots__ = ("_body", "_chunks", "_seen", "_variable")

    def __init__(self, body: Iterable[bytes], variable: ContextVar[Any], seen: Any) -> None:
        self._body = body
        self._variable = variable
        self._seen = seen

    def __iter__(self) -> Iterator[bytes]:
        self._chunks = self._run(iter, self._body)
        return self

    def __next__(self) -> bytes:
        chunk: bytes = self._run(next, self._chunks)
        return chunk

    def _run(self, step: Callable[[Any], Any], argument: Any) -> Any:
        before = self._variable.get()
        self._variable.set(self._seen)
        try:
            return step(argument)
        finally:
            self._variable.set(before)
