"""The replicas of one app, from outside: boots, and what is forked off them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from ..errors import CheckError
from . import disks, orphans, walk
from .replica import Options
from .wire import Answer, Asked, End, Fork, Hello, Keep, Kept, Message, Serve, Snapshot, receive, send

_BOOT = 60.0  # seconds that importing an app may take
_TAIL = 2000  # characters of a replica's output that an error shows


class Connected:
    """A boot or a replica, by its socket."""

    def __init__(self, connection: socket.socket, hello: Hello) -> None:
        self._connection = connection
        self.hello = hello

    def ask(self, message: Message, seconds: float) -> Any:
        """Its answer; an Answer with a failure if it is gone, or does not answer in time."""
        self._connection.settimeout(seconds)
        try:
            send(self._connection, message)
            answer = receive(self._connection)
        except TimeoutError:
            self.kill()
            return Answer(failure=f"no answer within {seconds:g} s")
        except OSError:
            answer = None
        return Answer(failure="the replica died") if answer is None else answer

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.hello.pid, signal.SIGKILL)

    def drop(self) -> None:
        """End it at once, whatever it does."""
        self.kill()
        self._connection.close()

    def end(self) -> None:
        """Let it go: its app's shutdown runs."""
        with contextlib.suppress(OSError):
            self._connection.settimeout(_BOOT)
            send(self._connection, End())
            receive(self._connection)  # until it is gone
        self._connection.close()


class Fleet:
    """Boots one interpreter each, with different hash seeds, host names and temporary directories.

    `state` is a directory that all replicas share and that `reset` empties; sessions are kept there.
    """

    def __init__(
        self,
        app: str,
        *,
        boots: int = 3,
        isolation: str = "auto",
        shared: Sequence[str] = (),
        packages: Sequence[str] = (),
        timeout: float = 10.0,
        keep_store: bool = False,
    ) -> None:
        """Raises CheckError when the app can't be had. `keep_store`: sessions stay in the store that the app names."""
        for path in shared:
            if not os.path.exists(path):
                raise CheckError(f"--shared {path}: no such file or directory; make it first, or share its directory")
        self._own = Path(tempfile.mkdtemp(prefix="unsticky-check-"))
        self._mark = secrets.token_hex(8)
        self.state = self._own / "state"
        self.state.mkdir()
        self._timeout = timeout
        self._keep_store = keep_store
        self._count = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._options = Options(
            "", app, isolation, [*map(os.path.abspath, shared), str(self.state)], str(self._own / "aside"),
            secrets.token_hex(16), str(self.state), os.getpid(), list(packages),
        )  # fmt: skip
        self.boots: list[Connected] = []
        try:
            self.boots += self._booted(boots)
        except BaseException:
            self.close()
            raise
        self.forks = hasattr(os, "fork") and not any(boot.hello.threads or boot.hello.files for boot in self.boots)

    def fork(self, boot: int) -> Connected:
        """A new replica of this boot; where a fork would not be one of its own, another interpreter."""
        return self._forked(boot) if self.forks else self.fresh(boot)

    def fresh(self, boot: int) -> Connected:
        """A new replica in an interpreter of its own, as like the boot as can be."""
        process, ours = self._start(boot)
        self._count += 1
        try:
            return self._welcomed(ours, Serve(f"replica-{self._count}"), self._hello(ours, process))
        except BaseException:
            ours.close()
            raise

    def reset(self) -> None:
        """Empty what is shared."""
        for path in self.state.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        """End every process, and remove every file."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for boot in self.boots:
            boot._connection.close()
        orphans.kill_marked(self._mark)
        disks.put_back(self._options.own)
        shutil.rmtree(self._own, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _booted(self, count: int) -> list[Connected]:
        """All at once: importing takes most of a check's time."""
        started = [self._start(number) for number in range(count)]
        try:
            return [Connected(ours, self._hello(ours, process)) for process, ours in started]
        except BaseException:
            for _, ours in started:
                ours.close()
            raise

    def _start(self, boot: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        name = f"boot-{boot}-{len(self._processes)}"
        options = msgspec.structs.replace(self._options, name=name)
        with open(self._own / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "unsticky.statelessness.replica", str(theirs.fileno()),
                 msgspec.json.encode(options).decode()],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment(boot), start_new_session=True,
            )  # fmt: skip
        theirs.close()
        self._processes.append(process)
        return process, ours

    def _environment(self, boot: int) -> dict[str, str]:
        """What differs between machines, differs between boots."""
        temporary = self._own / f"tmp-{boot}"
        temporary.mkdir(exist_ok=True)
        host = f"replica-{boot}"
        mine = {
            "PYTHONHASHSEED": str(boot + 1),
            "HOSTNAME": host,
            "TMPDIR": str(temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
            orphans.MARK: self._mark,
        }
        if not self._keep_store:
            mine["UNSTICKY_SESSION__STORE"] = f"sqlite:///{self.state}/sessions.db"
        return {**os.environ, **mine}

    def _hello(self, ours: socket.socket, process: subprocess.Popen[bytes]) -> Hello:
        ours.settimeout(_BOOT)
        try:
            hello = receive(ours)
        except TimeoutError:
            raise CheckError(f"{self._options.app}: not imported within {_BOOT:.0f} s{self._said(process)}") from None
        if not isinstance(hello, Hello):
            raise CheckError(f"{self._options.app}: the interpreter ended while importing it{self._said(process)}")
        if hello.problem:
            raise CheckError(hello.problem)
        return hello

    def _said(self, process: subprocess.Popen[bytes]) -> str:
        number = self._processes.index(process)
        return next((self._log(path.stem) for path in self._own.glob(f"boot-*-{number}.log")), "")

    def _log(self, name: str) -> str:
        path = self._own / f"{name}.log"
        text = path.read_text(errors="replace").strip()[-_TAIL:] if path.exists() else ""
        return f"; it said:\n{text}" if text else ""

    def _forked(self, boot: int) -> Connected:
        ours, theirs = socket.socketpair()
        self._count += 1
        message = Fork(f"replica-{self._count}")
        channel = self.boots[boot]._connection
        send(channel, message)
        socket.send_fds(channel, [b"f"], [theirs.fileno()])
        theirs.close()
        try:
            return self._welcomed(ours, None, self.boots[boot].hello)
        except BaseException:
            ours.close()
            raise

    def _welcomed(self, ours: socket.socket, message: Message | None, boot: Hello) -> Connected:
        ours.settimeout(_BOOT)
        if message is not None:
            send(ours, message)
        hello = receive(ours)
        if not isinstance(hello, Hello):
            said = self._log(boot.name)
            raise CheckError(f"{self._options.app}: a replica of {boot.name} died at its start{said}")
        if hello.problem:
            raise CheckError(f"{self._options.app}: {hello.problem}")
        return Connected(ours, hello)

    def held(self, boot: int) -> dict[str, str]:
        """Fingerprints of what the boot holds, by name."""
        answer = self.boots[boot].ask(Snapshot(), _BOOT)
        return dict(getattr(answer, "values", {}))

    def fingerprint(self, text: str) -> str:
        """As `held` has it for a value of this repr."""
        return walk.fingerprint(text, bytes.fromhex(self._options.key))

    def keep(self, replica: Connected, name: str) -> bool:
        """From now on the replica puts the variable back before each request. False if it can't."""
        answer = replica.ask(Keep(name), _BOOT)
        return isinstance(answer, Kept) and answer.possible

    def asked(self, replica: Connected, request: Asked) -> Answer:
        answer: Answer = replica.ask(request, self._timeout)
        return answer
