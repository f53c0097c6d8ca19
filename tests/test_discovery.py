"""Pools whose endpoints are found: the first calls wait, the set follows its source, and failures empty no pool."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.otlp import Telemetry
from support.pools import both, in_flight
from support.tls import CERTIFICATE, tls_endpoint, trusting
from support.upstream import Upstream, upstreams
from support.waiting import eventually
from unsticky import NoHealthyEndpoint, Pools, SettingsError
from unsticky.discoverers import DiscoveryError, Endpoint
from unsticky.discoverers.static import StaticDiscovery
from unsticky.worker import worker


@pytest.fixture
def three() -> Generator[list[Upstream]]:
    with upstreams(3) as found:
        yield found


@pytest.fixture(autouse=True)
def worker_ends() -> Generator[None]:
    """Nothing is left running by a test."""
    yield
    assert not worker.running


class Told:
    """A source that does what the test says, and can be made to wait for a word."""

    def __init__(self, *urls: str) -> None:
        self.endpoints = frozenset(map(Endpoint.of, urls))
        self.error: BaseException | None = None
        self.asked = 0
        self.go = threading.Event()
        self.go.set()

    def say(self, *urls: str) -> None:
        self.endpoints = frozenset(map(Endpoint.of, urls))

    def discover(self) -> frozenset[Endpoint]:
        self.asked += 1
        self.go.wait(10)
        if self.error:
            raise self.error
        return self.endpoints


class ToldAsync(Told):
    async def discover(self) -> frozenset[Endpoint]:  # type: ignore[override]
        while not self.go.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return super().discover()


def pools_by(source: Any, library: str = "httpx", *, discovery: Any = None, **options: Any) -> Pools:
    found = {"type": "program", "interval": 0.02, **(discovery or {})}
    settings = {"client": library, "pools": {"catalog": {"discovery": found, **options}}}
    return Pools.from_settings(settings, discovery={"Catalog": source})


def urls(pools: Pools) -> set[str]:
    return {status.endpoint.url for status in pools.status()["catalog"]}


kinds = pytest.mark.parametrize("kind", [Told, ToldAsync])


@both
@kinds
def test_the_first_call_waits(library: str, kind: Callable[..., Told], three: list[Upstream]) -> None:
    """Until the endpoints are known; nothing is asked before it."""
    source = kind(three[0].url)
    source.go.clear()
    with pools_by(source, library) as pools, pools.client() as client:
        assert (source.asked, urls(pools)) == (0, set())
        threading.Timer(0.1, source.go.set).start()
        assert client.get("http://catalog/").json()["port"] == three[0].port


@both
def test_the_first_calls_wait_on_an_event_loop(library: str, three: list[Upstream]) -> None:
    """Many at once, while the loop does other things; one that is cancelled harms nobody."""
    source = Told(three[0].url)
    source.go.clear()

    async def calls(pools: Pools) -> None:
        async with pools.async_client() as client:
            tasks = [asyncio.create_task(client.get("http://catalog/")) for _ in range(20)]
            turns = 0
            while source.asked == 0 or turns < 20:
                await asyncio.sleep(0.005)
                turns += 1
            tasks.pop().cancel()
            await asyncio.sleep(0.02)
            assert not any(task.done() for task in tasks)
            source.go.set()
            assert {response.status_code for response in await asyncio.gather(*tasks)} == {200}

    with pools_by(source, library) as pools:
        asyncio.run(calls(pools))
        assert in_flight(pools) == 0


def test_the_first_call_waits_on_trio(three: list[Upstream]) -> None:
    """Which has no futures of asyncio's."""
    source = Told(three[0].url)
    source.go.clear()

    async def call(pools: Pools) -> int:
        async with pools.async_client() as client:
            threading.Timer(0.1, source.go.set).start()
            return int((await client.get("http://catalog/")).json()["port"])

    with pools_by(source) as pools:
        assert trio.run(call, pools) == three[0].port


def test_rules_do_not_take_the_unknown_for_ill(three: list[Upstream]) -> None:
    """A call waits for its own pool, and is sent to another one when the wait was in vain."""
    for late, expected in ((0.1, three[0].port), (None, three[1].port)):
        source = Told(three[0].url)
        source.go.clear()
        settings = {
            "catalog": {
                "discovery": {"type": "program", "first_wait": 5.0 if late else 0.2},
                "rules": [{"when": {"healthy_below": 50}, "use_pool": "reserve"}],
            },
            "reserve": {"endpoints": [three[1].url]},
        }
        with Pools.from_settings({"pools": settings}, discovery={"catalog": source}) as pools, pools.client() as client:
            if late is None:
                with pytest.raises(NoHealthyEndpoint):
                    client.get("http://catalog/")
            else:
                threading.Timer(late, source.go.set).start()
            assert client.get("http://catalog/").json()["port"] == expected
            source.go.set()


def test_the_wait_is_bounded(three: list[Upstream]) -> None:
    """By the call's own timeout, and for all calls together by `first_wait`, after the first one."""
    source = Told(three[0].url)
    source.go.clear()
    with pools_by(source, discovery={"first_wait": 1.0}) as pools, pools.client() as client:
        before = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            client.get("http://catalog/", extensions={"unsticky": {"timeout": 0.05}})
        assert time.monotonic() - before < 0.9
        with pytest.raises(NoHealthyEndpoint, match="pool 'catalog' has no endpoints"):
            client.get("http://catalog/")
        assert time.monotonic() - before >= 1.0
        served = pools.find("http", "catalog", None)
        assert served is not None
        assert served.first is not None
        assert not served.first.pending, "nobody waits any more"
        source.go.set()
        assert eventually(lambda: urls(pools)) == {three[0].url}
        assert client.get("http://catalog/").status_code == 200


def test_a_source_that_fails_at_first(three: list[Upstream]) -> None:
    """The call waits for a later answer; one that waited in vain says why."""
    source = Told(three[0].url)
    source.error = DiscoveryError("the registry is starting")
    text = "has no endpoints; program: the registry is starting"
    with (
        pools_by(source, discovery={"first_wait": 0.4}) as pools,
        pools.client() as client,
        pytest.raises(NoHealthyEndpoint, match=text),
    ):
        client.get("http://catalog/")
    again = Told(three[0].url)
    again.error = DiscoveryError("the registry is starting")
    with pools_by(again) as pools, pools.client() as client:
        threading.Timer(0.1, lambda: setattr(again, "error", None)).start()
        assert client.get("http://catalog/").status_code == 200


def test_listed_endpoints_are_there_at_once(three: list[Upstream]) -> None:
    """And stay beside those that are found."""
    source = Told(three[1].url)
    source.go.clear()
    with pools_by(source, endpoints=[three[0].url]) as pools, pools.client() as client:
        assert client.get("http://catalog/").json()["port"] == three[0].port
        source.go.set()
        eventually(lambda: urls(pools) == {three[0].url, three[1].url})
        source.say(three[2].url)
        eventually(lambda: urls(pools) == {three[0].url, three[2].url})


@kinds
def test_the_set_follows_and_state_stays(kind: Callable[..., Told], three: list[Upstream]) -> None:
    """Who stays keeps what is known of it; who comes gets calls, who goes gets none."""
    source = kind(three[0].url, three[1].url)
    with pools_by(source, balancer="round_robin") as pools, pools.client() as client:
        with client.stream("GET", "http://catalog/") as open_one:
            kept = open_one.extensions["unsticky"]["endpoint"]
            gone = next(one for one in three[:2] if one.address != kept)
            stays = next(one for one in three[:2] if one.address == kept)
            source.say(stays.url, three[2].url)
            eventually(lambda: urls(pools) == {stays.url, three[2].url})
            assert in_flight(pools) == 1
            before = gone.seen().get("requests", 0)
            assert {client.get("http://catalog/").json()["port"] for _ in range(20)} == {stays.port, three[2].port}
            assert gone.seen().get("requests", 0) == before
        assert in_flight(pools) == 0


@kinds
@pytest.mark.parametrize(
    ("error", "told"),
    [(DiscoveryError("no leader"), "no leader"), (ValueError("token=secret"), "ValueError"), (None, "no endpoints")],
)
def test_a_failing_source_keeps_the_last_set(
    kind: Callable[..., Told], error: Any, told: str, three: list[Upstream], caplog: pytest.LogCaptureFixture
) -> None:
    """An error, also one of the source's own, or an empty answer: said once, and again when it is over."""
    caplog.set_level(logging.WARNING, "unsticky")
    source = kind(three[0].url)
    with pools_by(source) as pools, pools.client() as client:
        client.get("http://catalog/")
        source.error, asked = error, source.asked
        if error is None:
            source.say()
        eventually(lambda: (pools.discovery("catalog") or 0) and told in pools.discovery("CATALOG").problem)  # type: ignore[union-attr]
        assert client.get("http://catalog/").json()["port"] == three[0].port
        eventually(lambda: source.asked > asked + 1)
        source.error = None
        source.say(three[1].url)
        eventually(lambda: urls(pools) == {three[1].url})
        status = pools.discovery("catalog")
        assert status is not None
        assert (status.problem, status.found, status.source) == ("", 1, "program")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert told in lines[0]
    assert "the last 1 stay" in lines[0]
    assert "found endpoints again" in lines[1]
    assert "secret" not in caplog.text


def test_a_source_that_hangs(three: list[Upstream]) -> None:
    """Is a failure after its timeout; its thread is not joined by others, and the answer counts when it comes."""
    source = Told(three[0].url)
    with pools_by(source, discovery={"timeout": 0.05}) as pools, pools.client() as client:
        client.get("http://catalog/")
        source.go.clear()
        eventually(lambda: (status := pools.discovery("catalog")) and status.problem == "no answer within 0.05 s")
        asked = source.asked
        source.say(three[1].url)
        time.sleep(0.3)
        assert source.asked == asked
        source.go.set()
        eventually(lambda: urls(pools) == {three[1].url})


def test_close_leaves_a_source_that_hangs(three: list[Upstream]) -> None:
    """Its thread ends when it may; until then no other one asks the same source."""
    source = Told(three[0].url)
    source.go.clear()
    try:
        with pools_by(source, discovery={"timeout": 0.05, "first_wait": 0.05}) as pools, pools.client() as client:
            for _ in range(2):
                with pytest.raises(NoHealthyEndpoint, match="has no endpoints; program: no answer"):
                    client.get("http://catalog/")
                closing = threading.Thread(target=pools.close)
                closing.start()
                closing.join(5)
                assert not closing.is_alive()
                assert not worker.running
                client = pools.client()
        assert source.asked == 1
    finally:
        source.go.set()
    with pools_by(source) as pools, pools.client() as client:
        assert client.get("http://catalog/").status_code == 200


def test_sources_that_hang_leave_room_for_others(three: list[Upstream]) -> None:
    """However many they are."""
    hung, good = Told(), Told(three[0].url)
    hung.go.clear()
    names = [f"p{n}" for n in range(12)]
    discovery = {"type": "program", "timeout": 0.05, "first_wait": 0.05}
    settings = {"pools": {name: {"discovery": discovery} for name in (*names, "z")}}
    with Pools.from_settings(settings, discovery={**dict.fromkeys(names, hung), "z": good}) as pools:
        pools.start()
        try:
            eventually(lambda: pools.status()["z"])
            assert hung.asked == len(names)
        finally:
            hung.go.set()


HANGS = """
import threading
from unsticky import Pools

class Hangs:
    def discover(self):
        asked.set()
        threading.Event().wait()

asked = threading.Event()
found = {"type": "program", "timeout": "50ms"}
pools = Pools.from_settings({"pools": {"catalog": {"discovery": found}}}, discovery={"catalog": Hangs()})
pools.start()
assert asked.wait(10)
"""


def test_the_process_ends_while_a_source_hangs() -> None:
    """Though nobody closed the pools."""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", HANGS], capture_output=True, timeout=20, check=True)
    assert done.stderr == b""


@kinds
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()])
def test_a_source_that_would_end_all(kind: Callable[..., Told], error: BaseException, three: list[Upstream]) -> None:
    """Has failed, and is asked again; the loop in which all pools are looked after goes on."""
    source = kind(three[0].url)
    with pools_by(source) as pools, pools.client() as client:
        client.get("http://catalog/")
        source.error = error
        eventually(lambda: (status := pools.discovery("catalog")) and status.problem)
        asked = source.asked
        eventually(lambda: source.asked > asked)
        source.error = None
        source.say(three[1].url)
        eventually(lambda: urls(pools) == {three[1].url})


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """A FIFO would be waited for: the call that finds nothing says where it looked, and why there is nothing."""
    path = tmp_path / "endpoints.json"
    os.mkfifo(path)
    settings = {"pools": {"catalog": {"discovery": {"type": "file", "path": str(path), "first_wait": 0.5}}}}
    with (
        Pools.from_settings(settings) as pools,
        pools.client() as client,
        pytest.raises(NoHealthyEndpoint, match=f"file {path}: it is a FIFO, not a regular file"),
    ):
        client.get("http://catalog/")


def test_what_happens_is_counted(otlp: Telemetry, three: list[Upstream]) -> None:
    """Failures, their ends, and changes of the set, by pool; no span is made for asking."""
    source = Told(three[0].url)
    settings = {"pools": {"counted": {"discovery": {"type": "program", "interval": 0.02}}}}

    def counted() -> dict[object, float]:
        points = [p for p in otlp.points("unsticky.pool.events") if p.attributes["unsticky.pool"] == "counted"]
        return {point.attributes["unsticky.event"]: point.value for point in points}

    with Pools.from_settings(settings, discovery={"counted": source}) as pools:
        pools.start()
        eventually(lambda: pools.status()["counted"])
        source.error = DiscoveryError("no leader")
        eventually(lambda: (status := pools.discovery("counted")) and status.problem)
        source.error = None
        source.say(three[1].url)
        eventually(lambda: [one.endpoint.url for one in pools.status()["counted"]] == [three[1].url])
    assert counted() == {"discovery_failed": 1, "discovery_recovered": 1, "endpoints_changed": 1}
    assert otlp.spans(client=False) == []


def test_an_empty_set_may_be_meant(three: list[Upstream]) -> None:
    """With allow_empty."""
    source = Told(three[0].url)
    with pools_by(source, discovery={"allow_empty": True}) as pools, pools.client() as client:
        client.get("http://catalog/")
        source.say()
        eventually(lambda: not urls(pools))
        with pytest.raises(NoHealthyEndpoint):
            client.get("http://catalog/")
        source.say(three[0].url)
        eventually(lambda: urls(pools))
        assert client.get("http://catalog/").status_code == 200


@both
def test_a_file_that_changes_under_traffic(library: str, three: list[Upstream], tmp_path: Path) -> None:
    """Written over, renamed, deleted, full of nonsense: no call fails, and the last good list holds."""
    path = tmp_path / "endpoints.toml"
    path.write_text(f'endpoints = ["{three[0].url}"]')
    settings = {"discovery": {"type": "file", "path": str(path), "interval": 0.02}, "retry": {"attempts": 1}}
    stop, statuses, errors = threading.Event(), [0], list[BaseException]()

    def traffic(client: Any) -> None:
        while not stop.is_set():
            try:
                statuses[0] += client.get("http://catalog/").status_code == 200
            except BaseException as error:
                errors.append(error)
                raise

    def calls_go_on() -> None:
        before = statuses[0]
        eventually(lambda: errors or statuses[0] > before + 5)
        assert not errors

    def problem() -> str:
        status = pools.discovery("catalog")
        return status.problem if status else ""

    with Pools.from_settings({"client": library, "pools": {"catalog": settings}}) as pools, pools.client() as client:
        thread = threading.Thread(target=traffic, args=(client,))
        thread.start()
        try:
            eventually(lambda: urls(pools) == {three[0].url})
            path.write_text(f'endpoints = ["{three[1].url}", "{three[0].url}"]')
            eventually(lambda: urls(pools) == {three[0].url, three[1].url})
            calls_go_on()
            (tmp_path / "new").write_text(f'endpoints = ["{three[2].url}"]')
            os.replace(tmp_path / "new", path)
            eventually(lambda: urls(pools) == {three[2].url})
            calls_go_on()
            path.unlink()
            eventually(lambda: "No such file" in problem())
            calls_go_on()
            path.write_bytes(os.urandom(100))
            eventually(lambda: "not TOML" in problem())
            path.write_text("")
            eventually(lambda: "endpoints: required" in problem())
            path.write_text("endpoints = []")
            eventually(lambda: "no endpoints" in problem())
            calls_go_on()
            assert urls(pools) == {three[2].url}
            path.write_text(f'endpoints = ["{three[0].url}"]')
            eventually(lambda: urls(pools) == {three[0].url} and not problem())
            calls_go_on()
        finally:
            stop.set()
            thread.join()
    assert not errors


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork(three: list[Upstream]) -> None:
    """A child knows nothing yet, finds for itself, and leaves the parent's alone."""
    source = Told(three[0].url)
    with pools_by(source) as pools, pools.client() as client:
        client.get("http://catalog/")
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            status = 1
            try:
                assert urls(pools) == set()
                source.say(three[1].url)
                assert client.get("http://catalog/").json()["port"] == three[1].port
                pools.close()
                assert not worker.running
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        asked = source.asked
        eventually(lambda: source.asked > asked)
        assert client.get("http://catalog/").json()["port"] == three[0].port


def test_start_and_close(three: list[Upstream]) -> None:
    """`start` finds endpoints before the first call; after `close` nobody is asked, until the next call."""
    source = Told(three[0].url)
    pools = pools_by(source)
    pools.start()
    eventually(lambda: urls(pools))
    pools.close()
    asked = source.asked
    time.sleep(0.1)
    assert source.asked == asked
    assert urls(pools) == {three[0].url}
    source.say(three[1].url)
    with pools, pools.client() as client:
        client.get("http://catalog/")
        eventually(lambda: urls(pools) == {three[1].url})


def test_pools_that_are_dropped(three: list[Upstream]) -> None:
    """Discovery ends with the pools that began it."""
    source = Told(three[0].url)

    def use() -> None:
        pools = pools_by(source)
        pools.start()
        eventually(lambda: urls(pools))

    use()
    gc.collect()
    eventually(lambda: not worker.running)


PAGE = (Path(__file__).parents[1] / "docs" / "routing.md").read_text("utf-8")
[CONSUL] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Consul" in block]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[str], None]]:
    """Writes a module shop.sources."""
    (tmp_path / "shop_of_tests").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda text: (tmp_path / "shop_of_tests" / "sources.py").write_text(text) and None
    for name in ("shop_of_tests", "shop_of_tests.sources"):
        sys.modules.pop(name, None)


def test_a_source_of_ones_own_by_name(own: Callable[[str], None], three: list[Upstream]) -> None:
    """The one of the documentation, over HTTP: a function that makes it, named in the settings."""
    service = {"Service": {"Address": "127.0.0.1", "Port": three[0].port}}
    three[1].behave("status", status=200, body=json.dumps([service]), headers={"Content-Type": "application/json"})
    own(CONSUL.replace("http://127.0.0.1:8500", three[1].url))
    settings = {"discovery": {"type": "shop_of_tests.sources:catalog", "interval": 0.02}}
    with Pools.from_settings({"pools": {"catalog": settings}}) as pools, pools.client() as client:
        assert client.get("http://catalog/").json()["port"] == three[0].port
        assert three[1].seen()["GET /v1/health/service/catalog?passing=true"] >= 1
        three[1].behave("status", status=500)
        eventually(lambda: (status := pools.discovery("catalog")) and status.problem == "httpx.HTTPStatusError")
        assert client.get("http://catalog/").status_code == 200


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        ("shop_of_tests.nothing:x", '"shop_of_tests.nothing:x" is not there: No module named'),
        ("shop_of_tests.sources:nothing", "is not there: module 'shop_of_tests.sources' has no attribute 'nothing'"),
        ("shop_of_tests.sources:URL", "has no method discover"),
        ("shop_of_tests.sources:none", "has no method discover"),
        ("program", "the program must pass it"),
    ],
)
def test_sources_that_are_not_there(own: Callable[[str], None], type_: str, text: str) -> None:
    """Are said at start-up, by the setting's path."""
    own("URL = 'http://a'\ndef none(): return None\n")
    with pytest.raises(SettingsError) as caught:
        Pools.from_settings({"pools": {"catalog": {"discovery": {"type": type_}}}})
    assert "pools.catalog.discovery: " in str(caught.value)
    assert text in str(caught.value)


def test_sources_that_do_not_fit() -> None:
    """For no pool, and beside another source."""
    source = StaticDiscovery([Endpoint.of("http://127.0.0.1:1")])
    by_file = {"pools": {"catalog": {"discovery": {"type": "file", "path": "a"}}}}
    with pytest.raises(SettingsError, match=r'discovery\["shop"\]: there is no such pool'):
        Pools.from_settings(by_file, discovery={"shop": source})
    with pytest.raises(SettingsError, match='it must be type = "program", not "file"'):
        Pools.from_settings(by_file, discovery={"catalog": source})
    listed = {"pools": {"catalog": {"endpoints": ["http://127.0.0.1:2"]}}}
    with Pools.from_settings(listed, discovery={"catalog": source}) as pools:
        pools.start()
        assert eventually(lambda: len(urls(pools)) == 2)


@both
def test_the_name_of_an_address(library: str) -> None:
    """With `host`, TLS is verified by the name, and the Host header is it; health checks do so too."""
    with tls_endpoint() as endpoint:
        listed = [{"url": endpoint.url, "host": "api.example.com"}]
        options = {"endpoints": listed, "retry": {"attempts": 1}}
        wrong = {"endpoints": [{"url": endpoint.url, "host": "other.example.com"}], "retry": {"attempts": 1}}
        settings = {"client": library, "pools": {"catalog": options, "wrong": wrong}}
        with Pools.from_settings(settings) as pools, pools.client(verify=trusting()) as client:
            assert client.get("https://catalog/").status_code == 200
            with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
                client.get("https://wrong/")
        port = endpoint.url.rpartition(":")[2]
        assert endpoint.hosts == [f"api.example.com:{port}"]
        assert endpoint.names == ["api.example.com", "other.example.com"]


def test_health_checks_by_name(tmp_path: Path) -> None:
    """The certificate is for the name; the endpoint is an address."""
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    health = {"path": "/", "interval": 0.02, "ca_file": str(tmp_path / "ca.pem")}
    with tls_endpoint() as endpoint:
        for host, healthy in (("api.example.com", True), ("other.example.com", False)):
            options = {"endpoints": [{"url": endpoint.url, "host": host}], "health": health}
            with Pools.from_settings({"pools": {"catalog": options}}) as pools:
                pools.start()
                eventually(lambda pools=pools: pools.status()["catalog"][0].healthy is not None)
                assert pools.status()["catalog"][0].healthy is healthy
        assert endpoint.hosts[0] == f"api.example.com:{endpoint.url.rpartition(':')[2]}"
