"""Active health checks against real servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.pools import pools_over
from support.ports import free_port
from support.tls import CERTIFICATE, tls_endpoint
from support.upstream import Upstream, upstream, upstreams
from support.waiting import eventually
from unsticky import probes
from unsticky.errors import SettingsError
from unsticky.pools import Pools
from unsticky.routing.call import Endpoint
from unsticky.routing.health import CheckResult
from unsticky.worker import worker


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


@pytest.fixture
def one() -> Generator[Upstream]:
    with upstream() as found:
        yield found


@contextmanager
def probing(urls: list[Any], **health: Any) -> Generator[Pools]:
    """A pool that has had a call, so that it is checked every 20 ms."""
    with pools_over("httpx", urls, health={"interval": 0.02, "timeout": 0.5, **health}) as found:
        found._pools["catalog"].used = True
        found.find("http", "catalog", None)
        yield found


def verdicts(pools: Pools) -> list[bool | None]:
    return [one.healthy for one in pools.status()["catalog"]]


def test_an_unexpected_status_is_enough(one: Upstream) -> None:
    """The endpoint says itself that it is not well; a retriable status has to be said as often as the threshold."""
    with probing([one.url], path="/", unhealthy_threshold=1_000_000, retriable_statuses=[503]) as pools:
        eventually(lambda: verdicts(pools) == [True])
        one.behave("status", status=503)
        before = one.seen()["requests"]
        eventually(lambda: one.seen()["requests"] > before + 5)
        assert verdicts(pools) == [True]
        one.behave("status", status=500)
        eventually(lambda: verdicts(pools) == [False])


def test_a_degraded_endpoint_is_spared(two: list[Upstream]) -> None:
    """It says so with Envoy's header; calls go to the other one, as long as that is well."""
    two[0].behave("status", status=200, headers={"x-envoy-degraded": ""})
    health = {"path": "/", "interval": 0.02}
    with (
        pools_over("httpx", [one.url for one in two], health=health, overprovisioning=2) as pools,
        pools.client() as client,
    ):
        client.get("http://catalog/")
        eventually(lambda: {one.endpoint.url for one in pools.status()["catalog"] if one.degraded} == {two[0].url})
        eventually(lambda: verdicts(pools) == [True, True])
        used = {client.get("http://catalog/").extensions["unsticky"]["endpoint"] for _ in range(20)}
        assert used == {two[1].address}
        two[1].kill()
        eventually(lambda: verdicts(pools).count(False) == 1)
        assert client.get("http://catalog/").extensions["unsticky"]["endpoint"] == two[0].address


@contextmanager
def answering(answer: bytes) -> Generator[tuple[int, list[bytes]]]:
    """A server that answers anything with these bytes; its port, and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    asked.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_what_is_asked(one: Upstream) -> None:
    """Method, path, Host, headers, and on a port of its own."""
    asking = {"path": "/up?deep=1", "method": "HEAD", "host": "catalog.internal", "headers": {"X-Check": "caf\xe9"}}
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (port, asked):
        with probing([one.url], port=port, **asking) as pools:
            eventually(lambda: verdicts(pools) == [True])
        text = asked[0].decode("latin-1").lower()
        assert text.startswith("head /up?deep=1 http/1.1\r\n")
        assert "\r\nhost: catalog.internal\r\n" in text
        assert "\r\nx-check: caf\xe9\r\n" in text
        assert one.seen().get("requests", 0) == 0


@pytest.mark.parametrize(("text", "healthy"), [("status: UP", True), ("status: DOWN", False)])
def test_an_expected_text(text: str, healthy: bool) -> None:
    """In the first 64 KiB of the body."""
    body = text.encode() + b" " * 200_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with answering(answer) as (port, _), probing([f"http://127.0.0.1:{port}"], path="/", body="UP") as pools:
        eventually(lambda: verdicts(pools) == [healthy])


def test_connecting_is_enough(two: list[Upstream]) -> None:
    """With type = "tcp": who does not accept is ill, who accepts and hangs is not."""
    with probing([one.url for one in two], type="tcp") as pools:
        eventually(lambda: verdicts(pools) == [True, True])
        two[0].pause()
        gone = next(i for i, s in enumerate(pools.status()["catalog"]) if s.endpoint.url == two[1].url)
        two[1].kill()
        eventually(lambda: verdicts(pools)[gone] is False)
        assert verdicts(pools)[1 - gone] is True


def test_one_that_hangs_keeps_nobody_waiting(two: list[Upstream]) -> None:
    """A paused process is found out, and the other is checked meanwhile."""
    with probing([one.url for one in two], path="/", timeout=1) as pools:
        eventually(lambda: verdicts(pools) == [True, True])
        two[0].pause()
        before = two[1].seen()["requests"]
        eventually(lambda: two[1].seen()["requests"] > before + 12, timeout=1.5)
        index = next(i for i, s in enumerate(pools.status()["catalog"]) if s.endpoint.url == two[0].url)
        eventually(lambda: verdicts(pools)[index] is False)
        two[0].resume()
        eventually(lambda: verdicts(pools) == [True, True])


def test_a_pool_without_calls_is_checked_seldom(two: list[Upstream]) -> None:
    """Once, while another pool is checked often; and often after its first call."""
    health = {"path": "/up", "interval": 0.02}
    settings = {
        "busy": {"endpoints": [two[0].url], "health": health},
        "idle": {"endpoints": [two[1].url], "health": health},
    }
    with Pools.from_settings({"pools": settings}) as pools, pools.client() as client:
        client.get("http://busy/")
        eventually(lambda: two[0].seen().get("GET /up", 0) > 15)
        assert two[1].seen()["GET /up"] == 1
        client.get("http://idle/")
        eventually(lambda: two[1].seen()["GET /up"] > 5)


def test_endpoints_that_come_and_go(two: list[Upstream]) -> None:
    """What discovery finds is checked, and what it does not find any more is not."""
    with probing([two[0].url], path="/up") as pools:
        eventually(lambda: verdicts(pools) == [True])
        with pools._pools["catalog"].lock:
            pools._pools["catalog"].replace([Endpoint(two[1].url, two[1].address)])
        eventually(lambda: verdicts(pools) == [True])
        before = two[0].seen()["GET /up"]
        count = two[1].seen()["GET /up"]
        eventually(lambda: two[1].seen()["GET /up"] > count + 5)
        assert two[0].seen()["GET /up"] <= before + 1


@pytest.mark.parametrize(
    ("options", "healthy"),
    [({}, False), ({"verify": False}, True), ({"ca_file": "ca.pem"}, True), ({"host": "other.example.com"}, False)],
)
def test_certificates(options: dict[str, Any], healthy: bool, tmp_path: Path, monkeypatch: Any) -> None:
    """Verified by the system's authorities, by a file, or not at all."""
    monkeypatch.chdir(tmp_path)
    Path("ca.pem").write_text(CERTIFICATE)
    if options.get("host"):
        options = {**options, "ca_file": "ca.pem"}
    with tls_endpoint() as endpoint, probing([endpoint.url], path="/", **options) as pools:
        eventually(lambda: verdicts(pools) == [healthy])


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    """A mistake in the settings is said at the start, not as endpoints that are all unhealthy."""
    (tmp_path / "empty.pem").touch()
    for name in ("empty.pem", "missing.pem"):
        health = {"path": "/", "ca_file": str(tmp_path / name)}
        with pytest.raises(SettingsError, match=r"pools\.x\.health\.ca_file: can't be read as certificates"):
            Pools.from_settings({"pools": {"x": {"endpoints": ["https://a"], "health": health}}})


def test_nobody_there() -> None:
    """The first refusal counts."""
    with probing([f"http://127.0.0.1:{free_port()}"], path="/") as pools:
        eventually(lambda: verdicts(pools) == [False])
    assert not worker.running


def test_an_error_that_nobody_thought_of_is_a_failed_check(
    one: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The endpoint is called unhealthy instead of staying unknown, and the log says so once, with the traceback."""

    def judged(*_: object) -> CheckResult:
        raise LookupError("of a check")

    monkeypatch.setattr(probes, "judged", judged)
    probes._log_once.cache_clear()
    with caplog.at_level("ERROR", "unsticky.routing"), probing([one.url], path="/") as pools:
        eventually(lambda: verdicts(pools) == [False])
        eventually(lambda: one.seen()["requests"] > 3)
    told = [record for record in caplog.records if "health check" in record.getMessage()]
    assert len(told) == 1
    assert "LookupError" in told[0].getMessage()
    assert told[0].exc_info
