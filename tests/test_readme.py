"""The README, taken at its word: its three steps are typed as a new user would; and all that the docs say exists."""

from __future__ import annotations

import ast
import importlib
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.otlp import otlp_receiver
from support.ports import free_port
from support.waiting import eventually
from unsticky import settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED = re.compile(r"Save as `([^`]+)`[^\n]*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = ("9001", "9002", "8001", "8002")
# Which of its two endpoints is stopped, so that both are.
SHOPS = {"flask": 0, "starlette": 1}
NEEDS = {"flask": {"flask"}, "starlette": {"starlette", "fastapi", "uvicorn"}}
NEEDS_OF_STEP_3 = {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}


def blocks(text: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


# The three steps -----------------------------------------------------------------------------------------------------


def on_free_ports(text: str) -> str:
    for port in PORTS:
        assert re.search(rf"\b{port}\b", text), f"the README has no port {port} any more"
        # Marked, so that a free port that is in PORTS is left alone.
        text = re.sub(rf"\b{port}\b", f"<{free_port()}>", text)
    return re.sub(r"<(\d+)>", r"\1", text)


@dataclass
class Typed:
    """A README on free ports, its files saved in `folder`, and what was started so far."""

    text: str
    folder: Path
    environ: dict[str, str]
    stack: ExitStack

    @property
    def terminal(self) -> Path:
        """What all that was started has printed."""
        return self.folder / "terminal.txt"

    def commands(self, pattern: str) -> list[str]:
        """The README's command lines that match from their start, prompts and comments aside."""
        lines = "\n".join(blocks(self.text, "console"))
        typed = [line for part in re.split(r"\n|# or:", lines) for line in part.split("#")[:1]]
        return [line for part in typed if re.match(pattern, line := part.strip().removeprefix("$ "))]

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Started, and listening on the port that the command names."""
        arguments = command.removeprefix("python -m ").split()
        with self.terminal.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.folder, env=self.environ, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.stack.callback(_stop, process)
        [port] = [int(word) for word in arguments if word.isdecimal()]
        eventually(lambda: self._listens(process, port), 60)
        return process

    def _listens(self, process: subprocess.Popen[bytes], port: int) -> bool:
        assert process.poll() is None, self.terminal.read_text("utf-8")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(20)


def serve_command(kind: str) -> str:
    return "flask --app flask_shop run" if kind == "flask" else "uvicorn starlette_shop:app"


@contextmanager
def typed(folder: Path, **environ: str) -> Generator[Typed]:
    """Steps 1 and 2 up to the saved files."""
    ours = ("UNSTICKY_", "OTEL_", "FLASK_", "UVICORN_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with ExitStack() as stack:
        user = Typed(on_free_ports(README), folder, clean | {"NO_PROXY": "127.0.0.1"} | environ, stack)
        for name, body in SAVED.findall(user.text):
            (folder / name).write_text(body, "utf-8")
        yield user


@pytest.mark.parametrize("kind", SHOPS)
def test_steps_1_and_2(kind: str, tmp_path: Path) -> None:
    """A cart that one replica began goes on at the other, and prices come while either endpoint is stopped."""
    with typed(tmp_path) as user, httpx.Client(trust_env=False, timeout=10) as curl:
        endpoints = [user.start(command) for command in user.commands("python -m http.server")]
        replicas = [user.start(command) for command in user.commands(serve_command(kind))]
        assert (len(endpoints), len(replicas)) == (2, 2)
        tea, milk, prices = [command.split()[-1] for command in user.commands("curl")]

        assert curl.get(tea).json() == {"cart": ["tea"]}
        assert curl.get(milk).json() == {"cart": ["tea", "milk"]}
        assert (tmp_path / "sessions.db").exists()
        assert curl.get(prices).json() == {"status": 200}
        _stop(endpoints[SHOPS[kind]])
        assert [curl.get(prices).json() for _ in range(10)] == [{"status": 200}] * 10


@pytest.mark.parametrize("kind", SHOPS)
def test_step_3(kind: str, tmp_path: Path) -> None:
    """With the block at the top of the app the collector gets a span per attempt, with what the README says of it."""
    [tracing] = [block for block in blocks(README, "python") if "OTLPSpanExporter" in block]
    with otlp_receiver() as collector:
        address = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with typed(tmp_path, **address) as user, httpx.Client(trust_env=False, timeout=60) as curl:
            app = tmp_path / f"{kind}_shop.py"
            app.write_text(f"{tracing}\n{app.read_text('utf-8')}", "utf-8")
            endpoints = user.commands("python -m http.server")
            processes = [user.start(command) for command in endpoints]
            ports = [int(command.split()[3]) for command in endpoints]
            user.start(user.commands(serve_command(kind))[0])
            prices = user.commands("curl")[-1].split()[-1]

            assert curl.get(prices).json() == {"status": 200}
            # The first health checks are over: right after the start, a single bad one would keep all calls away.
            answered = 1 + len(endpoints)
            eventually(lambda: user.terminal.read_text("utf-8").count('"GET / HTTP/1.1" 200') >= answered, 60)
            assert curl.get(prices).json() == {"status": 200}
            _stop(processes[SHOPS[kind]])
            answering, stopped = sorted(ports, key=lambda port: port == ports[SHOPS[kind]])
            # Before the next health checks: each call is as likely to try the stopped endpoint as the other.
            assert all(curl.get(prices).json() == {"status": 200} for _ in range(20))
            [retry, *_] = collector.wait_for_spans(lambda span: "http.request.resend_count" in span.attributes)
            [failed, *_] = collector.wait_for_spans(
                lambda span: span.attributes.get("network.peer.port") == stopped and span.status == "ERROR"
            )
    for span in (failed, retry):
        assert (span.name, span.kind, span.attributes["unsticky.pool"]) == ("GET", "CLIENT", "catalog")
    assert (retry.attributes["http.request.resend_count"], retry.attributes["network.peer.port"]) == (1, answering)


def test_the_settings_of_step_2(tmp_path: Path) -> None:
    """The command that the README tells to run says OK."""
    with typed(tmp_path) as user:
        assert "`unsticky settings check unsticky.toml`" in user.text
        command = [sys.executable, "-m", "unsticky", "settings", "check", "unsticky.toml"]
        done = subprocess.run(command, cwd=tmp_path, env=user.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("unsticky.toml: OK\n")


def test_what_is_installed() -> None:
    """The install commands bring all that the steps import and start."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for kind, wanted in NEEDS.items():
        [(named, others)] = re.findall(rf"pip install '\.\[({kind}[a-z0-9,]*)\]'([a-z ]*)", README)
        brought = [need for extra in named.split(",") for need in extras[extra]] + others.split()
        assert wanted | NEEDS_OF_STEP_3 <= {re.split("[<>=]", need)[0] for need in brought}


def test_extras_are_named() -> None:
    """Each extra that brings something, for a user to find it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {name for name, needs in project["optional-dependencies"].items() if needs} - {"test"}
    [first] = re.findall(r"pip install '\.\[([a-z0-9,]*)\]'[^\n]*#", README)
    [more] = re.findall(r"^More extras.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert extras - {"starlette"} == {*first.split(","), *re.findall(r"`(\w+)`", more)}


# What the pages name -------------------------------------------------------------------------------------------------

page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> Iterator[str]:
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text("utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            yield link


@page
def test_links(page: Path) -> None:
    """Each link to another page, or to a heading, leads there."""
    assert list(dead_links(page)) == []


@page
def test_python_blocks(page: Path) -> None:
    """Each compiles, and what it imports from unsticky is there."""
    for block in blocks(page.read_text("utf-8"), "python"):
        code = compile(block, str(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        compile(code, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for module, name in imported(code):
            assert hasattr(importlib.import_module(module), name), f"from {module} import {name}"


def imported(code: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "unsticky":
            yield from ((node.module, alias.name) for alias in node.names)


@page
def test_settings_blocks(page: Path) -> None:
    """Each is right by itself, or below a pool that another block would give endpoints."""
    for block in blocks(page.read_text("utf-8"), "toml"):
        settings.load(whole(tomllib.loads(block)), environ={}, search=False)


def whole(table: dict[str, Any]) -> dict[str, Any]:
    """A block that shows only a part of a pool leaves out its endpoints: the one thing that every pool needs."""
    for pool in table.get("pools", {}).values():
        pool.setdefault("endpoints", ["http://127.0.0.1:9001"])
    return table


@page
def test_make_targets(page: Path) -> None:
    """Each `make X` is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text("utf-8")))
    assert named <= targets
