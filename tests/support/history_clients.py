"""Clients for the history check: threads that share browsers, and write down every request."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any

from support.history_check import IDENTITY, Op, Outcome

TIMEOUT = 3.0  # seconds that a client waits for an answer
REQUESTS_PER_SESSION = 150  # then the browser logs out by itself, so that histories stay short

_numbers = itertools.count(1)

# What a client does, and how often.
CHOICES = {
    "read": 26,
    "write own": 18,
    "write shared": 14,
    "write both": 8,
    "write slowly": 9,
    "remove": 8,
    "rotate": 4,
    "strict": 2,
    "owner": 2,
    "clear": 2,
    "old token": 7,
}


@dataclass(slots=True)
class Browser:
    """What several clients share: one session, its newest cookie, and what is left of ended ones."""

    name: str
    session: str | None = None
    token: str | None = None
    requests: int = 0
    number: int = 0
    old: list[tuple[str, str]] = field(default_factory=list)  # (session, token)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, op: Op) -> None:
        """As a browser: the cookie that came last stays."""
        with self.lock:
            if op.received is not None and op.session == self.session:
                self._retire()
                self.token = op.received
            lost = op.outcome == "ok" and op.does != "begin" and not op.found and op.presented == self.token
            uncertain = op.does not in ("", "begin") and op.outcome in ("unknown", "error")
            cleared = op.does == "clear" and op.found
            if op.session == self.session and (lost or uncertain or cleared):
                self.leave()

    def leave(self) -> None:
        self._retire()
        self.session = self.token = None

    def _retire(self) -> None:
        if self.session is not None and self.token is not None:
            self.old = [*self.old[-15:], (self.session, self.token)]

    def next_session(self) -> str:
        self.number += 1
        self.requests = 0
        return f"{self.name}.{self.number}"


@dataclass(frozen=True, slots=True)
class Target:
    name: str  # "flask 0"
    port: int


class Client(threading.Thread):
    """One thread that acts on one browser, over all replicas."""

    def __init__(
        self,
        name: str,
        browser: Browser,
        targets: Sequence[Target],
        seed: str,
        stop: threading.Event,
        choices: Mapping[str, int] = CHOICES,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.browser = browser
        self.targets = targets
        self.random = random.Random(seed)
        self.stopped = stop
        self.choices = choices
        self.history: list[Op] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                self._step()
        except BaseException as error:  # the run shows it: a broken client must not look like a quiet one
            self.failure = error
            raise

    def _step(self) -> None:
        browser = self.browser
        with browser.lock:
            begins = browser.session is None
            if begins:
                browser.session = browser.next_session()
            session, token = browser.session, browser.token
            browser.requests += 1
            tired = browser.requests > REQUESTS_PER_SESSION
        assert session is not None
        if begins:
            self._begin(session)
        elif token is None:
            self.stopped.wait(0.005)  # another client begins the session just now
        else:
            self._act("clear" if tired else self._choice(), session, token)

    def _choice(self) -> str:
        return self.random.choices(list(self.choices), list(self.choices.values()))[0]

    def _begin(self, session: str) -> None:
        writes = {IDENTITY: session, **self._values(session, "shared0", self.name)}
        op = self._ask(session, None, "begin", writes)
        if op.outcome == "ok" and op.received is not None:
            self.browser.receive(op)
        else:
            with self.browser.lock:
                self.browser.leave()  # nobody holds its token: try again

    def _act(self, choice: str, session: str, token: str) -> None:
        own, shared = self.name, f"shared{self.random.randrange(3)}"
        writes: dict[str, str | None] = {}
        pause = self.random.choice([0, 0, 0, 0.002, 0.01])
        match choice:
            case "write own":
                writes.update(self._values(session, own))
            case "write shared":
                writes.update(self._values(session, shared))
            case "write both" | "rotate" | "strict" | "owner":
                writes.update(self._values(session, own, shared))
            case "write slowly":
                writes.update(self._values(session, shared))
                pause = self.random.uniform(0.01, 0.12)
            case "remove":
                writes[self.random.choice([own, shared])] = None
            case "old token" if self.browser.old:
                session, token = self.random.choice(self.browser.old)
                if self.random.random() < 0.5:
                    writes.update(self._values(session, shared))
        does = choice if choice in ("rotate", "strict", "owner", "clear") else ""
        self.browser.receive(self._ask(session, token, does, writes, pause))

    def _values(self, session: str, *keys: str) -> dict[str, str]:
        return {key: f"{session}/{key}/{next(_numbers)}" for key in keys}

    def _ask(self, session: str, token: str | None, does: Any, writes: dict[str, str | None], pause: float = 0) -> Op:
        target = self.random.choice(self.targets)
        order = {"sid": session, "does": does, "writes": writes, "pause": pause, "owner": f"user {next(_numbers)}"}
        number, start = next(_numbers), time.monotonic()
        outcome, seen, received = request(target.port, token, order)
        op = Op(
            number=number,
            session=session,
            start=start,
            end=time.monotonic(),
            outcome=outcome,
            writes=writes,
            does=does,
            presented=token,
            received=None if received == token else received,
            seen=seen,
            server=target.name,
        )
        self.history.append(op)
        if outcome != "ok":
            self.stopped.wait(0.02)  # a server that is away is not asked in a tight loop
        return op


def request(port: int, token: str | None, order: dict[str, Any]) -> tuple[Outcome, dict[str, str] | None, str | None]:
    """The outcome, what the session held, and the cookie that came back."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    headers = {"Content-Type": "application/json"} | ({} if token is None else {"Cookie": f"session={token}"})
    try:
        try:
            connection.connect()
        except OSError:
            return "refused", None, None
        try:
            connection.request("POST", "/", json.dumps(order), headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return "unknown", None, None
        if response.status != 200:
            return "unknown" if response.status == 503 else "error", None, None
        return "ok", json.loads(body), _cookie(response.headers.get_all("Set-Cookie") or [])
    finally:
        connection.close()


def _cookie(headers: list[str]) -> str | None:
    """The token that a response sets; a deletion sets none."""
    for header in headers:
        morsel = SimpleCookie(header).get("session")
        if morsel is not None and len(morsel.value) > 60:
            return morsel.value
    return None
