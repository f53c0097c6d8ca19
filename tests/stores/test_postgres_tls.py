"""The PostgreSQL store over TLS, as libpq negotiates it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from support.postgres import Postgres
from support.stores import face, record
from support.tls_proxy import tls_in_front_of
from unsticky.errors import StoreError
from unsticky.session.store import Applied, Change
from unsticky.stores import open_async_store
from unsticky.testing import FakeClock

CLOCK = FakeClock()
NOW = CLOCK.time()
TLS_REQUEST = bytes.fromhex("0000000804d2162f")


@contextmanager
def asked_for_tls(port: int) -> Iterator[int]:
    """A door before a TLS port: PostgreSQL's clients ask for TLS in the clear first, and wait for an S."""
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve(peer: socket.socket) -> None:
        with peer, socket.create_connection(("127.0.0.1", port)) as behind:
            if peer.recv(8, socket.MSG_WAITALL) != TLS_REQUEST:
                return
            peer.sendall(b"S")
            back = threading.Thread(target=copy, args=(behind, peer))
            back.start()
            copy(peer, behind)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(server.accept()[0],)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        accepting.join()
        for thread in threads:
            thread.join(10)


@pytest.fixture
def url(postgres: Postgres, tmp_path: Path) -> Iterator[str]:
    with tls_in_front_of(postgres.port, tmp_path) as (port, trusted), asked_for_tls(port) as front:
        yield f"postgresql://postgres@localhost:{front}/postgres?sslmode=verify-full&sslrootcert={trusted}"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_tls(postgres: Postgres, url: str, kind: str) -> None:
    """All is the same, large values too; a certificate that is not trusted, or is for another host, is a StoreError."""
    key = f"v1:{uuid4().hex}"
    with face(kind, url, CLOCK, 5.0) as store:
        assert store.create(key, record(NOW, a=bytes(300_000)))
        for n in range(20):
            assert store.update(key, Change(generation=0, put={"n": b"%d" % n})) is Applied.APPLIED
        assert store.load(key) == record(NOW, a=bytes(300_000), n=b"19")
    for wrong in (url.replace("localhost", "127.0.0.1"), url.partition("&")[0] + "&sslrootcert=/nowhere"):
        with face(kind, wrong, CLOCK, 5.0) as store, pytest.raises(StoreError, match="certificate"):
            store.load(key)


def test_many_tasks_over_tls(url: str) -> None:
    """What TLS has already read from the socket is not waited for."""

    async def main() -> None:
        store = open_async_store(f"{url}&pool_size=3", clock=CLOCK, timeout=20.0)
        keys = [f"v1:{uuid4().hex}" for _ in range(60)]
        values = [bytes([n]) * (1 if n % 5 else 100_000) for n in range(60)]
        created = [store.create(key, record(NOW, a=value)) for key, value in zip(keys, values, strict=True)]
        assert all(await asyncio.gather(*created))
        loaded = await asyncio.gather(*(store.load(key) for key in keys))
        assert [one.fields["a"] if one else None for one in loaded] == values
        await store.aclose()

    asyncio.run(main())
