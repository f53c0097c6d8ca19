"""`unsticky check` as a person calls it: what it prints, its exit status, and what it says of apps in trouble."""

from __future__ import annotations

import json
import os
import re
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


def run(
    tmp_path: Path, *arguments: str, app: str = CLEAN, script: str = READ, replicas: str = "2"
) -> subprocess.CompletedProcess[str]:
    """Of two replicas: to boot them takes most of the time."""
    (tmp_path / "shop.py").write_text(app)
    (tmp_path / "flows.py").write_text(script)
    given = *(arguments or ("shop:app", "--script", "flows.py")), "--replicas", replicas
    command = [sys.executable, "-m", "unsticky", "check", *given]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)


def test_a_leak_is_told_with_its_place_and_a_remedy(tmp_path: Path) -> None:
    done = run(tmp_path, app=LEAKY, script=SCRIPT, replicas="3")
    assert done.returncode == 1, done.stderr
    assert "PROVEN 1: GET /cart depends on which replica answers" in done.stdout
    assert "suspect: shop:CART (shop.py:4), changed by request 1; confirmed by putting it back" in done.stdout
    assert "remedy:  move it to the session or to a shared store" in done.stdout
    assert "NOT STATELESS: 1 request proven to depend on the replica." in done.stdout


OPENED_AT_IMPORT = """
import sqlite3
from flask import Flask, jsonify
app = Flask(__name__)
db = sqlite3.connect("data.db", check_same_thread=False)
db.execute("create table if not exists items (name text)")
@app.post("/add/<name>")
def add(name):
    with db:
        db.execute("insert into items values (?)", (name,))
    return "added"
@app.get("/cart")
def cart():
    return jsonify(db.execute("select name from items").fetchall())
"""


def test_a_database_that_was_opened_at_import_is_not_shared_by_forks(tmp_path: Path) -> None:
    """Where files can only be swapped, it fails in the control, and nothing is said of the request."""
    done = run(tmp_path, app=OPENED_AT_IMPORT, script=SCRIPT)
    database = tmp_path / "data.db"
    assert f"note: importing the app opened files ({database}), which forks would share: each replica" in done.stdout
    if "mount namespaces" in done.stdout.splitlines()[-2]:
        assert f"suspect: {database}, a local file, written by request 1; confirmed by putting it back" in done.stdout
    else:
        assert "INCONCLUSIVE: 1 of 2 requests not covered" in done.stdout


def test_no_counter_example(tmp_path: Path) -> None:
    done = run(tmp_path, replicas="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("No counter-example in 1 request x 2 schedules (amnesia, broadcast).\n")


TROUBLED = """
import os, signal
from flask import Flask
app = Flask(__name__)
@app.get("/dies")
def dies():
    os.kill(os.getpid(), signal.SIGKILL)
@app.get("/full")
def full():
    return "no", 503
@app.get("/cart")
def cart():
    return "empty"
"""


@pytest.mark.parametrize(("isolation", "strict", "status"), [("auto", (), 0), ("swap", ("--strict",), 1)])
def test_what_is_not_answered_is_not_covered(
    tmp_path: Path, isolation: str, strict: tuple[str, ...], status: int
) -> None:
    script = 'SCRIPT = [("GET", "/dies"), ("GET", "/full"), ("GET", "/cart")]'
    given = ("shop:app", "--script", "flows.py", "--isolate", isolation, *strict)
    done = run(tmp_path, *given, app=TROUBLED, script=script)
    assert done.returncode == status, done.stdout + done.stderr
    assert "INCONCLUSIVE: GET /dies\n  the replica died in the control already; not covered" in done.stdout
    assert "INCONCLUSIVE: GET /full\n  it is 503 in the control already; not covered" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("INCONCLUSIVE: 2 of 3 requests not covered. No counter-example in 1 request x 2 schedules")


def test_the_report_for_machines(tmp_path: Path) -> None:
    done = run(tmp_path, "shop:app", "--script", "flows.py", "--json", "-", app=LEAKY, script=SCRIPT)
    report = json.loads(done.stdout)
    assert report["proven"] == 1
    assert report["findings"][0]["verdict"] == "PROVEN"
    suspect = report["findings"][0]["suspects"][0]
    assert suspect["name"] == "shop:CART"
    assert suspect["confirmed"] is True
    run(tmp_path, "shop:app", "--script", "flows.py", "--json", "out.json", app=LEAKY, script=SCRIPT)
    assert json.loads((tmp_path / "out.json").read_text())["proven"] == 1


INNOCENT = LEAKY.replace("    return jsonify(CART)", "    SEEN.append(item)\n    return jsonify(CART)", 1).replace(
    "CART = {}", "CART = {}\nSEEN = []"
)


def test_only_the_variable_that_makes_the_difference_is_confirmed(tmp_path: Path) -> None:
    """The walk finds two that changed; put back, one makes a single replica answer as two did."""
    done = run(tmp_path, "shop:app", "--script", "flows.py", "--json", "-", app=INNOCENT, script=SCRIPT)
    suspects = json.loads(done.stdout)["findings"][0]["suspects"]
    assert [(one["name"], one["confirmed"]) for one in suspects] == [("shop:CART", True), ("shop:SEEN", False)]


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
    done = run(tmp_path, app=WRITE_BEHIND, replicas="3")
    assert done.returncode == 0
    assert "SUSPECT: shop:BUFFER" in done.stdout
    strict = "shop:app", "--script", "flows.py", "--strict"
    assert run(tmp_path, *strict, app=WRITE_BEHIND, replicas="3").returncode == 1
    assert run(tmp_path, *strict, "--allow", "shop:BUFF*", app=WRITE_BEHIND, replicas="3").returncode == 0


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


# Without a framework: two dozen interpreters import it.
THREADED_WSGI = """
import threading, time
hits = 0
threading.Thread(target=time.sleep, args=(60,), daemon=True, name="refresher").start()
def app(environ, start_response):
    global hits
    hits += 1
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(hits).encode()]
"""


def test_threads_that_a_fork_would_lose(tmp_path: Path) -> None:
    done = run(tmp_path, app=THREADED_WSGI, script='SCRIPT = [("GET", "/cart"), ("GET", "/cart")]')
    assert done.returncode == 1
    assert "note: importing the app started threads (refresher)" in done.stdout
    assert "schedules (rotate, broadcast)" in done.stdout


LIMITED = """
from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
def create_app():
    app = Flask(__name__)
    limiter = Limiter(get_remote_address, app=app)
    @app.get("/cart")
    @limiter.limit("2 per minute")
    def cart():
        return "empty"
    return app
"""


def test_a_librarys_storage_is_named_with_its_setting(tmp_path: Path) -> None:
    """Its timers, which fire at once, are no threads that a fork would lose."""
    options = "shop:create_app()", "--script", "flows.py"
    done = run(tmp_path, *options, app=LIMITED, script='SCRIPT = [("GET", "/cart")] * 3')
    assert done.returncode == 1, done.stderr
    assert re.search(r"  suspect: .*\._storage\.storage\['LIMITER/.*; confirmed by putting it back\n", done.stdout)
    assert 'set RATELIMIT_STORAGE_URI (or storage_uri=) to "redis://..."' in done.stdout
    assert "error_handler_spec" not in done.stdout
    assert "note: " not in done.stdout


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
        ("shop:application --script flows.py", CLEAN, "shop (shop.py) has no application; did you mean shop:app?"),
        ("shop:create_app --script flows.py", FACTORY, "a factory is named by shop:create_app()"),
        ("shop:app --script flows.py", FACTORY, "shop (shop.py) has no app; did you mean shop:create_app()?"),
        ("shop:nope --script flows.py", "x = 1", "shop (shop.py) has no nope; which variable holds the app?"),
        ("./shop.py:app --script flows.py", CLEAN, "'./shop.py' is a file; expected module:attribute"),
        ("./shop.py:app --script flows.py", CLEAN, "unsticky check shop:app\n"),
        ("src/shop.py:app --script flows.py", CLEAN, "unsticky check shop:app, in src\n"),
        ("shop:app --script flows.py", "import math, nothing_there", "no module nothing_there"),
        ("shop:app --script flows.py", "1 / 0", "ZeroDivisionError: division by zero (/"),
        ("shop:app --script flows.py", "app = 5", "the app is an int, which can't be called"),
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
        ("shop:app() --script flows.py", CLEAN, "shop:app() is an app, and no factory: name it by shop:app\n"),
        ("shop:app --script flows.py --json no/where.json", CLEAN, "No such file or directory: 'no/where.json'"),
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


def test_a_report_for_machines_is_there_also_if_the_check_could_not_be_done(tmp_path: Path) -> None:
    """An older one does not stay where it was; `-` has nothing but the report."""
    (tmp_path / "report.json").write_text('{"proven": 0}')
    run(tmp_path, "shop:app", "--script", "flows.py", "--json", "report.json", app="1 / 0")
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["error"].startswith("can't import shop: ZeroDivisionError")
    assert told.keys() == {"version", "app", "error"}
    done = run(tmp_path, "shop:app", "--script", "flows.py", "--json", "-", app="1 / 0")
    assert json.loads(done.stdout) == told


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


WRITING = """
import os, time
from flask import Flask
app = Flask(__name__)
@app.get("/cart")
def cart():
    with open("notes.txt", "w") as file:
        file.write("half")
        file.flush()
        {then}
"""


@pytest.mark.parametrize("then", ["os._exit(3)", "time.sleep(60)", "pass"])
@pytest.mark.parametrize("isolation", ["ns", "swap"])
def test_no_file_is_lost_whatever_the_app_does(tmp_path: Path, isolation: str, then: str) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    arguments = ["shop:app", "--script", "flows.py", "--isolate", isolation, "--timeout", "1"]
    run(tmp_path, *arguments, app=WRITING.format(then=then))
    assert (tmp_path / "notes.txt").read_text() == "precious"


RANDOM = """
import random
from flask import Flask, jsonify
app = Flask(__name__)
@app.get("/cart")
def cart():
    return jsonify(points=[random.randint(0, 99) for _ in range(100)], coin=random.choice("ab"))
"""


def test_random_numbers_of_a_few_values_are_no_proof(tmp_path: Path) -> None:
    for _ in range(3):
        done = run(tmp_path, app=RANDOM, script="SCRIPT = [('GET', '/cart')] * 6")
        assert done.returncode == 0, done.stdout


TOKENS = """
from flask import Flask, jsonify, request
app = Flask(__name__)
@app.get("/")
def home():
    return "home"
@app.post("/token")
def token():
    return jsonify(token="ann")
@app.get("/me")
def me():
    return request.headers["authorization"]
"""
ASKING = """
SCRIPT = [
    ("GET", "/"),
    ("POST", "/token"),
    ("GET", "/me", lambda seen: {"headers": {"authorization": seen[1].json()["token"]}}),
    ("GET", "/me", lambda seen: {"headers": {"authorization": seen[-1].text}}),
    ("GET", "/me", lambda seen: {"headers": {"authorization": seen[-1].headers["Content-Type"] + str(len(seen))}}),
]
"""


def test_responses_are_counted_by_the_script_in_each_schedule(tmp_path: Path) -> None:
    done = run(tmp_path, app=TOKENS, script=ASKING)
    assert done.returncode == 0, done.stdout + done.stderr


ONE_TIME = """
from flask import Flask, jsonify
app = Flask(__name__)
USERS = set()
@app.post("/login")
def login():
    USERS.add("ann")
    return jsonify(ok=True)
@app.get("/me")
def me():
    return jsonify(id=7) if USERS else ("who?", 401)
@app.get("/item/<int:number>")
def item(number):
    return str(number)
"""
USING = """
SCRIPT = [
    ("POST", "/login"),
    ("GET", "/me"),
    ("GET", "/item/7", lambda seen: {"headers": {"x-id": seen[1].json()["id"]}}),
]
"""


def test_a_request_that_can_not_be_made_any_more_is_a_difference(tmp_path: Path) -> None:
    done = run(tmp_path, app=ONE_TIME, script=USING)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "PROVEN 1: GET /me" in done.stdout


LATE = """
import threading, time
from pathlib import Path
from flask import Flask
app = Flask(__name__)
def work():
    time.sleep(0.3)
    Path("shared/done.txt").write_text("done")
@app.post("/start")
def start():
    threading.Thread(target=work).start()
    return "", 202
@app.post("/slow")
def slow():
    time.sleep(1)
    return "slow"
@app.get("/done")
def done():
    return Path("shared/done.txt").read_text()
def reset():
    Path("shared/done.txt").write_text("not yet")
"""


def test_work_that_outlives_its_response_is_done_by_every_replica(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    arguments = ["shop:app", "--script", "flows.py", "--shared", "shared", "--reset", "shop:reset"]
    done = run(
        tmp_path, *arguments, app=LATE, script="SCRIPT = [('POST', '/start'), ('POST', '/slow'), ('GET', '/done')]"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "script", "told"),
    [
        ("--shared nowhere.db", READ, "--shared nowhere.db: no such file or directory"),
        ("", 'SCRIPT = [("POST", "/cart", {"form": 5})]', "POST /cart: its options: TypeError"),
        ("", 'SCRIPT = [("POST", "/cart", {"json": {1, 2}})]', "POST /cart: its options: TypeError"),
        ("", 'SCRIPT = [("GET", "/cart", lambda seen: None)]', "expected a mapping of options, got NoneType"),
        ("", 'SCRIPT = [("GET", "/cart", lambda seen: 1 / 0)]', "its function: ZeroDivisionError"),
        ("", "raise SystemExit", "can't be run: SystemExit"),
        ("--json /nowhere/report.json", READ, "No such file or directory: '/nowhere/report.json'"),
    ],
)
def test_bad_input_is_told_in_a_line(tmp_path: Path, arguments: str, script: str, told: str) -> None:
    done = run(tmp_path, "shop:app", "--script", "flows.py", *arguments.split(), script=script)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf", "soon"])
def test_a_timeout_is_seconds_above_0(tmp_path: Path, seconds: str) -> None:
    assert run(tmp_path, "shop:app", "--script", "flows.py", "--timeout", seconds).returncode == 2


DAEMON = """
import subprocess
from flask import Flask
app = Flask(__name__)
@app.get("/cart")
def cart():
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    return str(subprocess.run(["false"]).returncode)
"""


def test_what_apps_start_ends_with_the_check(tmp_path: Path) -> None:
    assert run(tmp_path, app=DAEMON).returncode == 0
    eventually(lambda: leftovers(tmp_path) == [])


def test_a_subprocess_of_an_app_with_threads_has_its_status(tmp_path: Path) -> None:
    source = f"{THREADED}\n" + DAEMON.partition("app = Flask(__name__)")[2].replace("/cart", "/run").replace(
        "cart()", "run()"
    )
    source = (
        "import subprocess\n"
        + source
        + "\n@app.get('/checked')\ndef checked():\n    return run(), 500 - 300 * (run() == '1')\n"
    )
    done = run(tmp_path, app=source, script='SCRIPT = [("GET", "/checked")]')
    assert "5xx in the control" not in done.stdout, done.stdout + done.stderr


def test_terminated_it_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SLOW)
    (tmp_path / "flows.py").write_text("SCRIPT = [('GET', '/cart')] * 100")
    command = [sys.executable, "-m", "unsticky", "check", "shop:app", "--script", "flows.py"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, env=environment)
    eventually(lambda: len(leftovers(tmp_path)) > 3)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    eventually(lambda: leftovers(tmp_path) == [])
    assert not list(tmp_path.glob("unsticky-check-*"))


ORDERS = """
from uuid import uuid4
from flask import Flask, jsonify
app = Flask(__name__)
ORDERS = {}
@app.post("/orders")
def order():
    made = str(uuid4())
    ORDERS[made] = "tea"
    return jsonify(id=made)
@app.get("/orders/<made>")
def read(made):
    return (ORDERS[made], 200) if made in ORDERS else ("no such order", 404)
"""
BY_PATH = 'SCRIPT = [("POST", "/orders"), ("GET", lambda seen: "/orders/" + seen[0].json()["id"])]'


def test_a_path_made_of_an_earlier_response(tmp_path: Path) -> None:
    done = run(tmp_path, app=ORDERS, script=BY_PATH)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "PROVEN 1: GET (SCRIPT[1]) depends on which replica answers" in done.stdout
    assert "suspect: shop:ORDERS" in done.stdout


HUNG = """
import subprocess, sys, time
from pathlib import Path
{start}
def app(environ, start_response):
    Path("data.txt").write_text("the replica's")
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    Path({hung!r}).touch()
    time.sleep(1000)
"""
THREAD = "import threading\nthreading.Thread(target=time.sleep, args=(300,), daemon=True).start()"


def hung(tmp_path: Path, *, start: str = "", isolate: str = "swap") -> subprocess.Popen[bytes]:
    """A check whose request hangs by now."""
    mark = tmp_path / "shared" / "hung"
    mark.parent.mkdir()
    (tmp_path / "data.txt").write_text("the host's")
    (tmp_path / "shop.py").write_text(HUNG.format(start=start, hung=str(mark)))
    (tmp_path / "flows.py").write_text(READ)
    command = [sys.executable, "-m", "unsticky", "check", "shop:app", "--script", "flows.py", "--timeout", "600"]
    arguments = ["--isolate", isolate, "--shared", "shared"]
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [*command, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    eventually(mark.exists, timeout=30)
    return process


@pytest.mark.parametrize(("given", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_interrupted_it_does_not_wait_for_a_request_that_hangs(
    tmp_path: Path, given: signal.Signals, status: int
) -> None:
    process = hung(tmp_path)
    os.killpg(process.pid, given)
    _, said = process.communicate(timeout=20)
    assert process.returncode == status
    assert b"Traceback" not in said
    assert leftovers(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert (tmp_path / "data.txt").read_text() == "the host's"


@pytest.mark.parametrize("start", ["", THREAD], ids=["forks", "interpreters"])
@pytest.mark.parametrize("isolate", ["auto", "swap"])
def test_killed_while_a_request_hangs_it_leaves_nothing(tmp_path: Path, start: str, isolate: str) -> None:
    process = hung(tmp_path, start=start, isolate=isolate)
    process.kill()
    process.communicate()
    eventually(lambda: leftovers(tmp_path) == [])
    eventually(lambda: list((tmp_path / "tmp").iterdir()) == [])
    assert (tmp_path / "data.txt").read_text() == "the host's"


IMPORTING = """
import time
from pathlib import Path
Path("booting").touch()
time.sleep(1000)
"""


def test_killed_while_the_import_hangs_it_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(IMPORTING)
    (tmp_path / "flows.py").write_text(READ)
    command = [sys.executable, "-m", "unsticky", "check", "shop:app", "--script", "flows.py", "--isolate", "none"]
    process = subprocess.Popen(command, cwd=tmp_path)
    eventually((tmp_path / "booting").exists, timeout=30)
    process.kill()
    process.wait()
    eventually(lambda: leftovers(tmp_path) == [])


OWN_LIMITER = """
class RateLimiter:
    def __init__(self):
        self.seen = []
limiter = RateLimiter()
def app(environ, start_response):
    limiter.seen.append(1)
    start_response("200 OK" if len(limiter.seen) < 2 else "429 Too Many Requests", [])
    return [b""]
"""


def test_a_variable_that_is_named_as_a_librarys_is_not_the_librarys(tmp_path: Path) -> None:
    done = run(tmp_path, app=OWN_LIMITER, script='SCRIPT = [("GET", "/")] * 2')
    assert "suspect: shop:limiter.seen" in done.stdout
    assert "flask-limiter" not in done.stdout
    assert "remedy:  move it to the session or to a shared store" in done.stdout


LEAKY_BESIDE_BUFFER = """
hits, BUFFER = [], []
def app(environ, start_response):
    (hits if environ["REQUEST_METHOD"] == "GET" else BUFFER).append(1)
    start_response("200 OK", [])
    return [str(len(hits)).encode() if environ["REQUEST_METHOD"] == "GET" else b""]
"""


def test_a_suspect_beside_a_proof_is_not_said_to_be_unseen(tmp_path: Path) -> None:
    """The proven response may show it, too: another variable explained it first."""
    script = 'SCRIPT = [("GET", "/cart"), ("GET", "/cart"), ("POST", "/x"), ("POST", "/y")]'
    done = run(tmp_path, app=LEAKY_BESIDE_BUFFER, script=script)
    assert "suspect: shop:hits" in done.stdout
    assert "SUSPECT: shop:BUFFER" in done.stdout
    assert "no proof above needs it. If a response could show it: move it" in done.stdout
