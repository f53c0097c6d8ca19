"""A replica: an interpreter that has the app, and answers requests that come over a socket.

`python -m unsticky.statelessness.replica FD OPTIONS` is a *boot*: it imports the app once, and forks replicas off.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from fcntl import F_GETFL, fcntl
from typing import Any

import msgspec

from . import ablation, advice, disks, orphans, walk
from .running import NoApp, Running, find, kind_of, running
from .wire import Answer, Asked, Changed, End, Fork, Held, Hello, Keep, Kept, Message, Serve, Snapshot, receive, send

_AT_ONCE = 0.2  # seconds
_OPEN = "/proc/self/fd"  # on Linux; elsewhere open files are not seen


class Options(msgspec.Struct):
    """What a boot is told."""

    name: str
    app: str
    isolation: str
    shared: list[str]
    own: str  # a directory for files that are kept aside
    key: str  # of fingerprints, in hexadecimal
    state: str  # a directory that all replicas share
    parent: int  # the process of the check
    packages: list[str] = []  # whose values are looked at; empty: the package of the app


def main(arguments: list[str]) -> None:
    connection = socket.socket(fileno=int(arguments[0]))
    options = msgspec.json.decode(arguments[1], type=Options)
    mark = os.environ.get(orphans.MARK, "")  # before the app can change it
    orphans.die_with(options.parent)
    place = orphans.Place(os.path.dirname(options.own))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the check ends us; its terminal's Ctrl-C is for it
    try:
        boot = _Boot(options, connection)
    except NoApp as problem:
        send(connection, Hello(options.name, os.getpid(), problem=str(problem)))
        return
    if not boot.serve():
        orphans.clean_up(options.parent, mark, options.own, options.state, place)


class _Boot:
    """The first process: what its replicas have in common."""

    def __init__(self, options: Options, connection: socket.socket) -> None:
        self._connection = connection
        self._options = options
        try:
            self._disk = disks.choose(options.isolation, options.shared, options.own)
            self._disk.boot()
            orphans.die_with(options.parent)  # again: a user namespace gave new rights
        except OSError as error:
            raise NoApp(f"--isolate {options.isolation}: not allowed here: {error}") from error
        self._writes = _Writes()
        self._app = find(options.app)
        self._kind = kind_of(self._app)
        self._packages = tuple(options.packages or [options.app.partition(":")[0].partition(".")[0]])
        self._roots: dict[str, Any] = {"the app object": self._app}
        self._put_back: Callable[[], None] | None = None

    def _look(self) -> walk.Held:
        return walk.held(self._packages, self._roots, bytes.fromhex(self._options.key))

    def serve(self) -> bool:
        """Fork replicas, or be one, as long as there is a check. Whether it said that this is the end."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # replicas are reaped by the system
        files = [path for path in dict.fromkeys(_held_files()) if self._counts(path)]
        self._disk.leave()
        hello = Hello(
            self._options.name, os.getpid(), self._kind, _lasting_threads(), files, self._disk.name,
            document=self._document(),
        )  # fmt: skip
        send(self._connection, hello)
        orphans.outlive()
        while isinstance(message := receive(self._connection), (Fork, Serve, Snapshot)):
            if isinstance(message, Snapshot):
                send(self._connection, Held(self._look()))
            elif isinstance(message, Serve):
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                orphans.die_with(self._options.parent)
                return self.replica(message.name, self._connection)
            else:
                _, fds, _, _ = socket.recv_fds(self._connection, 1, 1)
                self._fork(message.name, socket.socket(fileno=fds[0]))
        return False

    def _fork(self, name: str, connection: socket.socket) -> None:
        boot = os.getpid()
        if os.fork():
            connection.close()
            return
        status = 1
        try:
            orphans.die_with(boot)
            self._connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            random.seed()  # as a process has it that begins anew
            self._disk.fork(name)
            self.replica(name, connection)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def replica(self, name: str, connection: socket.socket) -> bool:
        """Answer requests until the end. Whether it was said, and the check is there."""
        try:
            self._disk.enter()
            app = running(self._app, self._kind)
            self._roots["the lifespan's state"] = app.state
            self._disk.leave()
        except NoApp as problem:
            send(connection, Hello(name, os.getpid(), problem=str(problem)))
            return False
        send(connection, Hello(name, os.getpid(), self._kind, isolation=self._disk.name))
        while not isinstance(message := self._next(app, connection), (End, type(None))):
            send(connection, self._answer(app, message))
        self._disk.enter()
        app.close()
        self._disk.leave()
        return isinstance(message, End)

    def _next(self, app: Running, connection: socket.socket) -> Any:
        app.idle(connection)
        return receive(connection)

    def _answer(self, app: Running, message: Message) -> Message:
        if isinstance(message, Snapshot):
            return Held(self._look())
        if isinstance(message, Keep):
            self._put_back = self._kept(message.name)
            return Kept(self._put_back is not None)
        assert isinstance(message, Asked)
        self._disk.enter()
        if self._put_back is not None:
            self._put_back()
        before = self._look() if message.watched else {}
        self._writes.begin()
        answer: Answer = app.ask(message)
        files = self._writes.end()
        if message.watched:
            names = walk.differences(before, self._look())
            answer.changed = [Changed(name, walk.place(name), self._library(name)) for name in names]
        files += self._disk.leave()
        answer.files = [path for path in dict.fromkeys(files) if self._counts(path)]
        return answer

    def _library(self, name: str) -> str:
        holders = ablation.holders(name, walk.variables(self._packages), self._roots)
        return advice.library(type(holder).__module__ for holder in holders)

    def _kept(self, name: str) -> Callable[[], None] | None:
        if name.startswith("/"):
            return ablation.keep_file(name) if self._disk.name == "ns" else None
        try:
            return ablation.keep(name, walk.variables(self._packages), self._roots)
        except Exception:  # an object that does not let itself be looked at
            return None

    def _counts(self, path: str) -> bool:
        return not disks.passed(path) and not any(
            disks.inside(path, place) for place in (*self._options.shared, os.path.realpath(self._options.own))
        )

    def _document(self) -> bytes:
        """The app's own OpenAPI document, where it makes one as FastAPI does."""
        make = getattr(self._app, "openapi", None)
        try:
            return json.dumps(make()).encode() if callable(make) else b""
        except Exception:
            return b""


def _lasting_threads() -> list[str]:
    """Those that importing the app started, but for timers that fire at once: a fork would lose them."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    for thread in others:
        thread.join(_AT_ONCE / len(others))
    return [thread.name for thread in others if thread.is_alive()]


def _held_files() -> Iterator[str]:
    """Those that importing the app opened and left open to write to, as a database is; not logs, which only grow."""
    numbers = [int(name) for name in os.listdir(_OPEN)] if os.path.isdir(_OPEN) else []
    for number in numbers:
        try:
            flags, path = fcntl(number, F_GETFL), os.readlink(f"{_OPEN}/{number}")
        except OSError:  # that of the listing itself
            continue
        writes = flags & (os.O_WRONLY | os.O_RDWR) and not flags & os.O_APPEND
        if writes and number > 2 and os.path.isfile(path):
            yield path


class _Writes:
    """The files that are opened for writing, or made, while a request is served."""

    def __init__(self) -> None:
        self._paths: dict[str, None] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._paths is not None:
            for path in disks.written(event, arguments):
                self._paths[os.path.abspath(path)] = None

    def begin(self) -> None:
        self._paths = {}

    def end(self) -> list[str]:
        """Those that are still there: what is gone again was nobody's state."""
        paths, self._paths = self._paths or {}, None
        return [path for path in paths if os.path.isfile(path)]


if __name__ == "__main__":
    main(sys.argv[1:])
