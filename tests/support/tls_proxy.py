"""TLS in front of a real server, with a certificate made for these tests alone (for `localhost`)."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnzCCAUWgAwIBAgIUT4j4q+nQs/5X5HbSMnYrOOkpSqkwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOdW5zdGlja3kgdGVzdHMwIBcNMjYxMTI0MDA0MTQ0WhgPMjEy
NjEwMzEwMDQxNDRaMBkxFzAVBgNVBAMMDnVuc3RpY2t5IHRlc3RzMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAE3HfiTKDiOCKO2yuqLaQwp1QG9gsG9pxTj0d7Yxoi
ck3Y/JKKMx426EOA4TNhYIkiSfhb3DFpyWh8vlwSrhCrpKNpMGcwHQYDVR0OBBYE
FBldQXtatMRMKRhbdbafmFOn2jiZMB8GA1UdIwQYMBaAFBldQXtatMRMKRhbdbaf
mFOn2jiZMA8GA1UdEwEB/wQFMAMBAf8wFAYDVR0RBA0wC4IJbG9jYWxob3N0MAoG
CCqGSM49BAMCA0gAMEUCIQCBUx6DitToyzmDDA6h9Vjnkr3jl9b1kOZUDu8kOAop
NAIgSWSrQCcSxNIg0etVu/HjTv1SgTBivOPymGqqzjPrk+s=
-----END CERTIFICATE-----
"""
# No secret: it protects nothing but the loopback connections of this test suite.
PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgaxZxN4YttCgcrRPT
wNAzVYsiKvIQPhLaVuzUicghLlihRANCAATcd+JMoOI4Io7bK6otpDCnVAb2Cwb2
nFOPR3tjGiJyTdj8koozHjboQ4DhM2FgiSJJ+FvcMWnJaHy+XBKuEKuk
-----END PRIVATE KEY-----
"""


@contextmanager
def tls_in_front_of(port: int, folder: Path) -> Iterator[tuple[int, Path]]:
    """The TLS port, and the file of the certificate to trust. Plain bytes go to `port`."""
    trusted, own = folder / "ca.pem", folder / "server.pem"
    trusted.write_text(CERTIFICATE)
    own.write_text(PRIVATE_KEY + CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = []

    def serve(raw: socket.socket) -> None:
        behind = socket.create_connection(("127.0.0.1", port))
        with suppress(OSError), behind, raw, context.wrap_socket(raw, server_side=True) as peer:
            open_sockets.extend((peer, behind))
            back = threading.Thread(target=_copy, args=(behind, peer))
            back.start()
            _copy(peer, behind)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                raw, _ = server.accept()
                threads.append(threading.Thread(target=serve, args=(raw,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server.getsockname()[1], trusted
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        accepting.join()
        for one in open_sockets:
            _hang_up(one)
        for thread in threads:
            thread.join(10)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(65536):
            sink.sendall(data)
    _hang_up(source)
    _hang_up(sink)


def _hang_up(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
