"""A nameserver on the loopback, over UDP and TCP, that says what a test tells it to say."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Mode = Literal["answer", "servfail", "refused", "silent", "garbage"]


class Nameserver:
    """`records` by (name, type): the time to live, and the data as texts. `asked` counts "A catalog.test. udp"."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.additional: list[tuple[str, str]] = []  # records that go along with each SRV answer
        self.mode: Mode = "answer"
        self.failing: set[tuple[str, str]] = set()  # questions that are answered with SERVFAIL
        self.truncating = False  # over UDP: ask again over TCP
        self.asked: Counter[str] = Counter()
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=run) for run in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def set(self, name: str, kind: str, *data: str, ttl: int = 60) -> None:
        self.records[f"{name}.", kind] = ttl, list(data)

    def close(self) -> None:
        self.mode = "silent"
        self._udp.sendto(b"", ("127.0.0.1", self.port))  # an empty datagram ends the thread
        self._tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            data, client = self._udp.recvfrom(65535)
            if not data:
                return
            answer = self._answer(data, "udp")
            if answer is not None:
                self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:  # closed
                return
            with connection, connection.makefile("rb") as stream:
                connection.settimeout(10)
                [size] = struct.unpack("!H", stream.read(2))
                answer = self._answer(stream.read(size), "tcp")
                if answer is not None:
                    connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, data: bytes, way: str) -> bytes | None:
        query = dns.message.from_wire(data)
        name, kind = query.question[0].name.to_text().lower(), dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked[f"{kind} {name} {way}"] += 1
        if self.mode == "silent":
            return None
        if self.mode == "garbage":
            return data[:2] + b"\xff" * 20
        response = dns.message.make_response(query, recursion_available=True)
        self._fill(response, name, kind)
        if way == "udp" and self.truncating:
            response.flags |= dns.flags.TC
            response.answer, response.additional = response.answer[:0], []
        return response.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        if self.mode != "answer" or (name, kind) in self.failing:
            response.set_rcode(dns.rcode.REFUSED if self.mode == "refused" else dns.rcode.SERVFAIL)
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            self._put_answer(response, name, kind)

    def _put_answer(self, response: dns.message.Message, name: str, kind: str) -> None:
        if (name, "CNAME") in self.records:
            response.answer.append(self._rrset(name, "CNAME"))
            [name] = self.records[name, "CNAME"][1]
        if (name, kind) in self.records:
            response.answer.append(self._rrset(name, kind))
            if kind == "SRV":
                response.additional.extend(self._rrset(f"{one}.", kind) for one, kind in self.additional)

    def _rrset(self, name: str, kind: str) -> dns.rrset.RRset:
        ttl, data = self.records[name, kind]
        return dns.rrset.from_text(name, ttl, "IN", kind, *data)


@contextmanager
def nameserver() -> Generator[Nameserver]:
    one = Nameserver()
    try:
        yield one
    finally:
        one.close()
