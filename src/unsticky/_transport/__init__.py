"""Outbound HTTP over pools, once for httpx and httpx2: `unsticky.httpx` and `unsticky.httpx2` only name classes."""

from __future__ import annotations

from .asynchronous import AsyncDriver
from .library import Library
from .streams import AsyncLeasedStream, LeasedStream
from .sync import SyncDriver

__all__ = ["AsyncDriver", "AsyncLeasedStream", "LeasedStream", "Library", "SyncDriver"]
