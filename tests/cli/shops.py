"""An app's sessions in real stores, made by requests, and the command `unsticky sessions` on them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from session.visits import Asked
from support.valkey import Valkey
from unsticky.cli import main
from unsticky.clock import Clock, SystemClock
from unsticky.scalars import Duration, StoreURL
from unsticky.session.inbound import Device
from unsticky.session.options import SessionOptions
from unsticky.session.verbs import ThreadSession
from unsticky.sessions import Sessions
from unsticky.testing import FakeClock

NO_ID = "v1:" + "x" * 43


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNSTICKY_SETTINGS", raising=False)
    monkeypatch.delenv("UNSTICKY_SESSION__STORE", raising=False)


@dataclass
class Shop:
    """An app's sessions in a store, and the command on it."""

    url: str
    capsys: pytest.CaptureFixture[str]
    options: SessionOptions = field(default_factory=lambda: SessionOptions(metadata=True))
    opened: list[Sessions] = field(default_factory=list)

    def sessions(self, clock: Clock | None = None, idle: float | None = None) -> Sessions:
        """As an app has them, now or at another time."""
        chosen = replace(self.options, store=StoreURL(self.url), store_timeout=Duration(5))
        self.opened.append(Sessions(chosen, clock=clock or SystemClock(), framework_idle=idle))
        return self.opened[-1]

    def login(
        self,
        owner: str | None,
        *,
        ago: float = 0.0,
        idle: float | None = None,
        agent: str = "Lynx/2.9",
        **values: object,
    ) -> str:
        """Somebody logged in so many seconds ago, and was not seen again; returns the session's id."""
        sessions = self.sessions(FakeClock(time.time() - ago), idle)
        request = Asked(its_device=Device.of(agent, "203.0.113.9"))
        session = sessions.bind(request, ThreadSession)
        session.update(values or {"cart": ["tea"]})
        if owner is not None:
            session.owner = owner
        sessions.commit(session)
        assert session.id is not None
        return session.id

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr of `unsticky sessions ...`."""
        self.capsys.readouterr()
        try:
            status = main(["sessions", arguments[0], "--store", self.url, *arguments[1:]])
        except SystemExit as stop:  # argparse
            status = int(stop.code or 0)
        said = self.capsys.readouterr()
        return status, said.out, said.err

    def done(self, *arguments: str) -> str:
        """What it prints when all goes well."""
        status, out, err = self.run(*arguments)
        assert (status, err) == (0, "")
        return out

    def refused(self, status: int, *arguments: str) -> str:
        """The last line it prints when it does not; there is nothing on stdout."""
        done, out, err = self.run(*arguments)
        assert (done, out) == (status, "")
        assert "Traceback" not in err
        assert status == 2 or err.count("\n") == 1
        return err.splitlines()[-1]

    def ids(self) -> set[str]:
        """Of all sessions that there are."""
        return {json.loads(line)["id"] for line in self.done("list", "--json").splitlines()}

    def close(self) -> None:
        for sessions in self.opened:
            sessions.close()


Opener = Callable[[str], Shop]


@pytest.fixture
def shop_on(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Opener]:
    """Opens a shop on an empty store of a kind."""
    shops = []

    def url(kind: str) -> str:
        if kind == "valkey":
            server: Valkey = request.getfixturevalue("valkey")
            with server.client(db=9) as client:
                client.flushdb()
            return server.url.removesuffix("/0") + "/9"
        if kind == "postgres":
            return f"{request.getfixturevalue('postgres').url}?schema=s{uuid4().hex}"
        return f"sqlite:///{tmp_path}/sessions.db"

    def opened(kind: str) -> Shop:
        shops.append(Shop(url(kind), capsys))
        return shops[-1]

    yield opened
    for shop in shops:
        shop.close()


@pytest.fixture
def shop(shop_on: Opener) -> Shop:
    """On SQLite."""
    return shop_on("sqlite")
