"""What the driver sends for a request of requests, and over what: requests' own adapter is the innermost hop."""

from __future__ import annotations

from http.client import HTTPResponse, RemoteDisconnected
from math import isinf
from typing import Any, cast

import httpx
import requests
import requests.adapters
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..worker import in_forked_children

CALL = "unsticky.requests"


class Call:
    """A request of requests on its way: the body, and what `send` was given."""

    def __init__(self, request: requests.PreparedRequest, kwargs: dict[str, Any]) -> None:
        self.request = request
        self.kwargs = kwargs
        self._sent = False
        body: Any = request.body
        self._start = _position(body)
        self.replayable = body is None or isinstance(body, (bytes, str)) or self._start is not None

    def hop(self, hop: httpx.Request) -> requests.PreparedRequest:
        """What to send to an endpoint, with the body from its start."""
        body: Any = self.request.body
        if self._sent and self._start is not None:
            body.seek(self._start)
        self._sent = True
        found = self.request.copy()
        found.url = f"{hop.url.scheme}://{hop.url.netloc.decode()}{self.request.path_url}"
        found.headers.clear()
        for name, value in hop.headers.raw:
            found.headers[name.decode("latin-1")] = value.decode("latin-1")
        found.server_name = hop.extensions.get("sni_hostname")  # type: ignore[attr-defined]
        return found


def _position(body: Any) -> int | None:
    """Where a file's content begins, if it can be read twice."""
    try:
        position: int = body.tell()
        body.seek(position)
    except (AttributeError, OSError):
        return None
    return position


def as_httpx(request: requests.PreparedRequest, call: Call, extensions: dict[str, Any]) -> httpx.Request:
    """As the flow sees it: pools read its URL, method and headers."""
    url = httpx.URL(request.url or "")
    headers = [(_encoded(name), _encoded(value)) for name, value in (request.headers or {}).items()]
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.append((b"Host", url.netloc))
    return httpx.Request(request.method or "GET", url, headers=headers, stream=call, extensions=extensions)  # type: ignore[arg-type]


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1", "replace")


def phases(timeout: Any) -> dict[str, float | None]:
    """The timeouts of requests: seconds, (connect, read), or urllib3's own."""
    if isinstance(timeout, Timeout):
        connect, read = timeout.connect_timeout, timeout.read_timeout
    else:
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return {"connect": connect, "read": read}  # type: ignore[dict-item]


class Answer:
    """A response of requests with what the driver asks a response for."""

    __slots__ = ("extensions", "headers", "is_closed", "response", "status_code", "stream")

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        self.status_code = response.status_code
        self.headers = response.headers
        self.stream: Any = response.raw
        self.is_closed = False
        self.extensions: dict[str, Any] = {"http_version": b"HTTP/1.0" if response.raw.version == 10 else b"HTTP/1.1"}

    def close(self) -> None:
        self.response.close()


class Below:
    """The innermost hop: requests' own adapter, one connection pool per endpoint and TLS name, without its retries."""

    def __init__(self) -> None:
        self._of_parents: list[Any] = []
        self._forget()
        in_forked_children(self._forget)

    def _forget(self) -> None:
        """Connections are not shared with a parent process; its own are kept and never used."""
        self._of_parents.append(vars(self).get("adapter"))
        self.adapter = _Adapter(pool_connections=1024, pool_maxsize=256, max_retries=0)

    def handle_request(self, hop: httpx.Request) -> Answer:
        call: Call = hop.extensions[CALL]
        timeouts = hop.extensions["timeout"]
        waits: Any = _finite(timeouts.get("connect")), _finite(timeouts.get("read"))
        return Answer(self.adapter.send(call.hop(hop), True, waits, **call.kwargs))

    def close(self) -> None:
        self.adapter.close()


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or isinf(seconds) else seconds


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """With connections that tell a whole head of a response from a part of one."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The same through proxies, but for those of SOCKS, whose connections are others."""
        manager = super().proxy_manager_for(*args, **kwargs)
        if type(manager) is ProxyManager:
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """With the name that the certificate must be for, where it is not the endpoint's."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        name = getattr(request, "server_name", None)
        if name is not None and host["scheme"] == "https":
            pool = {**pool, "server_hostname": name, "assert_hostname": name}  # type: ignore[typeddict-unknown-key]
        return host, pool


class _WholeHead(HTTPResponse):
    """To http.client a head ends with its connection, too: one that was cut off would be a response without a body."""

    def begin(self) -> None:
        """Raises RemoteDisconnected, which is a connection that broke."""
        file = self.fp
        self.fp = lines = cast(Any, _Lines(file))
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = file
        if lines.last not in (b"\r\n", b"\n"):
            raise RemoteDisconnected("the connection ended within the head of a response")


class _Lines:
    """A file that is read by lines, and the last one that was read."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.close = file.close
        self.last = b""  # none at the end of the file

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.file.readline(limit)
        return self.last


class _Connection(HTTPConnection):
    response_class = _WholeHead


class _ConnectionOfTls(HTTPSConnection):
    response_class = _WholeHead


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _PoolOfTls(HTTPSConnectionPool):
    ConnectionCls = _ConnectionOfTls


_POOLS = {"http": _Pool, "https": _PoolOfTls}
