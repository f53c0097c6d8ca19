"""Calls from threads over pools of real servers: what is sent where, and what the caller sees of it."""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from typing import Any

import httpx
import pytest

from support.pools import LIBRARIES, both, in_flight, pools_over
from support.ports import free_port
from support.upstream import Upstream, upstream, upstreams
from unsticky import errors
from unsticky.context import RequestState, current
from unsticky.httpx import PoolTransport

NOWAIT = {"backoff": 0}


@pytest.fixture
def three() -> Generator[list[Upstream]]:
    with upstreams(3) as found:
        yield found


@both
def test_calls_are_spread_and_look_untouched(library: str, three: list[Upstream]) -> None:
    """Every endpoint serves its share; the response's request is the caller's own."""
    with pools_over(library, [one.url for one in three], balancer="round_robin") as pools, pools.client() as client:
        answers = [client.get("http://catalog/items", params={"q": "1 2"}) for _ in range(6)]
        ports = [answer.json()["port"] for answer in answers]
        assert sorted(ports) == sorted([one.port for one in three] * 2)
        assert answers[0].json()["path"] == "/items?q=1%202" or answers[0].json()["path"] == "/items?q=1+2"
        assert str(answers[0].request.url).startswith("http://catalog/items?q=1")
        assert answers[0].request.headers["host"] == "catalog"
        assert answers[0].extensions["unsticky"] == {
            "pool": "catalog", "endpoint": f"127.0.0.1:{ports[0]}", "attempts": 1,
        }  # fmt: skip
        assert in_flight(pools) == 0


@both
def test_other_hosts_pass_through(library: str, three: list[Upstream]) -> None:
    """A host that is no pool's goes straight where it should, and errors are the library's own."""
    with pools_over(library, [three[0].url]) as pools, pools.client() as client:
        answer = client.get(f"{three[1].url}/x")
        assert answer.json()["port"] == three[1].port
        assert "unsticky" not in answer.extensions
        with pytest.raises(LIBRARIES[library].ConnectError) as caught:
            client.get(f"http://127.0.0.1:{free_port()}/")
        assert not isinstance(caught.value, errors.RoutingError)
        with pytest.raises(LIBRARIES[library].ConnectError):
            client.get(f"http://catalog:{free_port()}/")  # a port: not the pool's name


@both
def test_streams_keep_their_lease(library: str, three: list[Upstream]) -> None:
    """The endpoint's place is held until the body is closed, however much of it was read."""
    three[0].behave("slow", seconds=0.01)
    with pools_over(library, [three[0].url]) as pools, pools.client() as client:
        with client.stream("GET", "http://catalog/") as response:
            assert in_flight(pools) == 1
            chunks = response.iter_raw()  # kept: httpx2 closes the response when its iterator is dropped
            assert next(chunks) == b"x" * 10
            assert in_flight(pools) == 1
        assert in_flight(pools) == 0
        with client.stream("GET", "http://catalog/") as response:
            assert len(response.read()) == 100
        assert in_flight(pools) == 0


@both
def test_errors_of_the_caller_come_out_as_they_are(library: str, three: list[Upstream]) -> None:
    """A request that can't be sent, or whose body fails, is nobody's fault but its own: no retry, its own exception."""

    def failing() -> Generator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    with pools_over(library, [one.url for one in three], ejection={"consecutive_failures": 1}) as pools:
        with pools.client() as client:
            with pytest.raises(ZeroDivisionError):
                client.put("http://catalog/", content=failing())
            with pytest.raises(LIBRARIES[library].LocalProtocolError):
                client.get("http://catalog/", headers={"bad header": "x"})
        assert all(status.ejected_for == 0 for status in pools.status()["catalog"])
        assert in_flight(pools) == 0


@both
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timout": 1}, 'unknown key "timout", did you mean "timeout"?'),
        ({"x": 1}, "allowed are buffer_body, fallback, hash_key, hedge, idempotent, inbound, retry, timeout"),
        ({"timeout": 0}, "seconds above 0"),
        ({"timeout": "1s"}, "seconds above 0"),
        ({"retry": 1}, "true or false"),
        ({"hash_key": 1}, "expected a text"),
        ({"idempotent": "yes"}, "true or false"),
        ({"hedge": None}, "true or false"),
        ({"buffer_body": True}, "bytes, 0 or more"),
        ({"buffer_body": -1}, "bytes, 0 or more"),
        (3, "expected a mapping, got int"),
    ],
)
def test_wrong_options_of_a_call(library: str, given: Any, said: str, three: list[Upstream]) -> None:
    """A misspelt or impossible option is named, and nothing is sent."""
    with pools_over(library, [three[0].url]) as pools, pools.client() as client:
        with pytest.raises(ValueError, match=r'extensions\["unsticky"\]') as caught:
            client.get("http://catalog/", extensions={"unsticky": given})
        assert said in str(caught.value)
        assert "requests" not in three[0].seen()


@both
def test_host_headers(library: str, three: list[Upstream]) -> None:
    """A pool's name gives the endpoint's authority, a `match` origin its own; `host` and callers decide otherwise."""
    url, origin = three[0].url, "http://api.example.com:81"

    def host(calls: str, headers: dict[str, str] | None = None, **options: Any) -> str:
        with pools_over(library, [url], match=[origin], **options) as pools, pools.client() as client:
            seen: str = client.get(calls, headers=headers).json()["headers"]["host"]
            return seen

    assert host("http://catalog/") == three[0].address
    assert host(origin) == "api.example.com:81"
    assert host("http://catalog/", host="preserve") == "catalog"
    assert host(origin, host="endpoint") == three[0].address
    assert host("http://catalog/", {"Host": "mine"}) == "mine"


@both
def test_redirects_and_cookies_are_the_clients(library: str, three: list[Upstream]) -> None:
    """A redirect is followed by the client, over the pool again when it is relative."""
    three[0].behave("redirect", to="/there")
    with pools_over(library, [three[0].url]) as pools, pools.client(follow_redirects=True) as client:
        answer = client.get("http://catalog/here")
        assert answer.json()["path"] == "/there"
        assert [str(one.url) for one in answer.history] == ["http://catalog/here"]
        assert str(answer.url) == "http://catalog/there"


@both
def test_a_transport_of_the_callers_own(library: str) -> None:
    """MockTransport, and any other, can be the innermost hop; what it answers with gives its lease back."""
    names = LIBRARIES[library]
    seen = []

    def answer(request: Any) -> Any:
        seen.append(str(request.url))
        return names.Response(503 if len(seen) == 1 else 200, json={"n": len(seen)})

    with (
        pools_over(library, ["http://a:1", "http://b:2"], balancer="round_robin", retry=NOWAIT) as pools,
        pools.client(transport=names.MockTransport(answer)) as client,
    ):
        assert client.get("http://catalog/x").json() == {"n": 2}
        assert sorted(seen) == ["http://a:1/x", "http://b:2/x"]
        assert in_flight(pools) == 0


@both
def test_forms_are_sent_again(library: str) -> None:
    """A multipart form with a file that can be rewound is replayed whole."""
    names = LIBRARIES[library]
    seen: list[bytes] = []

    def answer(request: Any) -> Any:
        seen.append(request.read())
        return names.Response(503 if len(seen) == 1 else 200)

    with pools_over(library, ["http://a:1"], retry=NOWAIT) as pools:
        with pools.client(transport=names.MockTransport(answer)) as client:
            answered = client.put("http://catalog/", data={"a": "1"}, files={"f": io.BytesIO(b"content")})
        assert answered.status_code == 200
        assert seen[0] == seen[1]
        assert b"content" in seen[1]


@both
@pytest.mark.parametrize("balancer", ["ring_hash", "maglev", "rendezvous"])
def test_hash_keys(library: str, balancer: str, three: list[Upstream]) -> None:
    """The same key goes to the same endpoint, from the request or from the call."""
    options: dict[str, Any] = {"balancer": balancer, "hash": {"on": ["header:x-tenant", "query:t", "path"]}}
    with pools_over(library, [one.url for one in three], **options) as pools, pools.client() as client:

        def ports(**kwargs: Any) -> set[int]:
            return {client.get("http://catalog/", **kwargs).json()["port"] for _ in range(2)}

        by_tenant = [ports(headers={"X-Tenant": str(n)}) for n in range(40)]
        by_query = [ports(params={"t": n}) for n in range(40)]
        by_call = [ports(extensions={"unsticky": {"hash_key": f"u{n}"}}) for n in range(40)]
    for found in (by_tenant, by_query, by_call):
        assert all(len(one) == 1 for one in found)
        assert len(set.union(*found)) == 3


@both
def test_terminal_and_joined_hash_keys(library: str, three: list[Upstream]) -> None:
    """Several values of a header are one, joined with a comma (gRFC A76); after a terminal key nothing counts."""
    on = [{"key": "header:x-tenant", "terminal": True}, "query:t"]
    with (
        pools_over(library, [one.url for one in three], balancer="rendezvous", hash={"on": on}) as pools,
        pools.client() as client,
    ):

        def port(*tenants: str, t: int = 0) -> int:
            headers = [("x-tenant", tenant) for tenant in tenants]
            found: int = client.get("http://catalog/", headers=headers, params={"t": t}).json()["port"]
            return found

        for n in range(10):
            assert port("a", str(n)) == port(f"a,{n}")
        assert len({port("a", t=t) for t in range(20)}) == 1
        assert len({port(t=t) for t in range(20)}) > 1
        assert len({port("a", str(n)) for n in range(20)}) > 1


class OfUser(RequestState):
    """An inbound request that names its user in every way that there is."""

    def __init__(self, user: str) -> None:
        self.user = user

    @property
    def cookies(self) -> dict[str, str]:
        return {"user": self.user}

    def header(self, name: str) -> str | None:
        return self.user if name.lower() == "x-user" else None

    def session_key(self) -> str:
        return self.user


@both
def test_hash_keys_of_the_inbound_request(library: str, three: list[Upstream]) -> None:
    """The session, a cookie or a header of the request that is being served decides, and no other."""
    urls = [one.url for one in three]
    for on in ("cookie:user", "inbound-header:x-user", "session"):
        with (
            pools_over(library, urls, balancer="ring_hash", hash={"on": [on]}) as pools,
            pools.client() as client,
        ):

            def ports(client: Any = client) -> set[int]:
                return {client.get("http://catalog/").json()["port"] for _ in range(2)}

            found = []
            for n in range(40):
                user = f"u{n}"
                token = current.set(OfUser(user))
                found.append(ports())
                current.reset(token)
            assert all(len(one) == 1 for one in found)
            assert len(set.union(*found)) == 3
            assert len(set.union(*(ports() for _ in range(20)))) == 3  # no request is served: anywhere


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@both
def test_a_forked_child_has_connections_of_its_own(library: str) -> None:
    """As under gunicorn --preload: parent and child use one client, and neither disturbs the other."""
    with upstream() as one, pools_over(library, [one.url]) as pools, pools.client() as client:
        assert client.get("http://catalog/").status_code == 200
        accepted = one.seen()["accepted"]
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            status = 1
            try:
                if client.get("http://catalog/child").status_code == 200 and in_flight(pools) == 0:
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert client.get("http://catalog/parent").status_code == 200
        seen = one.seen()
        assert (seen["GET /child"], seen["GET /parent"]) == (1, 1)
        assert seen["accepted"] == accepted + 2  # the child's, and that of the counters themselves


def test_pools_in_mounts(three: list[Upstream]) -> None:
    """The transport also works as one of a client's mounts."""
    with pools_over("httpx", [three[0].url]) as pools, PoolTransport(pools) as transport:
        assert isinstance(transport, httpx.BaseTransport)
        with httpx.Client(mounts={"http://catalog": transport}) as client:
            assert client.get("http://catalog/").json()["port"] == three[0].port
