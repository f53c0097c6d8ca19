"""Calls of all kinds while endpoints misbehave, and what must be true of them afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import requests

from support.chaos_endpoint import ANSWERS, Endpoint, Fleet
from support.pools import LIBRARIES, busy, in_flight, pools_over
from support.waiting import eventually
from unsticky import errors
from unsticky.pools import Pools
from unsticky.requests import PoolAdapter

IDEMPOTENT = ("GET", "GET", "GET", "HEAD", "PUT", "DELETE")
RIGHT = frozenset({"well", "hints", "chunked", "until_close", "surplus"})
DRIPPING = frozenset({"drip_head", "drip_body", "drip_hints"})
BODIES = frozenset({"reset_in_body", "close_in_body", "close_in_chunk", "stall_in_body", "drip_body", "bad_chunk"})
# What http.client lets pass, and requests therefore: a head that breaks off, lengths and lines that make no sense. It
# takes 103 for the answer, too.
UNSEEN_BY_REQUESTS = frozenset({"hints", "drip_hints", "close_in_head", "bad_length", "bad_header"})
ATTEMPT = 4.0  # seconds that an attempt may take: the endpoint that is well must be able to answer on a busy machine
OPTIONS: dict[str, Any] = {
    "retry": {
        "attempts": 3,
        "attempt_timeout": ATTEMPT,
        "backoff": "2ms",
        "budget_per_second": 1_000_000,
        "buffer_body": 65536,
    },
    "ejection": {"base_time": "200ms", "maximum_time": "500ms"},
}


def faults_for(client: str) -> list[str]:
    """The ways to misbehave that the client can see."""
    return [name for name in ANSWERS if client != "requests" or name not in UNSEEN_BY_REQUESTS]


def library_error(client: str) -> type[Exception]:
    """The library's class for whatever goes wrong on the way."""
    if client == "requests":
        return requests.RequestException
    found: type[Exception] = LIBRARIES[client].TransportError
    return found


# What is left over ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds."""

    files: int
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        return cls(len(os.listdir("/proc/self/fd")), frozenset(threading.enumerate()))


@contextmanager
def nothing_left(fleet: Fleet) -> Generator[None]:
    """Afterwards the process has no more files and threads than before, and the endpoints no connections."""
    before = Held.now()
    yield

    def gone() -> bool:
        now = Held.now()
        return now.files <= before.files and now.threads <= before.threads

    try:
        eventually(gone, 60)
        eventually(lambda: fleet.connections() == 0, 60)
    except AssertionError:
        raise AssertionError(f"left: {before} before, {Held.now()} now, {fleet.connections()} connections") from None


# What is called, and what came of it ------------------------------------------------


@dataclass
class Ledger:
    """All calls of a run. For any thread."""

    client: str
    all_must_succeed: bool = True  # the idempotent ones: an endpoint is well
    calls: int = 0
    answered: int = 0
    failed: int = 0
    left: int = 0  # cancelled, or dropped unread
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _not_twice: set[str] = field(default_factory=set)

    def begin(self, random: Random) -> Call:
        post = random.random() < 0.25
        method = "POST" if post else random.choice(IDEMPOTENT)
        key = post and random.random() < 0.3
        with self._lock:
            self.calls += 1
            call = Call(method, str(self.calls), idempotent=key or not post)
            if not call.idempotent:
                self._not_twice.add(f"{method} {call.id}")
        return call

    def not_twice(self, sent: str) -> None:
        """ "<METHOD> <x-id>" may arrive once only."""
        self._not_twice.add(sent)

    def answer(self, call: Call, status: int, read: Callable[[], Any]) -> None:
        """A response that was read to its end."""
        with self._lock:
            self.answered += 1
            if status != 200 and (self.all_must_succeed or not 500 <= status < 600) and call.idempotent:
                self.wrong.append(f"{call}: status {status}")
            if status == 200 and call.method != "HEAD" and (found := read().get("id")) != call.id:
                self.wrong.append(f"{call}: got the answer to {found}")

    def error(self, call: Call, error: Exception) -> None:
        with self._lock:
            self.failed += 1
            if call.idempotent and self.all_must_succeed:
                self.wrong.append(f"{call}: {error!r}")
            self.wrong += [f"{call}: {text}" for text in untyped(self.client, error)]

    def gone(self) -> None:
        with self._lock:
            self.left += 1

    def judge(self, fleet: Fleet) -> list[str]:
        """All that is wrong."""
        twice = [f"{one} was sent {times} times" for one, times in fleet.sent().items() if times > 1]
        return self.wrong + [text for text in twice if text.partition(" was ")[0] in self._not_twice]

    def __str__(self) -> str:
        return f"{self.calls} calls, {self.answered} answered, {self.failed} failed, {self.left} left"


def untyped(client: str, error: Exception) -> list[str]:
    """What is wrong with the type of a call's error."""
    found = [] if isinstance(error, library_error(client)) else [f"not the library's: {error!r}"]
    attempts = getattr(error, "attempts", ())
    if isinstance(error, errors.AttemptsFailed) and len(attempts) < 2:
        found.append(f"has {len(attempts)} attempts: {error!r}")
    if isinstance(error, errors.RoutingError) and len({one.endpoint for one in attempts}) < min(len(attempts), 3):
        found.append(f"tried an endpoint twice before all were: {error!r}")
    return found


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    id: str
    idempotent: bool

    @property
    def headers(self) -> dict[str, str]:
        key = {"Idempotency-Key": self.id} if self.idempotent and self.method == "POST" else {}
        return {"x-id": self.id, **key}

    @property
    def content(self) -> bytes | None:
        return b"x" * 100 if self.method in ("POST", "PUT") else None


# Clients ------------------------------------------------------------------------------


@contextmanager
def sync_client(client: str, pools: Pools) -> Generator[Any]:
    """A client of httpx or httpx2, or a session of requests."""
    if client != "requests":
        with pools.client(timeout=ATTEMPT) as found:
            yield found
    else:
        with requests.Session() as session:
            session.trust_env = False
            session.mount("http://", PoolAdapter(pools))
            yield session


def transport_of(client: Any) -> Any:
    """The driver below."""
    return client.get_adapter("http://catalog")._driver if isinstance(client, requests.Session) else client._transport


def respond(client: Any, call: Call, headers: dict[str, str]) -> Any:
    """The response, not read yet."""
    if isinstance(client, requests.Session):
        return client.request(
            call.method, "http://catalog/", headers=headers, data=call.content, stream=True, timeout=ATTEMPT
        )
    request = client.build_request(call.method, "http://catalog/", headers=headers, content=call.content)
    return client.send(request, stream=True)


def call_once(client: Any, ledger: Ledger, call: Call, how: str, fault: str = "") -> None:
    """One call, whose response is read, half read and dropped, or dropped."""
    try:
        response = respond(client, call, call.headers | ({"x-fault": fault} if fault else {}))
        if how == "drop":
            return ledger.gone()
        if how == "half":
            parts = response.iter_content(4) if isinstance(client, requests.Session) else response.iter_raw(4)
            next(parts, None)
            return ledger.gone()
        _read(client, response)
        ledger.answer(call, response.status_code, response.json)
    except library_error(ledger.client) as error:
        ledger.error(call, error)


def _read(client: Any, response: Any) -> None:
    if isinstance(client, requests.Session):
        assert isinstance(response.content, bytes)
        return
    try:
        response.read()
    finally:
        response.close()


async def async_call_once(client: Any, ledger: Ledger, call: Call, how: str, fault: str = "") -> None:
    """The same for event loops."""
    headers = call.headers | ({"x-fault": fault} if fault else {})
    request = client.build_request(call.method, "http://catalog/", headers=headers, content=call.content)
    try:
        response = await client.send(request, stream=True)
        if how == "drop":
            return ledger.gone()
        if how == "half":
            async for _ in response.aiter_raw(4):
                break
            await response.aclose()
            return ledger.gone()
        await response.aread()
        ledger.answer(call, response.status_code, response.json)
    except library_error(ledger.client) as error:
        ledger.error(call, error)


HOW = ("read",) * 6 + ("drop", "half")


def callers_in_threads(
    client: str, pools: Pools, ledger: Ledger, seed: str, stop: threading.Event, count: int = 6
) -> None:
    """Threads that call until `stop`; nothing of them is left afterwards."""
    failures: list[BaseException] = []
    with sync_client(client, pools) as found:

        def run(number: int) -> None:
            random = Random(f"{seed} caller {number}")
            try:
                while not stop.is_set():
                    call_once(found, ledger, ledger.begin(random), random.choice(HOW))  # noqa: F821 - deleted later
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
            assert not thread.is_alive(), "a caller hangs"
        if failures:
            raise failures[0]
        gc.collect()
        transport = transport_of(found)
        del found
        eventually(lambda: in_flight(pools) == 0, 60)
        eventually(lambda: not transport._bodies.open, 60)
        if client != "requests":
            eventually(lambda: not busy(transport._inner), 60)


async def callers_on_a_loop(client: Any, ledger: Ledger, seed: str, stop: threading.Event, count: int = 10) -> None:
    """Tasks that call until `stop`, many of which are cancelled; no task is left afterwards."""

    async def caller(number: int) -> None:
        random = Random(f"{seed} caller {number}")
        while not stop.is_set():
            call = ledger.begin(random)
            task = asyncio.create_task(async_call_once(client, ledger, call, random.choice(HOW)))
            if random.random() < 0.4:
                await _cancel_later(task, random)
                if task.cancelled():
                    ledger.gone()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    await asyncio.gather(*(caller(number) for number in range(count)))
    gc.collect()
    await asyncio.sleep(0)  # tasks that close what was collected begin now
    await settled(lambda: len(asyncio.all_tasks()) == 1, lambda: f"tasks are left: {asyncio.all_tasks()}")


async def _cancel_later(task: asyncio.Task[None], random: Random) -> None:
    for _ in range(random.choice([0, 1, 2, 3, 5, 8, 13, 21, 34, 55])):
        await asyncio.sleep(0)
    if random.random() < 0.5:
        await asyncio.sleep(random.random() * 0.1)
    task.cancel()
    await asyncio.wait([task])


async def settled(condition: Callable[[], object], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what())
        await asyncio.sleep(0.01)


def callers_on_loops(
    client: str, pools: Pools, ledger: Ledger, seed: str, stop: threading.Event, loops: int = 2
) -> None:
    """One client on several event loops, each in a thread of its own."""
    failures: list[BaseException] = []
    shared = pools.async_client(timeout=ATTEMPT)
    transport: Any = shared._transport

    async def main(number: int) -> None:
        await callers_on_a_loop(shared, ledger, f"{seed} loop {number}", stop)
        gc.collect()  # a hedge's loser that was still ending held its call, and so a response that nobody else did
        inner = await transport._loops.below()
        await settled(lambda: not busy(inner), lambda: f"connections are left: {busy(inner)}")
        await shared._transport.aclose()

    def run(number: int) -> None:
        try:
            asyncio.run(main(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive(), "an event loop hangs"
    if failures:
        raise failures[0]
    assert in_flight(pools) == 0
    assert not transport._open


# Faults -------------------------------------------------------------------------------


class Faults(threading.Thread):
    """Harms endpoints at random moments, but for the last of them. At the end they are killed: nothing waits."""

    def __init__(self, modes: list[str], fleet: Fleet, seed: str, stop: threading.Event) -> None:
        super().__init__(name="faults", daemon=True)
        self.random = Random(f"{seed} faults")
        self.stopped = stop
        self.modes = modes
        self.victims = fleet.endpoints[:-1]
        self.log: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopped.wait(self.random.uniform(0, 0.2)):
                victim = self.random.choice(self.victims)
                self.random.choice([self._misbehave, self._misbehave, self._misbehave, self._kill, self._pause])(victim)
            for victim in self.victims:
                victim.kill()
        except BaseException as error:  # the run shows it
            self.failure = error

    def _misbehave(self, victim: Endpoint) -> None:
        modes = self.random.choices(self.modes, k=self.random.randint(1, 4))
        self.log.append(f"{victim.port} {' '.join(modes)}")
        victim.behave(*modes)

    def _kill(self, victim: Endpoint) -> None:
        self.log.append(f"{victim.port} kill")
        victim.kill()
        self.stopped.wait(self.random.uniform(0, 0.3))
        victim.start()

    def _pause(self, victim: Endpoint) -> None:
        self.log.append(f"{victim.port} stop")
        with victim.stopped():
            self.stopped.wait(self.random.uniform(0, 0.5))


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished run."""

    ledger: Ledger
    faults: list[str]
    wrong: list[str]


def run(client: str, fleet: Fleet, seed: str, seconds: float, *, loops: bool, hedged: bool) -> Ran:
    """Callers and faults for so many seconds. The endpoints are well again afterwards. Raises what is left over."""
    stop, ledger = threading.Event(), Ledger(client)
    fleet.log.write_text("")
    modes, options = faults_for(client), OPTIONS
    if hedged:
        options = {**OPTIONS, "hedge": {"after": "20ms"}}
    faults = Faults(modes, fleet, seed, stop)
    ringing = threading.Timer(seconds, stop.set)
    with nothing_left(fleet):
        with pools_over("httpx" if client == "requests" else client, fleet.urls, **options) as pools:
            faults.start()
            ringing.start()
            try:
                (callers_on_loops if loops else callers_in_threads)(client, pools, ledger, seed, stop)
            finally:
                stop.set()
                ringing.join()
                faults.join(60)
                for one in fleet.endpoints:
                    mend(one)
        if faults.failure is not None:
            raise faults.failure
    return Ran(ledger, faults.log, ledger.judge(fleet))


def mend(one: Endpoint) -> None:
    if one.process.poll() is not None:
        one.start()
    with suppress(OSError):
        one.behave("well")
