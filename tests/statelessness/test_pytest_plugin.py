"""The pytest plugin, in test suites as users have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
import sqlite3
from flask import Flask, jsonify, session
app = Flask(__name__)
app.secret_key = "the same for all"
CART = []
@app.post("/add/<item>")
def add(item):
    CART.append(item)
    return jsonify(CART)
@app.get("/cart")
def cart():
    return jsonify(CART)
@app.post("/mine/<item>")
def mine(item):
    session["cart"] = [*session.get("cart", []), item]
    return jsonify(session["cart"])
@app.get("/broken")
def broken():
    raise KeyError("no")
"""
FLASK_TESTS = """
import pytest
from shop import app
app.testing = True

def test_session():
    client = app.test_client()
    client.post("/mine/tea")
    assert client.post("/mine/milk").json == ["tea", "milk"]

def test_with():
    with app.test_client() as client:
        client.post("/mine/tea")
        from flask import session
        assert session["cart"] == ["tea"]

def test_raises():
    with pytest.raises(KeyError):
        app.test_client().get("/broken")

def test_cart():
    client = app.test_client()
    client.post("/add/tea")
    assert "tea" in client.get("/cart").json
"""
ASGI = """
from fastapi import FastAPI, Request
app = FastAPI()
SEEN = []
@app.post("/see/{name}")
def see(name: str):
    SEEN.append(name)
    return {"seen": SEEN}
@app.get("/seen")
def seen():
    return SEEN
@app.get("/echo")
def echo(request: Request):
    return {"agent": request.headers["user-agent"]}
"""
ASGI_TESTS = """
from fastapi.testclient import TestClient
from shop import app

def test_echo():
    answer = TestClient(app).get("/echo")
    assert answer.status_code == 200
    assert answer.json() == {"agent": "testclient"}

def test_with():
    with TestClient(app) as client:
        client.post("/see/a")
        assert "a" in client.get("/seen").json()

def test_seen():
    client = TestClient(app)
    client.post("/see/b")
    assert "b" in client.get("/seen").json()
"""


def run(tmp_path: Path, shop: str, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "shop.py").write_text(shop)
    (tmp_path / "test_shop.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)


def test_without_an_option_nothing_changes(tmp_path: Path) -> None:
    done = run(tmp_path, SHOP, FLASK_TESTS)
    assert done.returncode == 0, done.stdout
    assert "statelessness" not in done.stdout


def test_amnesia_for_flask(tmp_path: Path) -> None:
    done = run(tmp_path, SHOP, FLASK_TESTS, "--stateless-amnesia")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 3 passed" in done.stdout
    assert "FAILED test_shop.py::test_cart" in done.stdout
    assert "5 requests were served by forks that forgot everything afterwards." in done.stdout
    assert "1 could not be isolated, and were served by the test's process: in `with client:`." in done.stdout
    assert "relies on what a replica remembers" in done.stdout


def test_amnesia_for_starlette(tmp_path: Path) -> None:
    done = run(tmp_path, ASGI, ASGI_TESTS, "--stateless-amnesia")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 2 passed" in done.stdout
    assert "FAILED test_shop.py::test_seen" in done.stdout
    assert "3 requests were served by forks that forgot everything afterwards." in done.stdout
    assert "2 could not be isolated, and were served by the test's process: in `with client:`." in done.stdout


IN_MEMORY = """
import sqlite3
from flask import Flask, jsonify
app = Flask(__name__)
database = sqlite3.connect(":memory:")
database.execute("create table notes (text)")
@app.post("/add/<text>")
def add(text):
    database.execute("insert into notes values (?)", [text])
    return "", 204
@app.get("/notes")
def notes():
    return jsonify(database.execute("select text from notes").fetchall())
"""
IN_MEMORY_TESTS = """
from shop import app
def test_notes():
    client = app.test_client()
    client.post("/add/a")
    assert client.get("/notes").json == [["a"]]
"""


def test_a_database_in_memory_is_flagged_with_the_fix(tmp_path: Path) -> None:
    done = run(tmp_path, IN_MEMORY, IN_MEMORY_TESTS, "--stateless-amnesia")
    assert done.returncode == 1
    assert 'in tests give it a file, such as f"sqlite:///{tmp_path}/test.db"' in done.stdout


@pytest.mark.parametrize(("shop", "tests", "leak"), [(SHOP, FLASK_TESTS, "CART"), (ASGI, ASGI_TESTS, "SEEN")])
def test_recorded_requests_are_replayed_over_replicas(tmp_path: Path, shop: str, tests: str, leak: str) -> None:
    done = run(tmp_path, shop, tests, "--stateless-replicas=2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "failed" not in done.stdout
    assert f"suspect: shop:{leak} (shop.py:" in done.stdout
    assert "were replayed over 2 replicas: " in done.stdout


def test_a_stateless_suite_passes_both(tmp_path: Path) -> None:
    tests = FLASK_TESTS.partition("def test_with")[0]
    for option in ("--stateless-amnesia", "--stateless-replicas=2"):
        done = run(tmp_path, SHOP, tests, option)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "2 requests of 1 tests were replayed over 2 replicas: no counter-example." in done.stdout


FACTORY_TESTS = FLASK_TESTS.replace("from shop import app", "from shop import create_app\napp = create_app()")
FACTORY = SHOP.replace("app = Flask", "def create_app():\n    return app\napp = Flask")


def test_an_app_that_can_not_be_found_is_named_by_an_option(tmp_path: Path) -> None:
    hidden = SHOP.replace("app = Flask(__name__)", "apps = [Flask(__name__)]").replace("@app.", "@apps[0].")
    hidden = hidden.replace("app.secret_key", "apps[0].secret_key") + "\ndef create_app():\n    return apps[0]\n"
    tests = FACTORY_TESTS.partition("def test_with")[0]
    lost = run(tmp_path, hidden, tests, "--stateless-replicas=2")
    assert lost.returncode == 1
    told = "2 requests of 1 tests were not replayed: their app is no module's variable; name it, or its factory, by"
    assert told in lost.stdout
    named = run(tmp_path, hidden, tests, "--stateless-replicas=2", "--stateless-app", "shop:create_app()")
    assert named.returncode == 0, named.stdout + named.stderr


def test_each_app_is_replayed_by_what_it_was_asked(tmp_path: Path) -> None:
    """Two of modules, and one that no module has, which is told."""
    shop = SHOP + "\nother = Flask('other')\nother.get('/other')(lambda: 'other')\n"
    tests = (
        FLASK_TESTS.partition("def test_with")[0]
        + """
from flask import Flask
from shop import other
def test_other():
    assert other.test_client().get("/other").text == "other"
def test_hidden():
    hidden = Flask("hidden")
    hidden.get("/hidden")(lambda: "hidden")
    assert hidden.test_client().get("/hidden").text == "hidden"
"""
    )
    done = run(tmp_path, shop, tests, "--stateless-replicas=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 requests of 1 tests were replayed over 2 replicas: no counter-example." in done.stdout
    assert "1 requests of 1 tests were replayed over 2 replicas: no counter-example." in done.stdout
    assert "1 requests of 1 tests were not replayed" in done.stdout


@pytest.mark.parametrize("options", [["--stateless-replicas=1"], ["--stateless-replicas=2", "--stateless-amnesia"]])
def test_options_that_can_not_be_meant(tmp_path: Path, options: list[str]) -> None:
    done = run(tmp_path, SHOP, FLASK_TESTS, *options)
    assert done.returncode == 4
    assert "--stateless-" in done.stderr


def test_an_app_that_can_not_be_imported_leaves_no_socket_open(tmp_path: Path) -> None:
    """In a suite that takes warnings for errors, too."""
    options = "--stateless-replicas=2", "--stateless-app", "nowhere:app", "-W", "error"
    done = run(tmp_path, SHOP, FLASK_TESTS.partition("def test_with")[0], *options)
    assert done.returncode == 1
    assert "nowhere:app: can't import nowhere: no module nowhere" in done.stdout
    assert "ResourceWarning" not in done.stdout + done.stderr


def test_an_app_is_not_looked_for_in_modules_of_tests(tmp_path: Path) -> None:
    """Which pytest names by the directories that they lie in."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    (tmp_path / "a-b").mkdir()
    (tmp_path / "a-b" / "test_more.py").write_text(FLASK_TESTS.partition("def test_with")[0])
    done = run(tmp_path, SHOP, "from shop import app", "--stateless-replicas=2")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_request_at_all(tmp_path: Path) -> None:
    done = run(tmp_path, SHOP, "def test_one(): pass", "--stateless-replicas=2")
    assert done.returncode == 0
    assert "No test made a request" in done.stdout
