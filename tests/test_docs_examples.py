"""The examples of docs/routing.md: they run, and print what they say that they print."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from pytest_httpx import HTTPXMock

from support.ports import free_port
from support.upstream import Upstream, upstreams
from unsticky import Pools
from unsticky.discoverers import Endpoint
from unsticky.discoverers.file import parsed

PAGE = (Path(__file__).parents[1] / "docs" / "routing.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTINGS = "unsticky.toml"


def block(having: str, language: str = "python") -> str:
    """The first block of the page with this text."""
    return next(body for name, body in FENCE.findall(PAGE) if name == language and having in body)


def on(ports: list[int], text: str) -> str:
    for port, other in zip(("9001", "9002"), ports, strict=True):
        text = text.replace(port, str(other))
    return text


def run(code: str, **names: Any) -> str:
    """What it prints."""
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "routing.md", "exec"), names)
    return printed.getvalue()


def comments(code: str) -> str:
    """What it says that it prints, in the comments that stand alone."""
    return " ".join(re.findall(r"^ +# +(.+)$", code, re.MULTILINE))


def alike(text: str) -> str:
    """Without what differs from run to run: endpoints, and times."""
    text = re.sub(r"127\.0\.0\.1:\d+", "ENDPOINT", " ".join(text.split()))
    return re.sub(r"\b(0\.\d+|\d+\.\d(?= s\b))", "SECONDS", text)


def says(code: str, printed: str) -> bool:
    return bool(comments(code)) and alike(comments(code)) in alike(printed)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Upstream]]:
    """The endpoints of the page's first settings, and these as the current directory's."""
    monkeypatch.chdir(tmp_path)
    with upstreams(2) as made:
        Path(SETTINGS).write_text(on([one.port for one in made], block("timeout", "toml")), "utf-8")
        yield made


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same settings, but nobody listens."""
    monkeypatch.chdir(tmp_path)
    Path(SETTINGS).write_text(on([free_port(), free_port()], block("timeout", "toml")), "utf-8")


def test_the_first_example(two: list[Upstream]) -> None:
    """Without a web app; the README's test has those."""
    code = block("pools.client() as client")
    assert says(code, run(code))


def test_a_client_of_ones_own(two: list[Upstream]) -> None:
    """As its transport, and mounted."""
    run(block("transport=PoolTransport(pools)"))
    assert sum(one.seen().get("GET /items", 0) for one in two) == 2


def test_requests(two: list[Upstream]) -> None:
    """A call, and one with options."""
    code = block("PoolAdapter(pools)")
    assert says(code, run(code))
    assert sum(one.seen().get("GET /items", 0) for one in two) == 2


def test_one_call(two: list[Upstream]) -> None:
    """All of its options are known."""
    with Pools.from_settings(SETTINGS) as pools, pools.client() as client:
        run(block("extensions={"), client=client)


def test_draining(two: list[Upstream]) -> None:
    """The endpoint that it names gets no calls."""
    with Pools.from_settings(SETTINGS) as pools, pools.client() as client:
        run(on([one.port for one in two], block("pools.drain")), pools=pools)
        assert {client.get("http://catalog/").json()["port"] for _ in range(10)} == {two[1].port}


def test_explaining(two: list[Upstream]) -> None:
    """One that refused five times is ejected, and the other gets all calls."""
    min(two, key=lambda one: one.address).kill()
    code = block("pools.explain")
    with Pools.from_settings(SETTINGS) as pools, pools.client() as client:
        for _ in range(40):
            client.get("http://catalog/")
        assert says(code, run(code, pools=pools))


def test_errors(nobody: None) -> None:
    """All attempts, and each."""
    code = block("except RoutingError")
    with Pools.from_settings(SETTINGS) as pools, pools.client() as client:
        assert says(code, run(code, client=client))


def test_handlers(nobody: None) -> None:
    """What they are told."""
    code = block("@pools.on_error")
    with Pools.from_settings(SETTINGS) as pools, pools.client() as client:
        printed = run(
            code + "\ntry:\n    client.get('http://catalog/')\nexcept Exception: pass\n", pools=pools, client=client
        )
    assert says(code, printed)


def test_across_hops(two: list[Upstream]) -> None:
    """The deadline of the request bounds the call, and the app can read what is left."""
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(on([one.port for one in two], block("unsticky.deadline.remaining()")), "routing.md", "exec"), names)
    client = names["app"].test_client()
    with closing(names["app"].extensions["unsticky"]):
        answer = client.get("/prices").json
        assert answer["status"] == 200
        assert 0 < answer["left"] <= 5
        for one in two:
            one.behave("hang")
        assert client.get("/prices", headers={"grpc-timeout": "200m"}).status_code == 504


def test_a_source_of_ones_own(httpx_mock: HTTPXMock) -> None:
    """It reads what Consul answers."""
    url = "http://127.0.0.1:8500/v1/health/service/catalog?passing=true"
    httpx_mock.add_response(url=url, json=[{"Service": {"Address": "10.0.0.1", "Port": 8000}}])
    names: dict[str, Any] = {}
    exec(compile(block("class Consul"), "routing.md", "exec"), names)
    assert names["catalog"]().discover() == {Endpoint.of("http://10.0.0.1:8000")}


def test_a_test_of_ones_own(httpx_mock: HTTPXMock) -> None:
    """It passes."""
    names: dict[str, Any] = {"Pools": Pools}
    exec(compile(block("def test_prices"), "routing.md", "exec"), names)
    names["test_prices"](httpx_mock)


def test_a_list_of_endpoints() -> None:
    """The file that a discovery reads."""
    found = parsed(block("endpoints = [", "").encode(), as_json=False)
    assert {(one.url, one.weight, one.priority) for one in found} == {
        ("http://10.0.0.1:8000", 1, 0), ("http://10.0.0.2:8000", 3, 1),
    }  # fmt: skip


def test_explaining_from_a_terminal(two: list[Upstream]) -> None:
    """The command that is shown prints what is shown, the hash key too, but for the ports."""
    shown = block("unsticky pools explain", "console").splitlines()
    urls = [*(one.url for one in two), f"http://127.0.0.1:{free_port()}"]
    Path(SETTINGS).write_text(
        f"[pools.catalog]\nendpoints = {urls}\nbalancer = 'ring_hash'\nhash.on = ['header:x-tenant', 'path']\n"
        "health.path = '/'\n",
        "utf-8",
    )
    arguments = shown[0].removeprefix("$ unsticky ").split()
    command = [sys.executable, "-m", "unsticky", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(map(alike, done.stdout.splitlines())) == sorted(map(alike, shown[1:]))
