"""Each test's requests, recorded as they are made, and replayed over replicas afterwards."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from ..clock import SystemClock
from ..errors import CheckError
from . import report
from .check import Checked, Plan, examine
from .clients import Original, Patches, is_websocket
from .findings import Verdict
from .fleet import Fleet
from .step import OF_CLIENTS, Step

_Scripts = dict[str, list[Step]]  # by test


class Recorder:
    """Goes between test clients and their apps, and keeps what is asked."""

    def __init__(self, target: str, replicas: int) -> None:
        """`target`: the app to replay over; "" looks for the recorded ones among the loaded modules."""
        self._target = target
        self._replicas = replicas
        self._patches = Patches(self)
        self._test = ""
        self._names: dict[int, str] = {}  # of the apps of this test, by id
        self._made: dict[str, _Scripts] = {}  # by the name of the app, "" if it has none
        self._lines: list[str] = []

    def install(self) -> None:
        self._patches.install()

    def uninstall(self) -> None:
        self._patches.uninstall()

    def begin(self, test: str) -> None:
        self._test = test
        self._names.clear()

    def wsgi(self, original: Original, app: Any, environ: dict[str, Any], buffered: bool) -> Any:
        body = environ["wsgi.input"].read()
        environ["wsgi.input"] = io.BytesIO(body)
        query = environ.get("QUERY_STRING", "")
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name == "CONTENT_TYPE"
        }
        path = quote(environ["PATH_INFO"].encode("latin-1", "replace"), safe="/:@!$&'()*+,;=~")
        self._keep(app, environ["REQUEST_METHOD"], path + (f"?{query}" if query else ""), headers, body)
        return original(app, environ, buffered=buffered)

    def asgi(self, original: Original, transport: Any, request: Any) -> Any:
        if not is_websocket(request):
            target = request.url.raw_path.decode("ascii")
            self._keep(transport.app, request.method, target, dict(request.headers), request.read())
        return original(transport, request)

    def replay(self) -> bool:
        """Whether a test's responses were proven to depend on the replica, or nothing could be replayed."""
        if not self._made:
            self._lines.append("No test made a request through a test client: nothing was replayed.")
            return False
        failed = [self._replay(target, scripts) for target, scripts in self._made.items() if target]
        if nameless := self._made.get(""):
            text = f"{_size(nameless)} were not replayed: their app is no module's variable"
            self._lines.append(f"{text}; name it, or its factory, by --stateless-app.")
        return any(failed) or not failed

    def summary(self, failed: bool) -> Iterator[str]:
        yield from self._lines

    def _replay(self, target: str, scripts: _Scripts) -> bool:
        try:
            with Fleet(target, boots=self._replicas) as fleet:
                return self._over(fleet, target, scripts)
        except CheckError as error:
            self._lines.append(f"{target}: {error}")
            return True

    def _over(self, fleet: Fleet, target: str, scripts: _Scripts) -> bool:
        proven = lost = 0
        for test, steps in scripts.items():
            try:
                found = examine(fleet, Plan(app=target, script=test, replicas=self._replicas), steps, SystemClock())
            except CheckError as error:
                self._lines.append(f"{test}: not replayed: {error}")
                lost += 1
                continue
            if found.of(Verdict.PROVEN):
                proven += 1
                self._lines += [f"{test}", *(f"  {line}".rstrip() for line in _proofs(found))]
        missing = f", {lost} of them could not be" if lost else ""
        text = f"{_size(scripts)} were replayed over {self._replicas} replicas{missing}"
        self._lines.append(f"{text}: {f'{proven} tests depend on the replica' if proven else 'no counter-example'}.")
        return proven > 0

    def _keep(self, app: Any, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        if id(app) not in self._names:
            self._names[id(app)] = self._target or _found(app)
        kept = {name: value for name, value in headers.items() if name not in OF_CLIENTS}
        step = Step(method, target, {"headers": kept, **({"body": body} if body else {})})
        self._made.setdefault(self._names[id(app)], {}).setdefault(self._test, []).append(step)


def _size(scripts: _Scripts) -> str:
    return f"{sum(map(len, scripts.values()))} requests of {len(scripts)} tests"


def _proofs(found: Checked) -> Sequence[str]:
    return [line for number, one in enumerate(found.of(Verdict.PROVEN), 1) for line in report.proof(number, one)]


def _is_of_tests(module: str) -> bool:
    return module == "conftest" or module.startswith("test_") or module.endswith("_test")


def _found(app: Any) -> str:
    """Where a loaded module has the app."""
    for name, module in list(sys.modules.items()):
        if name != "__main__" and not name.startswith("tests.") and not _is_of_tests(name.rpartition(".")[2]):
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if value is app:
                    return f"{name}:{attribute}"
    return ""
