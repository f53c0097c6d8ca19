"""What a program holds: which pool serves what, health checks, and the clients' ends."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from support.pools import both, in_flight, pools_over
from support.tls import tls_endpoint, trusting
from support.upstream import Upstream, upstreams
from support.waiting import eventually
from unsticky.errors import SettingsError
from unsticky.pools import Pools
from unsticky.proxies import environment_proxies
from unsticky.settings import load
from unsticky.worker import worker


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def pools(**pool: Any) -> Pools:
    return Pools.from_settings({"pools": {"catalog": {"endpoints": ["http://10.0.0.1:8000"], **pool}}})


@pytest.mark.parametrize(
    "origin",
    [
        ("http", "catalog", None),
        ("https", "catalog", None),
        ("https", "api.example.com", None),
        ("http", "api.example.com", 8080),
        ("https", "b.example.com", None),
    ],
)
def test_what_is_served(origin: Any) -> None:
    """A pool's name without a port, and its origins with default ports normalised."""
    match = ["https://api.example.com", "http://api.example.com:8080", "https://b.example.com:443"]
    found = pools(match=match).find(*origin)
    assert found is not None
    assert found.pool.name == "catalog"
    assert found.preserve is (origin[1] != "catalog")


@pytest.mark.parametrize(
    "origin",
    [
        ("http", "catalog", 8000),
        ("http", "api.example.com", None),
        ("https", "api.example.com", 444),
        ("https", "x.example.com", None),
        ("ftp", "catalog", None),
    ],
)
def test_what_is_not(origin: Any) -> None:
    """Any other port, scheme or host is not the pool's."""
    assert pools(match=["https://api.example.com"]).find(*origin) is None


def test_hosts_in_both_forms() -> None:
    """A `match` origin in ASCII serves its Unicode form too, which is what httpx makes of it; other names do not."""
    found = pools(match=["http://xn--bcher-kva.example", "http://api.xn--bcher-kva.example"])
    for host in ("bücher.example", "xn--bcher-kva.example", "api.bücher.example", "api.xn--bcher-kva.example"):
        assert found.find("http", host, None) is not None, host
    for host in ("bucher.example", "büche.example", "\u2028.example"):
        assert found.find("http", host, None) is None, host


@both
def test_calls_to_a_name_in_unicode(library: str, two: list[Upstream]) -> None:
    """Both forms of such a name reach the pool, and the Host header is the ASCII one."""
    with pools_over(library, [two[0].url], match=["http://xn--bcher-kva.example"]) as found, found.client() as client:
        for host in ("bücher.example", "xn--bcher-kva.example"):
            assert client.get(f"http://{host}/").json()["headers"]["host"] == "xn--bcher-kva.example"


@both
def test_proxies(library: str, two: list[Upstream]) -> None:
    """`proxy` is the way to the endpoints, not one around the pools."""
    with pools_over(library, [two[0].url]) as found, found.client(proxy=two[1].url) as client:
        answer = client.get("http://catalog/items")
    assert answer.extensions["unsticky"]["endpoint"] == two[0].address
    assert answer.json()["port"] == two[1].port
    assert answer.json()["headers"]["host"] == two[0].address


ENVIRONMENTS = [
    {},
    {"HTTP_PROXY": "http://p:1"},
    {"HTTP_PROXY": "p:1", "HTTPS_PROXY": "http://q:2", "ALL_PROXY": "http://r:3", "NO_PROXY": ""},
    {"HTTP_PROXY": "p:1", "NO_PROXY": "*"},
    {"HTTP_PROXY": "p:1", "NO_PROXY": "example.com, *"},
    {
        "all_proxy": "p:1",
        "no_proxy": "localhost, LocalHost,example.com,.example.org,10.0.0.1,10.0.0.0/8,::1,http://x:80",
    },
]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_proxies_are_read_as_the_libraries_do(
    name: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same patterns as httpx's own clients make of the same environment."""
    no_proxies(monkeypatch, **environment)
    assert environment_proxies() == import_module(f"{name}._utils").get_environment_proxies()


def no_proxies(monkeypatch: pytest.MonkeyPatch, **instead: str) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in instead.items():
        monkeypatch.setenv(name, value)


@both
@pytest.mark.parametrize("wire", ["default", "aiohttp"])
def test_proxies_of_the_environment(
    library: str, wire: str, two: list[Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts that are no pool's are reached through them, unless a client says otherwise; endpoints never are."""
    no_proxies(monkeypatch, HTTP_PROXY=two[1].url, NO_PROXY="127.0.0.1")
    other, straight = "http://other.invalid/x", f"{two[0].url}/x"

    def ports(client: Any) -> list[int]:
        return [
            client.get(url).json()["port"] for url in ("http://catalog/", straight, other, "http://matched.invalid/")
        ]

    async def ports_async(found: Pools, url: str, **options: Any) -> int:
        async with found.async_client(wire=wire, **options) as client:
            port: int = (await client.get(url)).json()["port"]
            return port

    of_catalog, of_proxy = two[0].port, two[1].port
    with pools_over(library, [two[0].url], match=["http://matched.invalid"]) as found:
        with found.client() as client:
            assert ports(client) == [of_catalog, of_catalog, of_proxy, of_catalog]
        with found.client(trust_env=False) as client, pytest.raises(Exception, match=r"(?i)name|address"):
            client.get(other)
        for url, port in (("http://catalog/", of_catalog), (straight, of_catalog), (other, of_proxy)):
            assert asyncio.run(ports_async(found, url)) == port
        theirs = import_module(library)
        with found.client(
            mounts={"http://other.invalid": theirs.MockTransport(lambda _: theirs.Response(418))}
        ) as client:
            assert client.get(other).status_code == 418
        assert in_flight(found) == 0


def test_sources(tmp_path: Path) -> None:
    """A path, a mapping and ready Settings say the same; wrong ones stop the program at once."""
    file = tmp_path / "unsticky.toml"
    file.write_text('[pools.catalog]\nendpoints = ["http://10.0.0.1:8000"]\n')
    mapping = {"pools": {"catalog": {"endpoints": ["http://10.0.0.1:8000"]}}}
    for found in (Pools.from_settings(str(file)), Pools.from_settings(file), Pools.from_settings(mapping),
                  Pools.from_settings(load(mapping)), Pools(load(mapping))):  # fmt: skip
        with found:
            assert [status.endpoint.url for status in found.status()["catalog"]] == ["http://10.0.0.1:8000"]
    with pytest.raises(SettingsError, match="catalog"):
        Pools.from_settings({"pools": {"catalog": {"endpoints": ["nonsense"]}}})


def test_a_client_library_that_is_missing() -> None:
    """The message says what to install."""
    code = (
        "import sys; sys.modules['httpx2'] = None\n"
        "from unsticky.pools import Pools\n"
        "Pools.from_settings({'client': 'httpx2'}).client()"
    )
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'client = "httpx2" needs: pip install unsticky[httpx2]' in failed.stderr


@both
def test_health_checks(library: str, two: list[Upstream]) -> None:
    """They begin with the first call, take an endpoint out before a call meets it, and back in when it is good."""
    health = {"path": "/healthz", "interval": 0.02, "timeout": 0.5}
    urls = [{"url": two[0].url}, {"url": two[1].url, "priority": 1}]
    with pools_over(library, urls, health=health) as found, found.client() as client:
        assert "GET /healthz" not in two[0].seen()
        assert client.get("http://catalog/").json()["port"] == two[0].port
        eventually(lambda: [status.healthy for status in found.status()["catalog"]] == [True, True])
        two[0].behave("status", status=500)
        eventually(lambda: found.status()["catalog"][0].healthy is False)
        answer = client.get("http://catalog/")
        assert answer.json()["port"] == two[1].port
        assert answer.extensions["unsticky"]["attempts"] == 1
        two[0].behave("echo")
        eventually(lambda: found.status()["catalog"][0].healthy)
        assert client.get("http://catalog/").json()["port"] == two[0].port
        two[0].kill()
        eventually(lambda: found.status()["catalog"][0].healthy is False)
    assert not worker.running


def test_a_paused_endpoint_is_unhealthy(two: list[Upstream]) -> None:
    """An endpoint that does not answer in time is taken out."""
    health = {"path": "/healthz", "interval": 0.02, "timeout": 0.05}
    with pools_over("httpx", [two[0].url, two[1].url], health=health) as found:
        with found.client() as client:
            client.get("http://catalog/")
        eventually(lambda: all(status.healthy for status in found.status()["catalog"]))
        two[0].pause()
        by_url = lambda: {status.endpoint.url: status.healthy for status in found.status()["catalog"]}  # noqa: E731
        eventually(lambda: by_url() == {two[0].url: False, two[1].url: True})


def test_nothing_runs_without_health_checks(two: list[Upstream]) -> None:
    """No path, no thread; and no thread before the first call."""
    with pools_over("httpx", [two[0].url]) as found:
        found.find("http", "catalog", None)
        assert not worker.running
    with pools_over("httpx", [two[0].url], health={"path": "/"}) as found:
        found.find("http", "elsewhere", None)
        assert not worker.running


def test_pools_that_are_dropped(two: list[Upstream]) -> None:
    """Health checks end with the pools that began them, also where nobody closed these."""

    def use() -> None:
        settings = {"endpoints": [two[0].url], "health": {"path": "/healthz", "interval": 0.02}}
        found = Pools.from_settings({"pools": {"catalog": settings}})
        with found.client() as client:
            assert client.get("http://catalog/").status_code == 200
        eventually(lambda: found.status()["catalog"][0].healthy)

    use()
    gc.collect()
    eventually(lambda: not worker.running)


@both
def test_close_ends_clients(library: str, two: list[Upstream]) -> None:
    """close() closes what client() gave out, and may be called twice; the checks begin again with another call."""
    with pools_over(library, [two[0].url], health={"path": "/"}) as found:
        client = found.client()
        assert client.get("http://catalog/").status_code == 200
        found.close()
        assert client.is_closed
        found.close()
        assert not worker.running
        with found.client() as again:
            assert again.get("http://catalog/").status_code == 200
        assert worker.running
    assert not worker.running


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_health_checks_after_a_fork(two: list[Upstream]) -> None:
    """A forked child checks for itself, and the parent's checks go on."""
    health = {"path": "/healthz", "interval": 0.02}
    with pools_over("httpx", [two[0].url], health=health) as found:
        with found.client() as client:
            client.get("http://catalog/")
        eventually(lambda: found.status()["catalog"][0].healthy)
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            status = 1
            try:
                assert found.status()["catalog"][0].healthy is None
                found.find("http", "catalog", None)
                eventually(lambda: found.status()["catalog"][0].healthy)
                found.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        two[0].kill()
        eventually(lambda: found.status()["catalog"][0].healthy is False)


@both
def test_the_name_for_tls(library: str) -> None:
    """SNI, and what the certificate is checked for, is the endpoint's host; the original one when Host is preserved."""
    with tls_endpoint() as endpoint:
        options = {"match": ["https://api.example.com"]}
        with pools_over(library, [endpoint.url], **options) as found, found.client(verify=trusting()) as client:
            assert client.get("https://catalog/").status_code == 200
            assert client.get("https://api.example.com/").status_code == 200
            assert in_flight(found) == 0
        assert endpoint.names == [None, "api.example.com"]  # an address is no name for SNI
        assert endpoint.hosts == [endpoint.url.removeprefix("https://"), "api.example.com"]


def test_draining_and_explaining(two: list[Upstream]) -> None:
    """By a pool's name in any case; calls go to the other one."""
    with pools_over("httpx", [two[0].url, two[1].url]) as found, found.client() as client:
        assert found.drain("CATALOG", two[0].address)
        assert {client.get("http://catalog/").json()["port"] for _ in range(10)} == {two[1].port}
        assert {one.address: (one.eligible, one.reason, one.share) for one in found.explain("catalog")} == {
            two[0].address: (False, "draining", 0.0),
            two[1].address: (True, "", 100.0),
        }
        assert not found.drain("catalog", "elsewhere:1")
        with pytest.raises(KeyError):
            found.drain("shop", two[0].url)


def test_the_locality_of_the_process(two: list[Upstream]) -> None:
    """From the top of the settings."""
    endpoints = [{"url": two[0].url, "locality": "a"}, {"url": two[1].url, "locality": "b"}]
    settings = {"locality": "b", "pools": {"catalog": {"endpoints": endpoints}}}
    with Pools.from_settings(settings) as found, found.client() as client:
        assert {client.get("http://catalog/").json()["port"] for _ in range(10)} == {two[1].port}
