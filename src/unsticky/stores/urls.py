"""What a store's URL says, read without any driver. Errors are ValueErrors that never show a password."""

from __future__ import annotations

from difflib import get_close_matches
from urllib.parse import SplitResult, unquote, urlsplit


def split(url: str) -> SplitResult:
    """The URL's parts. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme.endswith(("+cluster", "+sentinel")):  # several hosts: urlsplit knows the brackets of one only
        url = f"{scheme}://{rest.replace('[', '%5B').replace(']', '%5D')}"
    try:
        return urlsplit(url)
    except ValueError:  # its text can hold a part of the URL that is a password
        raise ValueError("the URL can't be read: check its host and brackets") from None


def nearest(name: str, known: tuple[str, ...]) -> str:
    """`, did you mean "x"?` or nothing."""
    close = get_close_matches(name, known, 1)
    return f', did you mean "{close[0]}"?' if close else ""


def sqlite_path(url: str) -> str:
    """`sqlite:///relative.db` -> `relative.db`, `sqlite:////srv/absolute.db` -> `/srv/absolute.db`."""
    parts = split(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc:
        raise ValueError('a SQLite URL has three slashes, "sqlite:///relative.db", or four for an absolute path')
    if parts.query or parts.fragment:
        raise ValueError("a SQLite URL takes no options")
    if path == ":memory:":
        raise ValueError('each connection would have a ":memory:" database of its own; use "memory://" (in tests)')
    if not path or path.endswith("/") or "\0" in path:
        raise ValueError('a SQLite URL names a file, such as "sqlite:///sessions.db"')
    return path


def memory_name(url: str) -> str:
    """`memory://` -> ``, `memory://carts` -> `carts`."""
    parts = split(url)
    if parts.path or parts.query or parts.fragment:
        raise ValueError('a memory URL is "memory://", or "memory://NAME" to share within the process')
    return parts.netloc
