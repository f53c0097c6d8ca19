"""The pytest plugin: your own test suite as the oracle.

    pytest --stateless-amnesia        each request of a test client is served by a fresh fork, which forgets all
    pytest --stateless-replicas=3     each test's requests are recorded, and replayed over replicas by `unsticky check`

For Flask's test client (and werkzeug's) and Starlette's TestClient (and FastAPI's).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .forks import Amnesia
    from .recordings import Recorder

_amnesia: pytest.StashKey[Amnesia] = pytest.StashKey()
_recorder: pytest.StashKey[Recorder] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("unsticky", "statelessness of web apps")
    group.addoption(
        "--stateless-amnesia", action="store_true", help="serve each request of a test client by a fresh fork"
    )
    group.addoption(
        "--stateless-replicas", type=int, default=0, metavar="N", help="replay each test's requests over N replicas"
    )
    group.addoption(
        "--stateless-app",
        default="",
        metavar="MODULE:ATTRIBUTE",
        help="the app to replay over; unset: it is looked for",
    )


def pytest_configure(config: pytest.Config) -> None:
    amnesia, replicas = config.getoption("--stateless-amnesia"), config.getoption("--stateless-replicas")
    if amnesia and replicas:
        raise pytest.UsageError("--stateless-amnesia and --stateless-replicas exclude each other")
    if replicas and not 2 <= replicas <= 16:
        raise pytest.UsageError("--stateless-replicas: expected 2 to 16")
    if amnesia:
        from .forks import Amnesia

        config.stash[_amnesia] = Amnesia()
        config.stash[_amnesia].install()
    elif replicas:
        from .recordings import Recorder

        config.stash[_recorder] = Recorder(config.getoption("--stateless-app"), replicas)
        config.stash[_recorder].install()


def pytest_unconfigure(config: pytest.Config) -> None:
    if patched := config.stash.get(_amnesia, None) or config.stash.get(_recorder, None):
        patched.uninstall()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if recorder := item.config.stash.get(_recorder, None):
        recorder.begin(item.nodeid)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    recorder = session.config.stash.get(_recorder, None)
    if recorder is not None and recorder.replay() and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(_amnesia, None) or config.stash.get(_recorder, None)
    if found is not None:
        terminalreporter.section("statelessness")
        failed = bool(terminalreporter.stats.get("failed"))
        for line in found.summary(failed):
            terminalreporter.line(line)
