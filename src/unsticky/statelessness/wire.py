"""Between the check and its replicas: messages in msgpack, each with its length before it, over a Unix socket."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

_LENGTH = struct.Struct(">I")


class Asked(msgspec.Struct, tag="request"):
    """A request to the app."""

    method: str
    path: str  # with the query
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    watched: bool = False  # the answer shall say which of the process's values changed


class Fork(msgspec.Struct, tag="fork"):
    """Of a boot: make a replica. It answers with Hello, on a connection of its own."""

    name: str


class Serve(msgspec.Struct, tag="serve"):
    """Of a boot: be a replica yourself, where a fork would lose what the import started. It answers with Hello."""

    name: str


class Snapshot(msgspec.Struct, tag="snapshot"):
    """Of a boot or a replica: what does it hold? It answers with Held."""


class Keep(msgspec.Struct, tag="keep"):
    """Of a replica: put this variable, or file, back before each request from now on. It answers with Kept."""

    name: str


class Kept(msgspec.Struct, tag="kept"):
    """Whether it can be put back."""

    possible: bool


class End(msgspec.Struct, tag="end"):
    """Go."""


class Hello(msgspec.Struct, tag="hello"):
    """A boot or a replica is there. `problem` says why it is of no use."""

    name: str
    pid: int
    kind: str = ""  # asgi or wsgi
    threads: list[str] = []  # that importing the app started: a fork would lose them
    files: list[str] = []  # that it opened to write to: forks would write to the same ones
    isolation: str = "none"
    problem: str = ""
    document: bytes = b""  # the app's OpenAPI document as JSON, if it has one


class Changed(msgspec.Struct):
    """A value that a request changed."""

    variable: str  # "shop.catalog:CACHE['tea']"
    place: str = ""  # "shop/catalog.py:12"
    library: str = ""  # "flask_limiter", if the value is inside of an object of one that advice knows


class Answer(msgspec.Struct, tag="answer"):
    """The app's response, or what happened instead."""

    status: int = 0
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    failure: str = ""
    trace: str = ""
    changed: list[Changed] = []
    files: list[str] = []  # that were written


class Held(msgspec.Struct, tag="held"):
    """Values by name, as fingerprints: nothing of a value can be read from them."""

    values: dict[str, str]


Message = Asked | Fork | Serve | Snapshot | Keep | Kept | End | Hello | Answer | Held
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Message)


def send(connection: socket.socket, message: Message) -> None:
    data = _encoder.encode(message)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> Any:
    """The next message; None when the other side is gone. Raises TimeoutError by the socket's own timeout."""
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    data = _exactly(connection, _LENGTH.unpack(head)[0])
    return None if data is None else _decoder.decode(data)


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        try:
            more = connection.recv(min(count - len(data), 1 << 20))
        except ConnectionError:
            return None
        if not more:
            return None
        data += more
    return bytes(data)
