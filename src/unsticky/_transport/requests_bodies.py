"""Bodies of requests and urllib3: those that are handed out, and those that were read before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from urllib3 import HTTPHeaderDict, HTTPResponse

from .streams import OpenBody


class Raw:
    """urllib3's response, as `response.raw`: it gives its lease back at its end, when closed, or when dropped."""

    def __init__(self, body: OpenBody, dropped: Callable[[OpenBody], None]) -> None:
        self._body = body
        self._dropped = dropped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body.stream, name)

    def __iter__(self) -> Iterator[bytes]:
        return self.stream()

    def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Generator[bytes]:
        with self._reading():
            yield from self._body.stream.stream(amt, decode_content=decode_content)
        self._body.end()

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        with self._reading():
            data: bytes = self._body.stream.read(*args, **kwargs)
        if self._body.stream.closed:
            self._body.end()
        return data

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except Exception:
            self._body.lease.body_failed()
            self.close()
            raise

    def close(self) -> None:
        if self._body.end():
            self._body.stream.close()

    def release_conn(self) -> None:
        self._body.stream.release_conn()
        self._body.end()

    def __del__(self) -> None:
        if not self._body.closed:
            self._body.lease.release()
            self._dropped(self._body)


class Undecoded:
    """The body of urllib3's response as it comes: the driver reads its beginning."""

    def __init__(self, raw: HTTPResponse) -> None:
        self._raw = raw
        self.close = raw.close

    def __iter__(self) -> Iterator[bytes]:
        yield from self._raw.stream(2**16, decode_content=False)


class _Begun:
    """A file of what is iterated over, as urllib3 reads one."""

    def __init__(self, stream: Any) -> None:
        self._parts = iter(stream)
        self._close = getattr(stream, "close", lambda: None)
        self._rest = b""
        self.closed = False

    def read(self, amount: int | None = None) -> bytes:
        wanted, found = float("inf") if amount is None else amount, bytearray(self._rest)
        while len(found) < wanted and (part := next(self._parts, None)) is not None:
            found += part
        self._rest = b"" if amount is None else bytes(found[amount:])
        return bytes(found if amount is None else found[:amount])

    def close(self) -> None:
        self.closed = True
        self._close()


def again(raw: HTTPResponse, stream: Any, method: str) -> HTTPResponse:
    """The same response of urllib3's, with the body from its beginning."""
    headers = HTTPHeaderDict(raw.headers)
    headers.discard("transfer-encoding")  # that is done
    body: Any = _Begun(stream)
    return HTTPResponse(
        body, headers, raw.status, raw.version, reason=raw.reason, preload_content=False,
        decode_content=raw.decode_content, original_response=raw._original_response, request_method=method,
    )  # fmt: skip
