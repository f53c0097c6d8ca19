"""`unsticky check` as a person calls it: what it prints, its exit status, and what it says of apps in trouble."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.waiting import eventually

LEAKY = """
from flask import Flask, jsonify
app = Flask(__name__)
CART = {}
@app.post("/add/<item>")
def add(item):
    CART[item] = 1
    return jsonify(CART)
@app.get("/cart")
def cart():
    return jsonify(CART)
"""
CLEAN = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
app = Starlette(routes=[Route("/cart", lambda request: PlainTextResponse("empty"))])
"""
SCRIPT = 'SCRIPT = [("POST", "/add/tea"), ("GET", "/cart")]'
READ = 'SCRIPT = [("GET", "/cart")]'


def run(tmp_path: Path, *arguments: str, app: str = CLEAN, script: str = READ) -> subprocess.CompletedProcess[str]:
    (tmp_path / "shop.py").write_text(app)
    (tmp_path / "flows.py").write_text(script)
    command = [sys.executable, "-m", "unsticky", "check", *(arguments or ("shop:app", "--script", "flows.py"))]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)


def test_a_leak_is_told_with_its_place_and_a_remedy(tmp_path: Path) -> None:
    done = run(tmp_path, app=LEAKY, script=SCRIPT)
    assert done.returncode == 1, done.stderr
    assert "PROVEN 1: GET /cart depends on which replica answers" in done.stdout
    assert "suspect: shop:CART (shop.py:4), changed by request 1" in done.stdout
    assert "remedy:  move it to the session or to a shared store" in done.stdout
    assert "NOT STATELESS: 1 request proven to depend on the replica." in done.stdout


def test_no_counter_example(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("No counter-example in 1 request x 2 schedules (amnesia, broadcast).\n")


def test_the_report_for_machines(tmp_path: Path) -> None:
    done = run(tmp_path, "shop:app", "--script", "flows.py", "--json", "-", app=LEAKY, script=SCRIPT)
    report = json.loads(done.stdout)
    assert report["proven"] == 1
    assert report["findings"][0]["verdict"] == "PROVEN"
    assert report["findings"][0]["suspects"][0]["name"] == "shop:CART"
    run(tmp_path, "shop:app", "--script", "flows.py", "--json", "out.json", app=LEAKY, script=SCRIPT)
    assert json.loads((tmp_path / "out.json").read_text())["proven"] == 1


def test_what_is_allowed_or_ignored(tmp_path: Path) -> None:
    done = run(tmp_path, "shop:app", "--script", "flows.py", "--ignore", "*body*", app=LEAKY, script=SCRIPT)
    assert done.returncode == 0, done.stdout


WRITE_BEHIND = """
from flask import Flask
app = Flask(__name__)
BUFFER = []
@app.get("/cart")
def cart():
    BUFFER.append(1)
    return "empty"
"""


def test_a_suspect_fails_with_strict_only(tmp_path: Path) -> None:
    done = run(tmp_path, app=WRITE_BEHIND)
    assert done.returncode == 0
    assert "SUSPECT: shop:BUFFER" in done.stdout
    assert run(tmp_path, "shop:app", "--script", "flows.py", "--strict", app=WRITE_BEHIND).returncode == 1
    allowed = run(tmp_path, "shop:app", "--script", "flows.py", "--strict", "--allow", "shop:BUFF*", app=WRITE_BEHIND)
    assert allowed.returncode == 0


FACTORY = CLEAN.replace("app = ", "def create_app():\n    return ")


def test_what_the_settings_declare_counts_as_well(tmp_path: Path) -> None:
    """What the guard leaves alone is no suspect here either; and settings that are wrong are said."""
    buffer = 'from flask import Flask\napp = Flask(__name__)\nBUFFER = []\n@app.post("/log")\ndef log():\n'
    app = buffer + "    BUFFER.append(1)\n    return 'ok'\n"
    script = 'SCRIPT = [("POST", "/log"), ("POST", "/log"), ("POST", "/log")]'
    arguments = ("shop:app", "--script", "flows.py", "--strict")
    assert run(tmp_path, *arguments, app=app, script=script).returncode == 1
    (tmp_path / "unsticky.toml").write_text('[statelessness]\nallow = ["shop:BUFFER"]\n')
    done = run(tmp_path, *arguments, app=app, script=script)
    assert done.returncode == 0, done.stdout
    (tmp_path / "unsticky.toml").write_text("[statelessness]\nalow = []\n")
    done = run(tmp_path, *arguments, app=app, script=script)
    assert done.returncode == 2
    assert 'did you mean "allow"' in done.stderr


def test_a_factory(tmp_path: Path) -> None:
    done = run(tmp_path, "shop:create_app()", "--script", "flows.py", app=FACTORY)
    assert done.returncode == 0, done.stderr


FASTAPI = """
from fastapi import FastAPI
app = FastAPI()
ITEMS = []
@app.post("/items")
def add(item: dict):
    ITEMS.append(item)
@app.get("/items")
def read():
    return ITEMS
"""


def test_the_apps_own_openapi_document(tmp_path: Path) -> None:
    done = run(tmp_path, "shop:app", "--script", "openapi", app=FASTAPI)
    assert done.returncode == 1, done.stderr
    assert "PROVEN 1: GET /items" in done.stdout


DATABASE = """
import sqlite3
from flask import Flask, jsonify
app = Flask(__name__)
def reset():
    with sqlite3.connect("shared/notes.db") as connection:
        connection.execute("drop table if exists notes")
        connection.execute("create table notes (text)")
@app.post("/add/<text>")
def add(text):
    with sqlite3.connect("shared/notes.db") as connection:
        connection.execute("insert into notes values (?)", [text])
    return "", 201
@app.get("/cart")
def read():
    return jsonify(sqlite3.connect("shared/notes.db").execute("select * from notes").fetchall())
"""


def test_a_database_that_is_shared_and_reset(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    given = ["shop:app", "--script", "flows.py", "--reset", "shop:reset"]
    done = run(tmp_path, *given, "--shared", "shared", app=DATABASE, script=SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    local = run(tmp_path, *given, app=DATABASE, script=SCRIPT)
    assert local.returncode == 1
    assert "notes.db, a local file, written by request 1" in local.stdout


THREADED = """
import threading, time
from flask import Flask
app = Flask(__name__)
hits = 0
threading.Thread(target=time.sleep, args=(60,), daemon=True, name="refresher").start()
@app.get("/cart")
def cart():
    global hits
    hits += 1
    return str(hits)
"""


def test_threads_that_a_fork_would_lose(tmp_path: Path) -> None:
    done = run(tmp_path, app=THREADED, script='SCRIPT = [("GET", "/cart"), ("GET", "/cart")]')
    assert done.returncode == 1
    assert "note: importing the app started threads (refresher)" in done.stdout
    assert "schedules (rotate, broadcast)" in done.stdout


CRASHING = CLEAN.replace("lambda request: PlainTextResponse", "lambda request: __import__('os')._exit(3) or Plain")
HANGING = "def app(environ, start_response):\n    __import__('time').sleep(60)"
FAILING = "def app(environ, start_response):\n    raise RuntimeError('no')"
NO_STARTUP = """
from contextlib import asynccontextmanager
from starlette.applications import Starlette
@asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no database")
    yield
app = Starlette(lifespan=lifespan)
"""


@pytest.mark.parametrize(
    ("arguments", "app", "told"),
    [
        ("nowhere:app --script flows.py", CLEAN, "can't import nowhere: no module nowhere in "),
        ("shop --script flows.py", CLEAN, "'shop' names no app; expected module:attribute"),
        ("shop:application --script flows.py", CLEAN, "shop has no application, but app"),
        ("shop:app --script flows.py", "import math, nothing_there", "no module nothing_there"),
        ("shop:app --script flows.py", "1 / 0", "ZeroDivisionError: division by zero (/"),
        ("shop:app --script flows.py", "app = 5", "the app is a int, which can't be called"),
        ("shop:app --script flows.py", "raise SystemExit(4)", "can't import shop: SystemExit: 4"),
        ("shop:app --script flows.py", "__import__('os')._exit(3)", "the interpreter ended while importing it"),
        ("shop:app --script nothing.py", CLEAN, "nothing.py: no such file"),
        ("shop:app --script openapi", CLEAN, "openapi: the app has no OpenAPI document"),
        ("shop:app --script flows.py", CRASHING, "GET /cart: the replica died"),
        ("shop:app --script flows.py --timeout 0.5", HANGING, "GET /cart: no answer within 0.5 s"),
        ("shop:app --script flows.py", FAILING, "GET /cart: the app raised RuntimeError"),
        ("shop:app --script flows.py", NO_STARTUP, "the app's start-up failed"),
        ("shop:app --script flows.py", CLEAN.replace("/cart", "/other"), "the app knows none of the script's requests"),
        ("shop:app --script flows.py --reset shop:nothing", CLEAN, "--reset shop:nothing"),
    ],
)
def test_what_can_not_be_checked_is_said_with_exit_status_2(
    tmp_path: Path, arguments: str, app: str, told: str
) -> None:
    done = run(tmp_path, *arguments.split(), app=app)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr
    assert done.stderr.startswith("unsticky check: ")
    assert leftovers(tmp_path) == []


def leftovers(tmp_path: Path) -> list[str]:
    """Processes that still run in the directory."""
    found = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and os.readlink(f"{entry.path}/cwd") == str(tmp_path):
                found.append(Path(f"{entry.path}/cmdline").read_text())
        except OSError:
            continue
    return found


SLOW = CLEAN.replace("lambda request:", "lambda request: __import__('time').sleep(0.3) or")


@pytest.mark.parametrize("given", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind_when_it_is_interrupted(tmp_path: Path, given: signal.Signals) -> None:
    (tmp_path / "shop.py").write_text(SLOW)
    (tmp_path / "flows.py").write_text("SCRIPT = [('GET', '/cart')] * 100")
    command = [sys.executable, "-m", "unsticky", "check", "shop:app", "--script", "flows.py"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    eventually(lambda: len(leftovers(tmp_path)) > 3)  # boots and a replica
    time.sleep(0.5)
    process.send_signal(given)
    assert process.wait(30) == (130 if given is signal.SIGINT else -9)
    eventually(lambda: leftovers(tmp_path) == [])
