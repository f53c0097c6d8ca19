"""The guard in real apps: what it names, what it refuses, and what it leaves alone.

Each app lives in a module of its own, beside the temporary directory as apps do.
"""

from __future__ import annotations

import importlib.util
import logging
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from starlette.testclient import TestClient

from support.otlp import Telemetry
from support.ports import free_port
from support.waiting import eventually
from unsticky.errors import LocalStateRefused
from unsticky.statelessness.guard import audit

FLASK = """
import sqlite3, tempfile, threading
from collections import Counter
from flask import Flask, jsonify, request, session
from unsticky import replica_local
from unsticky.flask import Unsticky

app = Flask(__name__)
app.secret_key = "the same for all"
CART = {}
hits = 0
METRICS = replica_local({}, why="scraped from each")
ALLOWED = {}
THREADS = threading.Event()


@app.get("/clean")
def clean():
    METRICS[len(METRICS)] = 1
    ALLOWED[len(ALLOWED)] = 1
    session["n"] = session.get("n", 0) + 1
    return "clean"


@app.post("/add/<item>")
def add(item):
    CART[item] = 1
    return jsonify(len(CART))


@app.get("/count")
def count():
    global hits
    hits += 1
    return str(hits)


@app.get("/write/<name>")
def write(name):
    with open(name, "w") as file:
        file.write("local")
    return "written"


@app.get("/database")
def database():
    sqlite3.connect("shop.db").execute("create table if not exists items (name)").connection.close()
    return "connected"


@app.get("/temporary")
def temporary():
    with tempfile.TemporaryFile() as file, tempfile.NamedTemporaryFile("w") as named:
        file.write(b"gone")
        open(named.name, "a").close()
    with tempfile.TemporaryDirectory() as folder:
        open(folder + "/report.csv", "w").close()
    return "gone"


@app.get("/kept")
def kept():
    open(tempfile.mkstemp(suffix=".pdf")[0], "w").close()
    return "kept"


@app.get("/config")
def config():
    app.config["VISITS"] = app.config.get("VISITS", 0) + 1
    return str(app.config["VISITS"])


@app.get("/thread")
def thread():
    threading.Thread(target=THREADS.wait, name="collector-7", daemon=True).start()
    return "started"


@app.errorhandler(PermissionError)
def refused(error):
    return f"{type(error).__name__}: {error}", 507
"""

STARLETTE = """
import asyncio
from pathlib import Path
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from unsticky.starlette import UnstickyMiddleware

SEEN = []


async def see(request):
    SEEN.append(request.path_params["name"])
    return PlainTextResponse(str(len(SEEN)))


async def slow(request):
    await asyncio.sleep(0.02)
    return PlainTextResponse("slow")


async def write(request):
    Path("upload.bin").write_text("local")
    return PlainTextResponse("written")


def write_in_a_thread(request):
    Path("upload.bin").write_text("local")
    return PlainTextResponse("written")


async def state(request):
    request.app.state.visits = getattr(request.app.state, "visits", 0) + 1
    return PlainTextResponse(str(request.app.state.visits))


async def refused(request, error):
    return PlainTextResponse(f"{type(error).__name__}: {error}", 507)


app = Starlette(
    routes=[Route("/see/{name}", see), Route("/slow", slow), Mount("/files", routes=[Route("/write", write)]),
            Route("/state", state), Route("/thread", write_in_a_thread)],
    exception_handlers={PermissionError: refused},
)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the app is, and the temporary directory is not."""
    temporary = tmp_path / "temporary"
    folder = tmp_path / "shop"
    temporary.mkdir()
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(folder)
    return folder


@contextmanager
def module(name: str, text: str, folder: Path) -> Iterator[Any]:
    file = folder / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    try:
        spec.loader.exec_module(made)
        yield made
    finally:
        del sys.modules[name]


def settings(guard: str, **more: Any) -> dict[str, Any]:
    return {
        "session": {"store": "sqlite:///sessions.db"},
        "statelessness": {"guard": guard, "warm_up": 2, "sweep_every": 1, "allow": ["guarded_flask:ALLOWED"], **more},
    }


@contextmanager
def flask_shop(folder: Path, guard: str = "report", **more: Any) -> Iterator[Any]:
    from unsticky.flask import Unsticky

    with module("guarded_flask", FLASK, folder) as shop:
        unsticky = Unsticky(shop.app, settings=settings(guard, **more))
        try:
            yield shop
        finally:
            unsticky.state.close()


@contextmanager
def starlette_shop(folder: Path, guard: str = "report", **more: Any) -> Iterator[TestClient]:
    from unsticky.starlette import UnstickyMiddleware

    with module("guarded_starlette", STARLETTE, folder) as shop:
        shop.app.add_middleware(UnstickyMiddleware, settings=settings(guard, **more))
        with TestClient(shop.app) as client:
            yield client


def violations(otlp: Telemetry) -> list[dict[str, Any]]:
    events = [event for span in otlp.spans(client=False) for event in span.events]
    return [attributes for name, attributes in events if name == "stateless.violation"]


def get(client: Any, path: str, times: int = 1, method: str = "GET") -> list[Any]:
    """In a span of its own each, as the framework's instrumentation would have it."""
    answers = []
    for _ in range(times):
        with trace.get_tracer("the app").start_as_current_span("request"):
            answers.append(client.open(path, method=method) if hasattr(client, "open") else client.get(path))
    return answers


def test_a_leaking_variable_is_named_with_its_endpoint_and_line(
    home: Path, otlp: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """One event on a span, one line in the log, one count; once a minute, and never a value."""
    with flask_shop(home) as shop:
        client = shop.app.test_client()
        get(client, "/clean", 5)
        for number in range(20):
            get(client, f"/add/secret-{number}", method="POST")
            get(client, "/clean")
    (found,) = violations(otlp)
    assert found == {
        "stateless.kind": "memory",
        "stateless.variable": "guarded_flask:CART",
        "stateless.verdict": "SUSPECT",
        "stateless.endpoint": "POST /add/<item>",
        "stateless.endpoint_rate": 1.0,
        "stateless.source_line": "guarded_flask.py:10",
    }
    (told,) = [record for record in caplog.records if record.name == "unsticky.statelessness"]
    assert told.levelno == logging.WARNING
    assert "guarded_flask:CART (guarded_flask.py:10) changed by POST /add/<item> in 100%" in told.getMessage()
    assert "session" in told.getMessage()
    assert "secret" not in caplog.text


def test_a_counter_that_is_rebound_is_named(home: Path, otlp: Telemetry) -> None:
    """`global hits; hits += 1` makes nothing grow."""
    with flask_shop(home) as shop:
        get(shop.app.test_client(), "/count", 20)
    assert [one["stateless.variable"] for one in violations(otlp)] == ["guarded_flask:hits"]


def test_the_counter_has_bounded_labels(home: Path, otlp: Telemetry) -> None:
    """Kind and verdict alone."""

    def counted() -> dict[tuple[str, ...], float]:
        points = otlp.points("unsticky.stateless.violations")
        return {tuple(sorted(point.attributes.items())): point.value for point in points}

    labels = ("stateless.kind", "memory"), ("stateless.verdict", "SUSPECT")
    before = counted().get(labels, 0)
    with flask_shop(home) as shop:
        get(shop.app.test_client(), "/count", 20)
    after = counted()
    assert after[labels] == before + 1
    assert all(dict(key).keys() == {"stateless.kind", "stateless.verdict"} for key in after)


def test_a_clean_app_is_silent(home: Path, otlp: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """Sessions in SQLite, declared metrics, allowed variables, temporary files, reading."""
    with flask_shop(home) as shop:
        client = shop.app.test_client()
        for _ in range(10):
            get(client, "/clean")
            get(client, "/temporary")
            get(client, "/nowhere")
    assert violations(otlp) == []
    assert "stateless" not in caplog.text
    assert (home / "sessions.db").exists()


def test_files_and_databases_are_named(home: Path, otlp: Telemetry) -> None:
    """Of a file the folder and the kind, as its name may be a user's; and the line that wrote it."""
    with flask_shop(home) as shop:
        client = shop.app.test_client()
        get(client, "/write/ann.txt", 3)
        get(client, "/write/shop.log")
        get(client, "/database", 3)
        get(client, "/kept")
    found = {one["stateless.path"]: one for one in violations(otlp)}
    line = FLASK.splitlines().index('    with open(name, "w") as file:') + 1
    assert found[f"{home}/*.txt"] == {
        "stateless.kind": "file",
        "stateless.path": f"{home}/*.txt",
        "stateless.verdict": "SUSPECT",
        "stateless.endpoint": "GET /write/<name>",
        "stateless.source_line": f"guarded_flask.py:{line}",
    }
    assert found[f"{home}/*.log"]["stateless.verdict"] == "INFO"
    assert found[f"{home}/shop.db"]["stateless.kind"] == "sqlite"
    assert found.keys() <= {f"{home}/*.txt", f"{home}/*.log", f"{home}/shop.db", f"{tempfile.gettempdir()}/*.pdf"}


def test_a_temporary_file_that_stays_is_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is looked at when the request is over."""
    with flask_shop(home) as shop, caplog.at_level(logging.INFO, "unsticky.statelessness"):
        (answer,) = get(shop.app.test_client(), "/kept")
        answer.close()
    assert "*.pdf" in caplog.text


def test_shared_paths_are_no_findings(home: Path, otlp: Telemetry) -> None:
    """A network disk, and a database on it."""
    with flask_shop(home, shared=[str(home)]) as shop:
        client = shop.app.test_client()
        get(client, "/write/ann.txt", 3)
        get(client, "/database", 3)
    assert violations(otlp) == []


def test_a_thread_that_stays_is_told(home: Path, otlp: Telemetry) -> None:
    """Python 3.11 has no event for it."""
    with flask_shop(home) as shop:
        client = shop.app.test_client()
        get(client, "/clean", 5)
        get(client, "/thread")
        get(client, "/clean", 5)
        shop.THREADS.set()
    assert [one["stateless.variable"] for one in violations(otlp)] == ["collector-N"]


def test_enforce_refuses_files_and_the_app_answers(home: Path, otlp: Telemetry) -> None:
    """The app's own handler of PermissionError sees it; nothing was written."""
    with flask_shop(home, "enforce") as shop:
        client = shop.app.test_client()
        assert get(client, "/clean")[0].status_code == 200
        (answer,) = get(client, "/write/ann.txt")
        assert answer.status_code == 507
        assert answer.text.startswith("LocalStateRefused: GET /write/<name> would write the local file")
        assert "ann" not in answer.text
        assert f'[statelessness] shared = ["{home}"]' in answer.text
        (answer,) = get(client, "/database")
        assert "local database" in answer.text
        assert get(client, "/temporary")[0].status_code == 200
        assert get(client, "/clean")[0].status_code == 200
    assert not (home / "ann.txt").exists()
    assert not (home / "shop.db").exists()
    assert all(one["stateless.refused"] for one in violations(otlp))


def test_enforce_freezes_the_configuration(home: Path) -> None:
    """After the first request, which may still set something up."""
    with flask_shop(home, "enforce", allow=["app.config['ALLOWED']"]) as shop:
        shop.app.config["AT_START"] = 1
        client = shop.app.test_client()
        get(client, "/clean")
        (answer,) = get(client, "/config")
        assert answer.status_code == 507
        assert "app.config['VISITS'] can't be changed after the first request" in answer.text
        for change in (
            lambda config: config.update(VISITS=1),
            lambda config: config.pop("AT_START"),
            lambda config: config.clear(),
            lambda config: config.setdefault("NEW", 1),
        ):
            with pytest.raises(LocalStateRefused):
                change(shop.app.config)
        assert shop.app.config.setdefault("AT_START", 2) == 1
        shop.app.config["ALLOWED"] = 1


def test_report_tells_of_a_single_change_of_the_configuration(home: Path, otlp: Telemetry) -> None:
    """Which no look before and after would see: it comes once."""
    with flask_shop(home) as shop:
        client = shop.app.test_client()
        get(client, "/clean")
        (answer,) = get(client, "/config")
    assert answer.text == "1"
    (found,) = eventually(lambda: violations(otlp))
    assert found["stateless.variable"] == "app.config['VISITS']"
    assert found["stateless.kind"] == "config"
    assert found["stateless.endpoint"] == "GET /config"
    assert "stateless.refused" not in found


def test_enforce_in_starlette(home: Path) -> None:
    """Its exception handlers see it, too."""
    with starlette_shop(home, "enforce") as client:
        assert client.get("/see/a").status_code == 200
        answer = client.get("/files/write")
        assert answer.status_code == 507
        assert answer.text.startswith("LocalStateRefused: GET */write would write the local file")
        assert client.get("/thread").text.startswith("LocalStateRefused: GET /thread would write")
        answer = client.get("/state")
        assert "app.state.visits can't be changed after the first request" in answer.text
    assert not (home / "upload.bin").exists()


def test_starlette_names_the_route(home: Path, otlp: Telemetry) -> None:
    """Its template, never the path."""
    with starlette_shop(home) as client:
        get(client, "/slow", 4)
        for number in range(20):
            get(client, f"/see/ann-{number}")
            get(client, "/slow")
        get(client, "/state", 20)
    found = {one["stateless.variable"]: one for one in eventually(lambda: violations(otlp))}
    assert found["guarded_starlette:SEEN"]["stateless.endpoint"] == "GET /see/{name}"
    assert found["app.state.visits"]["stateless.endpoint"] == "GET /state"
    assert len(found) == 2


BACKGROUND = """
from pathlib import Path
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.responses import PlainTextResponse
from starlette.routing import Route
SEEN, DONE = [], []
async def late(request):
    tasks = BackgroundTasks()
    tasks.add_task(DONE.append, 1)
    return PlainTextResponse("later", background=tasks)
async def removed(request):
    SEEN.append(1)
    Path("report.csv").write_text("sent, then removed")
    tasks = BackgroundTasks()
    tasks.add_task(Path("report.csv").unlink)
    return PlainTextResponse("sent", background=tasks)
app = Starlette(routes=[Route("/late", late), Route("/removed", removed)])
"""


def test_what_a_background_task_does_is_the_requests(home: Path, otlp: Telemetry) -> None:
    """What it changes is seen, and a file that it takes away again is none."""
    from unsticky.starlette import UnstickyMiddleware

    with module("guarded_background", BACKGROUND, home) as shop:
        shop.app.add_middleware(UnstickyMiddleware, settings=settings("report"))
        with TestClient(shop.app) as client:
            get(client, "/late", 20)
            get(client, "/removed", 20)
    found = {one.get("stateless.variable"): one.get("stateless.endpoint") for one in violations(otlp)}
    assert found == {"guarded_background:DONE": "GET /late", "guarded_background:SEEN": "GET /removed"}


def test_threads_at_once_are_told_apart_by_rate(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Innocent requests overlap with the guilty ones all the time."""
    with flask_shop(home) as shop:

        def work(path: str, method: str) -> None:
            client = shop.app.test_client()
            for number in range(150):
                client.open(path.format(f"{threading.get_ident()}-{number}"), method=method)

        work("/clean", "GET")
        kinds = [("/add/{}", "POST"), ("/nowhere", "GET"), ("/add/{}", "POST"), ("/nowhere", "GET")]
        threads = [threading.Thread(target=work, args=kind) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = [record.getMessage() for record in caplog.records if "guarded_flask:CART" in record.getMessage()]
    assert len(told) == 1
    assert "POST /add/<item> in 100%" in told[0]


WSGI = """
SEEN = []


def app(environ, start_response):
    SEEN.append(1)
    environ["unsticky.endpoint"] = "/seen"
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("on purpose")
    return body(environ["PATH_INFO"])


def body(path):
    yield b"streamed"
    if path == "/write":
        open("report.csv", "w").close()
"""


def test_a_wsgi_app_that_streams(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its request is over when its body is closed, also where it fails; it says itself which route it took."""
    from werkzeug.test import Client

    from unsticky.wsgi import UnstickyMiddleware

    with module("guarded_wsgi", WSGI, home) as shop:
        served = UnstickyMiddleware(shop.app, settings("report"))
        client = Client(served)
        for _ in range(20):
            with pytest.raises(ValueError, match="on purpose"):
                client.get("/fail")
            assert client.get("/").text == "streamed"
        assert "guarded_wsgi:SEEN (guarded_wsgi.py:2) changed by GET /seen in 100%" in caplog.text
        answer = client.get("/write", buffered=True)
        answer.close()
        assert f"{home}/*.csv" in caplog.text
        served.close()


def test_files_of_threads_that_know_of_no_request_are_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the next request; temporary ones and those before the first request are not."""

    def work() -> None:
        (home / "from_thread.bin").write_bytes(b"")
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")

    with flask_shop(home, "enforce") as shop:
        (home / "at_start.txt").write_bytes(b"")
        client = shop.app.test_client()
        get(client, "/clean")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        get(client, "/clean")
    assert f"{home}/*.bin" in caplog.text
    assert "*.txt" not in caplog.text
    assert (home / "from_thread.bin").exists()


def test_what_goes_wrong_in_the_guard_is_not_the_requests(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, once a minute."""
    from unsticky.statelessness.guard import watch

    def fails(*_: object) -> None:
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(watch, "Snapshot", fails)
    with flask_shop(home) as shop:
        assert {answer.status_code for answer in get(shop.app.test_client(), "/clean", 10)} == {200}
    assert caplog.text.count("The guard could not look at a request") == 1


def test_off_costs_nothing(home: Path) -> None:
    """The app is not wrapped."""
    with flask_shop(home, "off") as shop:
        assert type(shop.app.wsgi_app).__name__ == "InContext"
        assert not shop.app.before_request_funcs
        assert "Guarded" not in type(shop.app.wsgi_app.app).__name__


def test_off_installs_no_hook() -> None:
    """Nor is the guard imported: in a process of its own, as hooks can't be removed."""
    program = (
        "import sys; from flask import Flask; from unsticky.flask import Unsticky; Unsticky(Flask('shop'), {});"
        "print([name for name in sys.modules if name.startswith('unsticky.statelessness')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_guards_that_are_gone_are_forgotten(home: Path) -> None:
    """One hook for all apps; and none of them is kept."""
    from unsticky.clock import SystemClock
    from unsticky.guard.options import StatelessnessOptions
    from unsticky.statelessness.guard.watch import Guard

    before = len(audit._guards)
    guards = [Guard(StatelessnessOptions(guard="report"), SystemClock()) for _ in range(3)]
    assert len(audit._guards) == before + 3
    del guards
    eventually(lambda: len(audit._guards) <= before)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (":memory:", ""),
        ("", ""),
        ("shop.db", "shop.db"),
        (b"shop.db", "shop.db"),
        (Path("shop.db"), "shop.db"),
        ("file:shop.db", "shop.db"),
        ("file:///srv/a%20b.db?mode=rwc", "/srv/a b.db"),
        ("file://localhost/srv/shop.db", "/srv/shop.db"),
        ("file:shop.db?mode=ro", ""),
        ("file:shop.db?immutable=1", ""),
        ("file:cache?mode=memory&cache=shared", ""),
        ("file::memory:?cache=shared", ""),
    ],
)
def test_which_databases_are_files(name: Any, file: str) -> None:
    """What is in memory or read only stays nowhere."""
    assert audit.database(name) == file


def test_a_database_opened_at_start_up_is_told(home: Path, otlp: Telemetry) -> None:
    """It is written through later, without an event; so its opening counts, whoever did it."""
    with flask_shop(home) as shop:
        sqlite3.connect("early.db").close()
        get(shop.app.test_client(), "/clean", 2)
    assert [one["stateless.path"] for one in violations(otlp)] == [f"{home}/early.db"]


def test_the_example_of_the_documentation(home: Path) -> None:
    """It is run, and says what the page says."""
    page = (Path(__file__).parents[3] / "docs" / "statelessness.md").read_text("utf-8")
    section = page.partition("## The guard, in production")[2]
    program = section.partition("```python\n")[2].partition("```")[0]
    said = section.partition("$ python guarded.py\n")[2].partition("```")[0]
    (home / "guarded.py").write_text(program)
    done = subprocess.run([sys.executable, "guarded.py"], cwd=home, capture_output=True, text=True, timeout=60)
    assert done.stderr.split() == said.split()


SERVED = {
    "gunicorn": [
        "gunicorn",
        "served:app",
        "--preload",
        "--workers",
        "2",
        "--worker-class",
        "gthread",
        "--threads",
        "4",
        "--graceful-timeout",
        "5",
    ],
    "uvicorn": ["uvicorn", "served:app"],
}


@pytest.mark.parametrize("server", SERVED)
def test_under_a_real_server(server: str, home: Path) -> None:
    """Preloaded and forked workers begin anew; what they find is in the server's log."""
    file = home / "served.py"
    if server == "gunicorn":
        setup = "import logging; logging.basicConfig()\nUnsticky(app, 'unsticky.toml')\n"
        file.write_text(FLASK + setup)
    else:
        setup = "import logging; logging.basicConfig()\napp.add_middleware(UnstickyMiddleware, 'unsticky.toml')\n"
        file.write_text(STARLETTE + setup.replace("'unsticky.toml'", "settings='unsticky.toml'"))
    (home / "unsticky.toml").write_text("[statelessness]\nguard = 'report'\nwarm_up = 4\nsweep_every = 2\n")
    port = free_port()
    bind = ["--bind", f"127.0.0.1:{port}"] if server == "gunicorn" else ["--port", str(port)]
    path, method, where = ("/add/{}", "POST", "<item>") if server == "gunicorn" else ("/see/{}", "GET", "{name}")
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *SERVED[server], *bind], cwd=home, stdout=output, stderr=output
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:

            def told() -> bool:
                try:
                    for number in range(60):
                        client.request(method, path.format(number))
                except httpx.TransportError:
                    assert process.poll() is None, log.read_text()
                return f"changed by {method} {path.format(where)}" in log.read_text()

            eventually(told, 30)
    finally:
        process.terminate()
        process.wait(20)
