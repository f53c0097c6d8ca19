"""Endpoints that misbehave in every way there is: no call fails that need not, and nothing of any call is left.

`python tests/chaos.py --seconds 300` is the long one. UNSTICKY_CHAOS_SEED sets the seed of the random ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from chaos import CLIENTS, explained
from support.chaos import (
    ATTEMPT,
    BODIES,
    DRIPPING,
    OPTIONS,
    RIGHT,
    Call,
    Ledger,
    async_call_once,
    call_once,
    callers_in_threads,
    callers_on_loops,
    faults_for,
    library_error,
    mend,
    nothing_left,
    run,
    sync_client,
)
from support.chaos_endpoint import Fleet, fleet
from support.nameserver import nameserver
from support.pools import in_flight, pools_over
from support.waiting import eventually
from unsticky import Pools, errors
from unsticky.starlette import UnstickyMiddleware

SEED = os.environ.get("UNSTICKY_CHAOS_SEED", "continuous integration")
NEVER_EJECTED = {"ejection": {"enabled": False}}
EACH = sorted({(client, loops) for client, loops, _ in CLIENTS} - {("httpx over aiohttp", True)})
each = pytest.mark.parametrize(("client", "loops"), EACH, ids=[f"{a} {'async' if b else 'sync'}" for a, b in EACH])
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    with fleet(3, tmp_path_factory.mktemp("chaos") / "sent") as found:
        yield found


@pytest.fixture
def three(shared: Fleet) -> Fleet:
    """All well, and asked nothing yet."""
    for one in shared.endpoints:
        mend(one)
    shared.log.write_text("")
    return shared


def at_once(client: str, loops: bool, pools: Pools, ledger: Ledger, calls: list[tuple[Call, str]]) -> None:
    """All calls at the same time, each with the fault that it asks for."""
    if loops:

        async def main() -> None:
            async with pools.async_client(timeout=ATTEMPT) as found, asyncio.TaskGroup() as group:
                for call, fault in calls:
                    group.create_task(async_call_once(found, ledger, call, "read", fault))

        asyncio.run(main())
    else:
        with sync_client(client, pools) as found, ThreadPoolExecutor(len(calls)) as threads:
            list(threads.map(lambda one: call_once(found, ledger, one[0], "read", one[1]), calls))
    assert in_flight(pools) == 0


def library_of(client: str) -> str:
    return "httpx" if client == "requests" else client


@each
def test_each_fault_is_survived_while_one_endpoint_is_well(client: str, loops: bool, three: Fleet) -> None:
    """Two of three endpoints break off, stall, drip or talk nonsense: GETs succeed, and POSTs are sent once."""
    ledger = Ledger(client)
    calls = []
    for fault in faults_for(client):
        calls += [(Call("GET", f"{fault} get", idempotent=True), fault)]
        calls += [(Call("POST", f"{fault} post", idempotent=False), fault)]
        ledger.not_twice(f"POST {fault} post")
    for one in three.endpoints[:2]:
        one.behave("asked")
    retry = {**OPTIONS["retry"], "attempt_timeout": 2}
    with nothing_left(three), pools_over(library_of(client), three.urls, retry=retry, **NEVER_EJECTED) as pools:
        at_once(client, loops, pools, ledger, calls)
    assert not ledger.judge(three)
    assert ledger.answered >= len(calls) / 2


@each
def test_the_errors_of_each_fault_when_no_endpoint_is_well(client: str, loops: bool, three: Fleet) -> None:
    """A call that fails everywhere raises ours and the library's error at once, with every attempt in it."""
    # Not the errors themselves: those of urllib3 keep its pool, whose connections close when it is collected.
    found: dict[str, tuple[type[Exception], set[str]]] = {}

    class Kept(Ledger):
        def error(self, call: Call, error: Exception) -> None:
            super().error(call, error)
            found[call.id] = type(error), {one.endpoint for one in getattr(error, "attempts", ())}

    ledger = Kept(client, all_must_succeed=False)
    faults = [fault for fault in faults_for(client) if fault not in RIGHT | {"storm"}]
    for one in three.endpoints:
        one.behave("asked")
    retry = {**OPTIONS["retry"], "attempt_timeout": 0.4}
    with nothing_left(three), pools_over(library_of(client), three.urls, retry=retry, **NEVER_EJECTED) as pools:
        at_once(client, loops, pools, ledger, [(Call("GET", fault, idempotent=True), fault) for fault in faults])
    assert not ledger.judge(three)
    # The last body drips to its end; threads wait for each byte of a head anew.
    for fault in set(faults) - ({"drip_body"} if loops else DRIPPING):
        kind, tried = found[fault]
        assert issubclass(kind, library_error(client)), (fault, kind)
        if fault not in BODIES:  # the last attempt's is the caller's to read
            assert issubclass(kind, errors.AttemptsFailed), (fault, kind)
            assert tried == {one.address for one in three.endpoints}, (fault, tried)


@pytest.mark.parametrize(("client", "loops", "hedged"), CLIENTS)
def test_random_faults_at_random_moments(client: str, loops: bool, hedged: bool, three: Fleet) -> None:
    """Nothing fails that need not, nothing is sent twice that must not be, and nothing is left."""
    ran = run(client, three, SEED, 1.5, loops=loops, hedged=hedged)
    assert not ran.wrong, explained(ran, SEED)
    assert ran.ledger.answered > 20, explained(ran, SEED)
    assert ran.faults


# Endpoints that come and go -------------------------------------------------------------


class Deploying(threading.Thread):
    """Endpoints leave the set and are killed, or start and enter it; the last one stays. `tell` is given each set.

    It sets `stop` after two seconds and some sets: a slow machine needs longer to start processes.
    """

    def __init__(self, three: Fleet, tell: Callable[[Random, list[int]], None], stop: threading.Event) -> None:
        super().__init__(name="deploying", daemon=True)
        self.three, self.tell, self.stopped = three, tell, stop
        self.random = Random(f"{SEED} deploying")
        self.sets = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        *victims, stays = self.three.endpoints
        until = time.monotonic() + 2
        try:
            while not self.stopped.wait(self.random.uniform(0, 0.15)):
                there = [one for one in victims if self.random.random() < 0.6]
                for one in there:
                    mend(one)
                self.tell(self.random, [one.port for one in [*there, stays]])
                self.sets += 1
                for one in victims:
                    if one not in there and one.process.poll() is None and self.random.random() < 0.5:
                        one.kill()
                if self.sets > 3 and time.monotonic() > until:
                    self.stopped.set()
        except BaseException as error:
            self.failure = error
            self.stopped.set()


def deployed(client: str, loops: bool, three: Fleet, discovery: Any, tell: Callable[[Random, list[int]], None]) -> None:
    """Calls while the set changes."""
    stop, ledger = threading.Event(), Ledger(client)
    tell(Random(0), [one.port for one in three.endpoints])
    settings = {"client": library_of(client), "pools": {"catalog": {"discovery": discovery, **OPTIONS}}}
    deploying = Deploying(three, tell, stop)
    with nothing_left(three):
        with Pools.from_settings(settings) as pools:
            deploying.start()
            try:
                (callers_on_loops if loops else callers_in_threads)(client, pools, ledger, SEED, stop)
            finally:
                stop.set()
                deploying.join(60)
        for one in three.endpoints:
            mend(one)
    assert deploying.failure is None
    assert not ledger.judge(three), ledger
    assert ledger.answered > 20, ledger


both_ways = pytest.mark.parametrize(("client", "loops"), [("httpx", False), ("httpx2", True)])


@both_ways
def test_a_file_that_changes_under_traffic(client: str, loops: bool, three: Fleet, tmp_path: Path) -> None:
    """Whole sets, nonsense, half files and no file at all: an endpoint that is in every set answers every call."""
    path = tmp_path / "endpoints.json"

    def tell(random: Random, ports: list[int]) -> None:
        text = json.dumps([f"http://127.0.0.1:{port}" for port in ports])
        spoilt = random.random() if ports and path.exists() else 1
        if spoilt < 0.15:
            path.write_text(text[: len(text) // 2])
        elif spoilt < 0.3:
            path.unlink()
        else:
            (new := tmp_path / "new").write_text(text)
            new.replace(path)

    deployed(client, loops, three, {"type": "file", "path": str(path), "interval": 0.02}, tell)


@both_ways
def test_names_that_change_under_traffic(client: str, loops: bool, three: Fleet) -> None:
    """SRV records with short lives, from a nameserver that fails now and then, is silent, or talks nonsense."""
    with nameserver() as names:
        names.set("a.catalog.test", "A", "127.0.0.1")

        def tell(random: Random, ports: list[int]) -> None:
            if names.records.get(("_http._tcp.catalog.test.", "SRV")):
                names.mode = random.choice(["answer", "answer", "answer", "servfail", "garbage", "silent"])  # type: ignore[assignment]
            names.set("_http._tcp.catalog.test", "SRV", *(f"0 1 {port} a.catalog.test." for port in ports), ttl=0)

        discovery = {
            "type": "dns", "name": "_http._tcp.catalog.test", "record": "SRV", "nameservers": [names.address],
            "resolver": "dns", "minimum_ttl": 0.05, "maximum_ttl": 0.1, "timeout": 0.2,
        }  # fmt: skip
        deployed(client, loops, three, discovery, tell)


# Processes, clients, budgets ----------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("client", ["httpx", "httpx2", "requests"])
def test_forks_under_traffic(client: str, three: Fleet) -> None:
    """Whatever lock another thread holds at that moment: the child calls, with nothing of its parent's in flight."""
    stop, ledger = threading.Event(), Ledger(client)
    with (
        nothing_left(three),
        pools_over(library_of(client), three.urls, **OPTIONS) as pools,
        sync_client(client, pools) as found,
        ThreadPoolExecutor(6) as threads,
    ):

        def call(number: int) -> None:
            random = Random(f"{SEED} {number}")
            while not stop.is_set():
                call_once(found, ledger, ledger.begin(random), "read")

        running = [threads.submit(call, number) for number in range(6)]
        try:
            for number in range(10):
                answered = ledger.answered
                eventually(lambda before=answered: ledger.answered > before, 60)  # type: ignore[misc]
                assert child_calls(found, pools, client, number) == 0
        finally:
            stop.set()
        for one in running:
            one.result(60)
        assert in_flight(pools) == 0
    assert not ledger.judge(three), ledger


def child_calls(found: Any, pools: Pools, client: str, number: int) -> int:
    """What a forked child that makes calls ends with."""
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            ledger = Ledger(client)
            if in_flight(pools) == 0:
                for call in range(3):
                    call_once(found, ledger, Call("GET", f"child {number} {call}", idempotent=True), "read")
                if client != "requests":
                    asyncio.run(child_loop(pools, ledger, number))
                status = 0 if not ledger.wrong and in_flight(pools) == 0 else 2
            else:
                print(f"{in_flight(pools)} in flight", file=sys.__stderr__, flush=True)
        except BaseException as error:
            print("in the child:", repr(error), file=sys.__stderr__, flush=True)
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


async def child_loop(pools: Pools, ledger: Ledger, number: int) -> None:
    async with pools.async_client(timeout=ATTEMPT) as found:
        for call in range(3):
            await async_call_once(found, ledger, Call("GET", f"loop {number} {call}", idempotent=True), "read")


@each
def test_the_budget_holds_in_a_storm(client: str, loops: bool, three: Fleet) -> None:
    """Where every endpoint answers 503, retries and hedges stay under their share of the calls."""
    for one in three.endpoints:
        one.behave("storm")
    ledger = Ledger(client, all_must_succeed=False)
    retry = {**OPTIONS["retry"], "budget_ratio": 0.2, "budget_per_second": 1}
    calls = [(Call("GET", f"{number}", idempotent=True), "") for number in range(150)]
    began = time.monotonic()
    options = {"retry": retry, "hedge": {"after": "5ms"}, **NEVER_EJECTED}
    with nothing_left(three), pools_over(library_of(client), three.urls, **options) as pools:
        at_once(client, loops, pools, ledger, calls)
    windows = 2 + (time.monotonic() - began) // 10
    assert not ledger.judge(three)
    assert 150 < sum(three.sent().values()) <= 150 * 1.2 + 10 * windows


@contextmanager
def served(app: Any) -> Generator[int]:
    """The port where uvicorn serves it."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, 60)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("library", ["httpx", "httpx2", "httpx over aiohttp", "httpx2 over aiohttp"])
def test_clients_that_hang_up(library: str, three: Fleet) -> None:
    """Each client that leaves, by FIN or RST, ends its outbound call to an endpoint that stalls."""
    ended: list[str] = []
    for one, mode in zip(three.endpoints, ("stall", "stall_in_head", "stall_in_body"), strict=True):
        one.behave(mode)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = scope["state"]["unsticky"].client
        try:
            await found.get("http://catalog/", timeout=None)
        except Exception as error:
            ended.append(type(error).__name__)
            raise

    client, _, wire = library.partition(" over ")
    settings = {
        "client": client,
        "wire": wire or "default",
        "session": {"store": "memory://"},
        "pools": {"catalog": {"endpoints": three.urls, "retry": {"attempts": 1}}},
    }
    with served(UnstickyMiddleware(PlainTextResponse("well"), settings)) as port:  # what a process opens once and keeps
        assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text == "well"
    with nothing_left(three):
        middleware = UnstickyMiddleware(app, settings)
        with served(middleware) as port:
            peers = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(30)]
            for peer in peers:
                peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: sum(three.sent().values()) == 30, 60)
            for number, peer in enumerate(peers):
                if number % 2:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
            eventually(lambda: len(ended) == 30, 60)
            assert set(ended) == {"ClientDisconnected"}
            eventually(lambda: in_flight(middleware._state.pools) == 0, 60)  # type: ignore[union-attr]
        asyncio.run(middleware.aclose())
