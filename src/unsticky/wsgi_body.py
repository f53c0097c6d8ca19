"""What WSGI apps return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

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
