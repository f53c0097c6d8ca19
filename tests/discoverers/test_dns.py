"""Endpoints from a real nameserver on the loopback, over UDP and TCP, with all that goes wrong there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import pytest

from support.nameserver import Nameserver, nameserver
from support.pools import both
from support.ports import free_port
from support.tls import tls_endpoint, trusting
from support.upstream import Upstream, upstreams
from support.waiting import eventually
from unsticky import Pools, SettingsError
from unsticky.discoverers import DiscoveryError, Endpoint, open_discovery
from unsticky.discoverers.addresses import service
from unsticky.discoverers.dns import DnsDiscovery
from unsticky.routing.discovery_options import DiscoveryOptions
from unsticky.scalars import Duration
from unsticky.testing import FakeClock
from unsticky.worker import worker


@pytest.fixture
def server() -> Generator[Nameserver]:
    with nameserver() as one:
        yield one


class Asking:
    """A discovery at a clock that stands still."""

    def __init__(self, server: Nameserver, **options: Any) -> None:
        self.clock = FakeClock()
        chosen = {"name": "catalog.test", "nameservers": (server.address,), "timeout": Duration(5), **options}
        self.source = DnsDiscovery(DiscoveryOptions(type="dns", **chosen), self.clock)

    def found(self) -> set[str]:
        return {one.address for one in self.endpoints()}

    def endpoints(self) -> frozenset[Endpoint]:
        return asyncio.run(self.source.discover())

    def fails(self) -> str:
        with pytest.raises(DiscoveryError) as caught:
            self.endpoints()
        return str(caught.value)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("A", {"10.0.0.1:8000", "10.0.0.2:8000"}),
        ("AAAA", {"[fd00::1]:8000"}),
        ("both", {"10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000"}),
    ],
)
def test_addresses(record: str, expected: set[str], server: Nameserver) -> None:
    """One endpoint for each; the Host header is for the name."""
    server.set("catalog.test", "A", "10.0.0.1", "10.0.0.2")
    server.set("catalog.test", "AAAA", "fd00::1")
    found = Asking(server, record=record, port=8000, scheme="https").endpoints()
    assert {one.address for one in found} == expected
    assert {one.host for one in found} == {"catalog.test"}
    assert all(one.url.startswith("https://") for one in found)


def test_an_alias(server: Nameserver) -> None:
    """A CNAME is followed, and the shortest time to live counts."""
    server.set("catalog.test", "CNAME", "a.hosting.test.", ttl=20)
    server.set("a.hosting.test", "A", "10.0.0.1", ttl=200)
    asking = Asking(server)
    assert asking.found() == {"10.0.0.1:80"}
    assert asking.source.due_in() == 20


@pytest.mark.parametrize(("ttl", "kept"), [(0, 5), (3, 5), (60, 60), (1_000_000, 300)])
def test_times_to_live(ttl: int, kept: float, server: Nameserver) -> None:
    """Are kept, within the bounds of the settings; nobody is asked before."""
    server.set("catalog.test", "A", "10.0.0.1", ttl=ttl)
    asking = Asking(server, minimum_ttl=Duration(5))
    assert asking.found() == {"10.0.0.1:80"}
    assert asking.source.due_in() == kept
    server.set("catalog.test", "A", "10.0.0.2")
    asking.clock.advance(kept - 0.5)
    assert asking.found() == {"10.0.0.1:80"}
    assert server.asked.total() == 1
    asking.clock.advance(0.5)
    assert asking.found() == {"10.0.0.2:80"}


def test_services(server: Nameserver) -> None:
    """Priority, weight and port of SRV; targets that came along are not asked for, others are; no target twice."""
    server.set(
        "_http._tcp.catalog.test",
        "SRV",
        "10 60 8001 a.test.",
        "10 0 8002 b.test.",
        "20 30 8003 c.test.",
        "20 1 8004 gone.test.",
        "0 1 8005 .",
    )
    server.set("a.test", "A", "10.0.0.1", "10.0.0.2")
    server.set("a.test", "AAAA", "fd00::1")
    server.set("b.test", "AAAA", "fd00::2")
    server.set("c.test", "A", "10.0.0.3", ttl=7)
    server.additional = [("a.test", "A"), ("a.test", "AAAA")]
    asking = Asking(server, name="_http._tcp.catalog.test", record="SRV")
    expected = {
        Endpoint.of("http://10.0.0.1:8001", weight=30, priority=10, host="catalog.test"),
        Endpoint.of("http://10.0.0.2:8001", weight=30, priority=10, host="catalog.test"),
        Endpoint.of("http://[fd00::2]:8002", weight=1, priority=10, host="catalog.test"),
        Endpoint.of("http://10.0.0.3:8003", weight=30, priority=20, host="catalog.test"),
    }
    assert asking.endpoints() == expected
    assert not any(" a.test" in question for question in server.asked)
    assert asking.source.due_in() == 7
    before = server.asked.copy()
    asking.clock.advance(8)
    assert asking.endpoints() == expected
    assert server.asked["A c.test. udp"] == before["A c.test. udp"] + 1
    assert server.asked["SRV _http._tcp.catalog.test. udp"] == 1, "what is still good is not asked again"


def test_truncated_answers_come_by_tcp(server: Nameserver) -> None:
    """Many addresses don't fit into a datagram."""
    server.set("catalog.test", "A", *(f"10.0.{n // 250}.{n % 250 + 1}" for n in range(500)))
    server.truncating = True
    assert len(Asking(server).found()) == 500
    assert server.asked["A catalog.test. tcp"] == 1


def test_names_without_addresses(server: Nameserver) -> None:
    """Who does not exist, or has other records only, has no endpoints: whether that counts is not decided here."""
    asking = Asking(server)
    assert asking.found() == set()
    server.set("catalog.test", "AAAA", "fd00::1")
    assert asking.found() == set()
    server.set("catalog.test", "SRV", "0 0 0 .")
    assert Asking(server, record="SRV").found() == set()


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("servfail", "A catalog.test: the nameservers say SERVFAIL"),
        ("refused", "A catalog.test: the nameservers say REFUSED"),
        ("silent", "A catalog.test: no answer within 0.3 s"),
        ("garbage", "A catalog.test: no answer within 0.3 s"),
    ],
)
def test_nameservers_that_do_not_know(mode: Any, text: str, server: Nameserver) -> None:
    """Are errors, unlike a name that does not exist."""
    server.set("catalog.test", "A", "10.0.0.1")
    server.mode = mode
    asking = Asking(server, timeout=Duration(0.3 if mode in ("silent", "garbage") else 5))
    assert asking.fails() == text
    server.mode = "answer"
    assert asking.found() == {"10.0.0.1:80"}


def test_half_an_answer_is_none(server: Nameserver) -> None:
    """Where one of the records, or one of the targets, can't be told, the set is not known."""
    server.set("catalog.test", "A", "10.0.0.1")
    server.failing = {("catalog.test.", "AAAA"), ("b.test.", "A")}
    assert "AAAA catalog.test: the nameservers say SERVFAIL" in Asking(server, record="both").fails()
    server.set("catalog.test", "SRV", "0 1 80 a.test.", "0 1 80 b.test.")
    server.set("a.test", "A", "10.0.0.1")
    server.set("b.test", "A", "10.0.0.2")
    assert "A b.test.: the nameservers say SERVFAIL" in Asking(server, record="SRV").fails()


def test_another_nameserver_steps_in(server: Nameserver) -> None:
    """For one that refuses."""
    server.set("catalog.test", "A", "10.0.0.1")
    with nameserver() as ill:
        ill.mode = "servfail"
        assert Asking(server, nameservers=(ill.address, server.address)).found() == {"10.0.0.1:80"}
        assert ill.asked.total() == 1


@pytest.mark.parametrize(
    ("name", "host"), [("catalog.test", "catalog.test"), ("_http._tcp.Catalog.test.", "Catalog.test"), ("_x", None)]
)
def test_the_name_for_tls(name: str, host: str | None) -> None:
    """The service's own, which certificates are for (RFC 6125): not the target's."""
    assert service(name) == host


@both
def test_changes_under_traffic(library: str, server: Nameserver) -> None:
    """New addresses get calls, a nameserver that fails or forgets empties no pool, and the events say so."""
    with upstreams(1) as [one]:
        server.set("catalog.test", "A", "127.0.0.1", ttl=1)
        options = {"type": "dns", "name": "catalog.test", "port": one.port, "nameservers": [server.address]}
        discovery = {**options, "minimum_ttl": 0.02, "maximum_ttl": 0.02, "timeout": 0.5}
        settings = {"client": library, "pools": {"catalog": {"discovery": discovery}}}
        with Pools.from_settings(settings) as pools, pools.client() as client:

            def addresses() -> set[str]:
                return {status.endpoint.address for status in pools.status()["catalog"]}

            def problem() -> str:
                status = pools.discovery("catalog")
                return status.problem if status else ""

            answer = client.get("http://catalog/").json()
            assert answer["headers"]["host"] == f"catalog.test:{one.port}"
            server.set("catalog.test", "A", "127.0.0.1", "127.0.0.2", ttl=1)
            eventually(lambda: addresses() == {f"127.0.0.1:{one.port}", f"127.0.0.2:{one.port}"})
            assert all(client.get("http://catalog/").status_code == 200 for _ in range(10))
            for mode, told in (("servfail", "SERVFAIL"), ("silent", "no answer within 0.5 s")):
                server.mode = mode  # type: ignore[assignment]
                eventually(lambda told=told: told in problem())
                assert client.get("http://catalog/").status_code == 200
                server.mode = "answer"
                eventually(lambda: not problem())
            server.records.clear()
            eventually(lambda: "no endpoints" in problem())
            assert client.get("http://catalog/").status_code == 200
            assert len(addresses()) == 2
        before = server.asked.total()
        assert not worker.running
        assert server.asked.total() == before


@both
def test_certificates_are_for_the_name(library: str, server: Nameserver) -> None:
    """TLS to an address that was found asks for, and verifies, the name that was looked up."""
    with tls_endpoint() as endpoint:
        port = int(endpoint.url.rpartition(":")[2])
        pools = {}
        for pool, name in (("right", "api.example.com"), ("wrong", "other.example.com")):
            server.set(name, "A", "127.0.0.1")
            discovery = {"type": "dns", "name": name, "port": port, "scheme": "https", "nameservers": [server.address]}
            pools[pool] = {"discovery": discovery, "retry": {"attempts": 1}}
        settings = {"client": library, "pools": pools}
        with Pools.from_settings(settings) as found, found.client(verify=trusting()) as client:
            assert client.get("https://right/").status_code == 200
            with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
                client.get("https://wrong/")
        assert endpoint.names == ["api.example.com", "other.example.com"]
        assert endpoint.hosts == [f"api.example.com:{port}"]


def test_the_system_resolves(two: list[Upstream]) -> None:
    """localhost, which /etc/hosts has; a name that nobody has, and a text that is none."""
    options = {"type": "dns", "name": "localhost", "port": two[0].port, "resolver": "system"}
    with Pools.from_settings({"pools": {"catalog": {"discovery": options}}}) as pools, pools.client() as client:
        answer = client.get("http://catalog/").json()
        assert (answer["port"], answer["headers"]["host"]) == (two[0].port, f"localhost:{two[0].port}")
    for name, record in (("localhost", "both"), ("localhost", "A")):
        chosen = DiscoveryOptions(type="dns", name=name, record=record, resolver="system")  # type: ignore[arg-type]
        found = open_discovery(chosen, FakeClock()).discover()
        assert "127.0.0.1:80" in {one.address for one in found}  # type: ignore[union-attr]


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


WITHOUT = """
import sys
sys.modules["dns"] = None
from unsticky.discoverers import open_discovery
from unsticky.routing.discovery_options import DiscoveryOptions
from unsticky.clock import SystemClock
for more in ({}, {"record": "SRV"}, {"nameservers": ("127.0.0.1",)}, {"resolver": "dns"}):
    try:
        print(type(open_discovery(DiscoveryOptions(type="dns", name="localhost", **more), SystemClock())).__name__)
    except ValueError as error:
        print(error)
"""


def test_without_the_extra() -> None:
    """Plain addresses are the system's matter then; for the rest it is said what to install."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    first, *others = done.stdout.splitlines()
    assert first == "SystemDiscovery"
    assert len(others) == 3
    assert all("pip install 'unsticky[dns]'" in line for line in others)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "pools.x.discovery.name: required with type"),
        ({"name": "a b"}, "pools.x.discovery.name: expected a host name"),
        ({"name": "a", "path": "b"}, "pools.x.discovery.path: has no effect"),
        ({"name": "a", "record": "SRV", "port": 80}, "pools.x.discovery.port: has no effect"),
        ({"name": "a", "nameservers": ["dns.google"]}, "pools.x.discovery.nameservers[0]: expected an address"),
        ({"name": "a", "nameservers": ["10.0.0.1:0"]}, "pools.x.discovery.nameservers[0]: expected an address"),
        ({"name": "a", "resolver": "system", "record": "SRV"}, 'pools.x.discovery.record: SRV needs resolver = "dns"'),
        ({"name": "a", "minimum_ttl": "1h"}, "pools.x.discovery.minimum_ttl: must not be longer than maximum_ttl (5m)"),
    ],
)
def test_settings_that_cannot_be_meant(options: dict[str, Any], problem: str) -> None:
    """Are refused, by their place."""
    with pytest.raises(SettingsError) as caught:
        Pools.from_settings({"pools": {"x": {"discovery": {"type": "dns", **options}}}})
    assert problem in str(caught.value)


def test_nameservers_by_any_address() -> None:
    """With and without a port; a closed one is an error, not a crash."""
    for text in ("127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:5353"):
        settings = {"type": "dns", "name": "a", "nameservers": [text]}
        Pools.from_settings({"pools": {"x": {"discovery": settings}}})
    options = DiscoveryOptions(
        type="dns", name="a.test", nameservers=(f"127.0.0.1:{free_port()}",), timeout=Duration(0.3)
    )
    with pytest.raises(DiscoveryError, match=r"A a\.test: "):
        asyncio.run(DnsDiscovery(options, FakeClock()).discover())
