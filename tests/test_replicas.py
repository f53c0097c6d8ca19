"""Two replicas of a real app on one store: any of them serves any request, and none undoes what another did."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from support.replicas import replicas
from support.valkey import Valkey, valkey  # noqa: F401 - a fixture
from support.waiting import eventually


@pytest.fixture(scope="module", params=["sqlite", "valkey"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('store')}/sessions.db"
    server: Valkey = request.getfixturevalue("valkey")
    return server.url


@pytest.fixture(scope="module", params=["flask", "starlette"])
def urls(request: pytest.FixtureRequest, store: str) -> Iterator[list[str]]:
    with replicas(request.param, store) as urls:
        yield urls


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as browser:
        yield browser


def test_any_replica_serves_any_request(urls: list[str], browser: httpx.Client) -> None:
    """A session begun on one is read and changed on the other."""
    processes = set()
    for number, url in zip(range(10), cycle(urls), strict=False):
        processes.add(browser.get(f"{url}/write/key{number}").json()["pid"])
    answer = browser.get(f"{urls[1]}/read").json()
    assert answer["data"] == {f"key{number}": 1 for number in range(10)}
    assert len(processes) >= 2


def test_parallel_writes_over_two_processes_all_survive(urls: list[str], browser: httpx.Client) -> None:
    """Sixteen threads, two replicas, one session, a key each."""
    browser.get(f"{urls[0]}/write/first")
    keys = [f"key{number}" for number in range(96)]

    def write(number: int) -> int:
        return browser.get(f"{urls[number % 2]}/write/{keys[number]}").status_code

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(write, range(len(keys)))) == {200}
    assert set(browser.get(f"{urls[0]}/read").json()["data"]) == {"first", *keys}


@pytest.mark.parametrize("late", ["slow", "write/late"])
def test_a_slow_request_does_not_undo_a_logout(
    urls: list[str], browser: httpx.Client, tmp_path: Path, late: str
) -> None:
    """It began before the logout and ends after it: reader or writer, the session stays ended."""
    browser.get(f"{urls[0]}/write/user")
    stolen = dict(browser.cookies)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(browser.get, f"{urls[1]}/{late}", params={"gate": str(gate)})
        eventually(Path(f"{gate}.reached").exists)
        browser.get(f"{urls[0]}/logout")
        gate.touch()
        response = slow.result()
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    for url in urls:
        with httpx.Client(cookies=stolen) as thief:
            assert thief.get(f"{url}/read").json()["data"] == {}
