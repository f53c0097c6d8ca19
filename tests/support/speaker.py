"""A server that says what a test wants: nonsense, too little, or too slowly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def speaker(answer: Callable[[bytes], bytes], pause: float = 0.0, *, once: bool = False) -> Iterator[int]:
    """Answers each packet with `answer(packet)`, and hangs up if that is empty, or after one of them; its port.

    With `pause`, one byte at a time, so many seconds apart.
    """
    server, ended = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def talk(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while (data := peer.recv(65536)) and (say := answer(data)):
                for piece in [say] if not pause else [say[n : n + 1] for n in range(len(say))]:
                    peer.sendall(piece)
                    if pause and ended.wait(pause):
                        return
                if once:
                    return

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)
