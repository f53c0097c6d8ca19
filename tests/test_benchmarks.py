"""The benchmarks run, and what they count is as promised. No test looks at their times."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, get_args

from unsticky.routing.options import Balancer

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "sessions.py"


def run(part: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The figures of one part, and the tables it printed."""
    figures = folder / "figures.json"
    command = [sys.executable, str(BENCHMARK), "--smoke", "--markdown", "--only", part, "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(figures.read_text()), done.stdout


def test_asgi_part_counts_one_command_per_read_two_per_write_and_one_for_a_new_session(tmp_path: Path) -> None:
    """The counted round trips are those that the issue promises; the peers' are there to compare."""
    figures, text = run("asgi", tmp_path)
    trips = figures["trips"]
    assert trips["asgi/unsticky Redis/read"] == "GET"
    assert trips["asgi/unsticky Redis/write"] == "GET + EVALSHA"
    assert trips["asgi/unsticky Redis/new"] == "SET"
    assert trips["asgi/unsticky SQLite/untouched"] == "0"
    for store in ("unsticky SQLite", "unsticky memory", "UnstickyMiddleware SQLite"):
        assert trips[f"asgi/{store}/read"] == "load"
        assert trips[f"asgi/{store}/write"] == "load + update"
        assert trips[f"asgi/{store}/new"] == "create"
    assert trips["asgi/starsessions Redis, autoload/read"] == "GET + SET"
    assert figures["cookies"]["asgi/unsticky SQLite/read"] == 0
    assert "| unsticky Redis |" in text
    assert "Goals" in text


def test_requests_at_once_are_measured_beside_their_peers(tmp_path: Path) -> None:
    """Each in a session of its own, over every stack."""
    figures, text = run("at once", tmp_path)
    stacks = {key.split("/")[1] for key in figures["microseconds"]}
    assert stacks >= {"unsticky Redis", "unsticky SQLite", "starsessions Redis, load on use"}
    assert "32 requests at once" in text
    assert "| at once, unsticky Redis, write: time, beside starsessions Redis, load on use |" in text


def test_flask_part_counts_no_command_for_an_untouched_session(tmp_path: Path) -> None:
    """Ours asks the store nothing then; Flask-Session reads and writes."""
    figures, text = run("flask", tmp_path)
    trips = figures["trips"]
    assert trips["flask/unsticky Redis/untouched"] == "0"
    assert trips["flask/unsticky Redis/read"] == "GET"
    assert trips["flask/unsticky Redis/write"] == "GET + EVALSHA"
    assert trips["flask/unsticky SQLite/untouched"] == "0"
    assert trips["flask/Flask-Session Redis/untouched"] == "GET + SET"
    assert figures["cookies"]["flask/unsticky SQLite/untouched"] == 0
    assert "| unsticky Redis |" in text


def test_end_to_end_part_drives_both_servers(tmp_path: Path) -> None:
    """Every stack answers under load, under uvicorn and gunicorn."""
    figures, text = run("e2e", tmp_path)
    rates = figures["per_second"]
    kinds = {key.split("/")[0] for key in rates}
    assert kinds == {"uvicorn", "gunicorn"}
    assert len(rates) == 11
    assert all(rate > 0 for rate in rates.values())
    assert figures["failed"].keys() == rates.keys()
    assert "End to end: gunicorn" in text


def test_postgres_part_counts_one_statement_per_verb(tmp_path: Path) -> None:
    """As the server's own log has it, in the same run as psycopg's pool."""
    figures, text = run("postgres", tmp_path)
    assert {key: value for key, value in figures["trips"].items() if key.startswith("postgres/unsticky/")} == {
        "postgres/unsticky/read": "statement",
        "postgres/unsticky/write": "statement",
        "postgres/unsticky/new": "statement",
    }
    assert "| pooled psycopg |" in text


def test_a_part_that_fails_takes_nothing_with_it(tmp_path: Path) -> None:
    """What the parts before it found is printed and written by then; those after it run; the exit status tells."""
    script = """
from argparse import Namespace
from pathlib import Path
from reporting import command
from reporting.tables import Table
found = []
def part(name):
    if name == "bad":
        raise RuntimeError("broken")
    found.append(name)
    return [Table(f"Table of {name}", [""], [["row"]])]
names = ("one", "bad", "two")
chosen = Namespace(only=None, markdown=False, json=Path("found.json"))
raise SystemExit(command.run(chosen, {n: lambda n=n: part(n) for n in names}, lambda: [], lambda: found))
"""
    environ = {"PYTHONPATH": str(BENCHMARK.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Table of one" in done.stdout
    assert "Table of two" in done.stdout
    assert "RuntimeError: broken" in done.stderr
    assert "failed, and not in the tables: bad" in done.stderr
    assert json.loads((tmp_path / "found.json").read_text()) == ["one", "two"]


class Late(BaseHTTPRequestHandler):
    """Every third answer is a 503, as of an app whose store was late."""

    protocol_version = "HTTP/1.1"
    asked = count(1)
    cookies: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        self.cookies.add(self.headers["Cookie"])
        self.send_response(200 if next(self.asked) % 3 else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_refused_requests_are_counted_and_end_no_measurement() -> None:
    """The load client goes on, and tells how many answers were good, per second, and how many were not.

    Its connections share the cookies out among them.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), Late) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        command = [
            sys.executable,
            "-m",
            "session_costs.load",
            str(server.server_port),
            "/read",
            "session=x session=y",
            "2",
            "0.2",
        ]
        done = subprocess.run(command, cwd=BENCHMARK.parent, capture_output=True, text=True, timeout=60)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    rate, failed = done.stdout.split()
    assert float(rate) > 0
    assert int(failed) > 0
    assert Late.cookies == {"session=x", "session=y"}


def test_routing_is_measured_beside_its_peers(tmp_path: Path) -> None:
    """Every part gives figures of ours and of others; what was promised is held against them."""
    figures = tmp_path / "figures.json"
    script = BENCHMARK.with_name("routing.py")
    command = [sys.executable, str(script), "--smoke", "--markdown", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert found["layers"].keys() >= {"httpx.AsyncClient alone", "httpx-retries", "tenacity"}
    assert {key for key in found["tracing"] if key.startswith("unsticky")} == {
        "unsticky, no SDK",
        "unsticky, unsampled",
        "unsticky, batch",
        "unsticky, batch and metrics",
    }
    assert found["connects"].keys() == found["calls"].keys() >= {"httpx.AsyncClient", "aiohttp (not httpx)"}
    assert found["flat"].keys() >= {"default, 256 calls", "aiohttp, 100 endpoints"}
    assert "sidecar" in found or "not in the PATH" in done.stderr
    assert "| pick, retry and budget, per call | <= 8 us |" in done.stdout


def test_an_unknown_part_is_refused() -> None:
    """The command line names the parts that there are."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--only", "none"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "postgres" in done.stderr


def test_picks_are_measured_for_every_balancer(tmp_path: Path) -> None:
    """With naive ones beside them, in three sizes; and the building of both kinds of tables."""
    figures = tmp_path / "figures.json"
    script = BENCHMARK.with_name("picks.py")
    command = [sys.executable, str(script), "--smoke", "--markdown", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    for balancer in get_args(Balancer):
        assert found["picks"][f"{balancer}/10000"] > 0
    assert found["builds"].keys() >= {"ring_hash/3", "maglev/10000"}
    assert "| naive: least loaded of all |" in done.stdout
    assert "Goal" in done.stdout


def test_the_guard_is_measured_beside_a_bare_app() -> None:
    """With its goal, and whether that is met."""
    script = BENCHMARK.with_name("guard.py")
    done = subprocess.run([sys.executable, str(script), "--smoke"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "50 modules, 2,500 globals, 1,000 containers" in done.stdout
    assert "Goal: at most 5 us per request" in done.stdout
