"""The example shops, really served: two replicas of each, used as a browser would."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from stage.servers import (
    EXAMPLES,
    Server,
    Servers,
    clean_environment,
    shop_settings,
    start_catalogs,
    start_flask,
    start_starlette,
)

SHOPS: dict[str, Callable[..., list[Server]]] = {"flask": start_flask, "starlette": start_starlette}


@dataclass
class Shop:
    """Two replicas and their upstream."""

    first: str
    second: str
    catalogs: list[Server]


@contextmanager
def serving(kind: str, folder: Path, *, catalogs: int) -> Generator[Shop]:
    environ = clean_environment("")  # no collector: no traces
    with Servers(folder, environ) as servers:
        upstream = start_catalogs(servers, catalogs)
        settings = shop_settings(f"sqlite:///{folder / 'sessions.db'}", upstream)
        replicas = SHOPS[kind](servers, 2, **settings)
        for replica in replicas:
            replica.wait("/api/cart")
        yield Shop(*(replica.url for replica in replicas), upstream)


@pytest.fixture(scope="module", params=SHOPS)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:
    with serving(request.param, tmp_path_factory.mktemp(request.param), catalogs=2) as started:
        yield started


@pytest.fixture
def browser() -> Generator[httpx.Client]:
    """Cookies know no port, so that both replicas get them, as behind one address."""
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


def test_a_visit_over_two_replicas(shop: Shop, browser: httpx.Client) -> None:
    """Cart, login, checkout and logout, each request on the other replica than the one before."""
    page = browser.get(shop.first + "/")
    assert "Cast iron pot" in page.text
    assert "It is empty." in page.text
    for replica in (shop.second, shop.first):
        answer = browser.post(replica + "/cart", data={"sku": "tea"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "2 &times; tea" in browser.get(shop.second + "/").text

    before = browser.cookies["session"]
    browser.post(shop.first + "/login", data={"user": "<Ada>"})
    assert browser.cookies["session"] != before
    page = browser.get(shop.second + "/")
    assert "Welcome, &lt;Ada&gt;." in page.text
    assert "2 &times; tea" in page.text
    assert "Welcome" not in browser.get(shop.first + "/").text

    browser.post(shop.second + "/checkout")
    page = browser.get(shop.first + "/")
    assert "You paid 9.00." in page.text
    assert "It is empty." in page.text

    stolen = browser.cookies["session"]
    browser.post(shop.first + "/logout")
    assert "session" not in browser.cookies
    for replica in (shop.first, shop.second):
        replayed = httpx.get(replica + "/api/cart", headers={"cookie": f"session={stolen}"}, trust_env=False)
        assert replayed.json()["user"] is None


def test_prices_come_from_every_endpoint(shop: Shop, browser: httpx.Client) -> None:
    """The pages are made with prices of both endpoints of the pool, by both replicas."""
    pages = [browser.get(replica + "/") for replica in (shop.first, shop.second) for _ in range(4)]
    for catalog in shop.catalogs:
        assert any(f"on port {catalog.url.rpartition(':')[2]}." in page.text for page in pages)
    assert len({page.headers["x-replica"] for page in pages}) == 2


def test_the_cart_as_json(shop: Shop, browser: httpx.Client) -> None:
    """What the demo's shoppers use: set a quantity, read the cart with its prices."""
    browser.put(shop.first + "/api/cart/tea", json={"quantity": 3})
    assert browser.put(shop.second + "/api/cart/cup", json={"quantity": 1}).json() == {"tea": 3, "cup": 1}
    assert browser.get(shop.first + "/api/cart").json() == {
        "cart": {"tea": 3, "cup": 1},
        "prices": {"tea": 4.5, "cup": 12.0},
        "total": 25.5,
        "user": None,
    }


def test_a_visitor_who_does_nothing_gets_no_cookie(shop: Shop, browser: httpx.Client) -> None:
    """Looking sets no cookie; that the page depends on it is said to caches."""
    page = browser.get(shop.first + "/")
    assert "set-cookie" not in page.headers
    assert page.headers["vary"] == "Cookie"


@pytest.mark.parametrize("kind", SHOPS)
def test_a_dead_catalog(kind: str, tmp_path: Path, browser: httpx.Client) -> None:
    """With one endpoint gone nobody notices; with all gone pages say so, and carts are kept."""
    with serving(kind, tmp_path, catalogs=2) as shop:
        browser.put(shop.first + "/api/cart/tea", json={"quantity": 2})
        shop.catalogs[0].kill()
        assert [browser.get(shop.first + "/").status_code for _ in range(6)] == [200] * 6
        shop.catalogs[1].kill()
        page = browser.get(shop.second + "/")
        assert (page.status_code, page.text) == (
            503,
            "The prices are not available for the moment. Your cart is safe.\n",
        )
        assert browser.put(shop.second + "/api/cart/cup", json={"quantity": 1}).json() == {"tea": 2, "cup": 1}


@pytest.mark.parametrize("kind", SHOPS)
def test_the_settings_of_the_examples(kind: str) -> None:
    """Each example's unsticky.toml is right."""
    command = [sys.executable, "-m", "unsticky", "settings", "check", f"{kind}_app/unsticky.toml"]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pool catalog: 3 endpoints, round_robin, 3 attempts, timeout 3s, health /healthz" in done.stdout


FLOWS = """
SCRIPT = [
    ("PUT", "/api/cart/tea", {"json": {"quantity": 2}}),
    ("GET", "/api/cart"),
    ("POST", "/login", {"form": {"user": "ann"}}),
    ("GET", "/"),
    ("POST", "/checkout"),
    ("GET", "/"),
    ("POST", "/logout"),
    ("GET", "/api/cart"),
]
"""
SESSIONS = {"flask": "session", "starlette": "request.session"}


def check(kind: str, folder: Path, catalog: str) -> subprocess.CompletedProcess[str]:
    """`unsticky check` of the shop in `folder`, over an upstream that runs."""
    (folder / "flows.py").write_text(FLOWS)
    settings = {"UNSTICKY_POOLS__CATALOG__ENDPOINTS": f'["{catalog}"]', "UNSTICKY_POOLS__CATALOG__HEALTH__PATH": "/"}
    settings["REPLICA"] = "one of the shop's"  # the pages name it; else they would differ, and rightly be found
    command = [
        sys.executable,
        "-m",
        "unsticky",
        "check",
        "app:app",
        "--script",
        "flows.py",
        "--ignore",
        "header x-replica",
    ]
    return subprocess.run(
        command, cwd=folder, env={**clean_environment(""), **settings}, capture_output=True, text=True
    )


@pytest.mark.parametrize("kind", SHOPS)
def test_the_shop_keeps_nothing_to_itself_and_a_leaky_one_is_caught(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(EXAMPLES / f"{kind}_app", folder)
    with Servers(tmp_path, clean_environment("")) as servers:
        catalog = start_catalogs(servers, 1)[0]
        clean = check(kind, folder, catalog.url)
        assert clean.returncode == 0, clean.stdout + clean.stderr
        source = (folder / "app.py").read_text()
        for verb in ("get", "setdefault"):
            used = f'{SESSIONS[kind]}.{verb}("cart", {{}})'
            assert used in source
            source = source.replace(used, "CARTS")
        (folder / "app.py").write_text(f"{source}\n\nCARTS: dict[str, int] = {{}}\n")
        caught = check(kind, folder, catalog.url)
        assert caught.returncode == 1, caught.stdout + caught.stderr
        assert "suspect: app:CARTS (app.py:" in caught.stdout
