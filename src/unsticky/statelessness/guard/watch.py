"""The guard of one app: what its requests leave behind in this process."""

from __future__ import annotations

import itertools
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from ...clock import Clock
from ...errors import LocalStateRefused
from ...guard.options import StatelessnessOptions
from ...guard.rates import Rates
from ...guard.snapshot import Probe, Snapshot
from ...guard.violations import Limit, Violation
from ...telemetry import otel
from ...worker import in_forked_children
from .. import walk
from ..advice import advice_by_name
from ..disks import inside, passed
from . import audit, frozen, packages
from .audit import Record

log = logging.getLogger("unsticky.statelessness")

_MOST_ARMED = 8
_MOST_PATHS = 64  # that one request, or what belongs to none, is remembered for
_DEEPEST = 80  # frames
_LOGS = re.compile(r"\.log(\.[^/]*)?$")
_POOLED = re.compile(r"ThreadPoolExecutor|AnyIO|asyncio_|unsticky|Otel|process_request_thread|waitress|Dummy|pydevd")
_NUMBER = re.compile(r"\d+")


class Guard:
    """Called by a host: `begin`, `leave` while the request's span is open, `over` when nothing of it runs any more."""

    def __init__(self, options: StatelessnessOptions, clock: Clock, own_files: Iterable[str] = ()) -> None:
        """`own_files`: what unsticky itself writes, such as the sessions' database."""
        self.options = options
        self.app: Any = None
        self._clock = clock
        self._enforces = options.guard == "enforce"
        self._shared = [os.path.realpath(path) for path in (*options.shared, *own_files)]
        tempfile.gettempdir()  # now: to find it, Python writes a file
        self._places: dict[str, str] = {}
        self._begin_anew()
        in_forked_children(self._begin_anew)
        audit.watch(self)

    def _begin_anew(self) -> None:
        self._own = packages.is_own(self.options.packages)
        self._known = False
        self._served = itertools.count(1)
        self._latest = 0
        self._in_flight: set[Record] = set()
        self._looking = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._modules = 0
        self._next_look = max(self.options.warm_up, 1)
        self._armed: dict[str, tuple[Probe, Rates]] = {}
        self._threads: frozenset[int | None] = frozenset()
        self._suspected_threads: dict[int | None, str] = {}
        self._unowned: dict[str, Violation] = {}  # by path: what no request wrote
        self._has_served = self._is_frozen = False
        self._limit = Limit(self._clock)

    def know(self, app: Any) -> None:
        """The app, as soon as it is there: by it the packages are found."""
        self.app = app
        self._own = packages.is_own(self.options.packages or packages.packages_of(app))
        self._known = True

    @property
    def is_known(self) -> bool:
        return self._known

    # A request.

    def begin(self) -> Record:
        """A request begins. Whatever runs of it runs with the record as `audit.current`."""
        if self._has_served and not self._is_frozen:
            self._is_frozen = True
            frozen.freeze(self.app, self._changing)
        record = Record(self)
        self._in_flight.add(record)
        record.number = self._latest = next(self._served)
        record.alone = len(self._in_flight) == 1
        if self._armed:
            record.before = [(name, probe.look()) for name, (probe, _) in list(self._armed.items())]
        return record

    def has_seen(self, record: Record) -> bool:
        """Whether it has changed a variable that is looked at."""
        armed = self._armed
        return any(name in armed and armed[name][0].look() != seen for name, seen in record.before or ())

    def leave(self, record: Record, *, files: bool = True) -> None:
        """Its view is done: look, and tell. Once per request; further calls do nothing.

        Without `files`, they are told when it is over: a background task may take them away.
        """
        if record.left:
            return
        record.left = self._has_served = True
        self._in_flight.discard(record)
        try:
            self._examine(record, files)
        except Exception:  # nothing that goes wrong here is the request's
            if self._limit.allows("the guard itself"):
                log.exception("The guard could not look at a request")

    def _examine(self, record: Record, files: bool) -> None:
        if record.before is not None:
            self._compare(record, record.before)
        if record.number >= self._next_look and self._looking.acquire(blocking=False):
            try:
                self._look(record.number)
            finally:
                self._looking.release()
        if record.written and files:
            self._tell_files(record, temporary=False)
        if self._unowned:
            for path in list(self._unowned):
                found = self._unowned.pop(path, None)
                if found is not None and os.path.exists(path):
                    self._tell(found)

    def over(self, record: Record) -> None:
        """Nothing of it runs any more, its body included. Temporary files that are still there are no longer that."""
        if record.over:
            return
        self.leave(record)
        record.over = True
        if record.written:
            self._tell_files(record, temporary=True)

    # Memory.

    def _look(self, number: int) -> None:
        self._next_look = number + self.options.sweep_every
        snapshot = self._snapshot
        if snapshot is None or not snapshot.is_same() or len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            self._snapshot = Snapshot(packages.namespaces(self.app, self._own), self._own, self._allowed)
            if snapshot is not None:
                self._arm(snapshot.changed(self._snapshot), self._snapshot)
        self._look_at_threads(first=snapshot is None)

    def _arm(self, names: Iterable[str], snapshot: Snapshot) -> None:
        """From the next request on they are looked at before and after each."""
        for name in sorted(names):
            if len(self._armed) >= _MOST_ARMED:
                return
            probe = snapshot.probe(name)
            if probe is not None and name not in self._armed and not self._limit.is_silent(name):
                self._armed[name] = probe, Rates()

    def _compare(self, record: Record, before: list[tuple[str, object]]) -> None:
        alone = record.alone and self._latest == record.number
        for name, seen in before:
            armed = self._armed.get(name)
            if armed is None:
                continue
            probe, rates = armed
            rates.saw(record.endpoint, changed=probe.look() != seen, alone=alone)
            if rates.is_known or rates.is_over:
                self._armed.pop(name, None)
                if rates.is_known:
                    self._tell_memory(name, rates)

    def _tell_memory(self, name: str, rates: Rates) -> None:
        culprit = rates.culprit()
        endpoint, rate = (culprit.endpoint, culprit.rate) if culprit else ("", None)
        self._tell(Violation("memory", name, endpoint=endpoint, endpoint_rate=rate, source_line=self._place(name)))

    def _place(self, variable: str) -> str:
        if variable not in self._places and len(self._places) < 256:
            self._places[variable] = walk.place(variable)
        return self._places.get(variable, "")

    def _allowed(self, name: str) -> bool:
        return any(name == pattern or fnmatchcase(name, pattern) for pattern in self.options.allow)

    def _look_at_threads(self, *, first: bool) -> None:
        """Python 3.11 tells nobody of a thread's start: one that stays for two looks, and was not at first, is told."""
        alive = {thread.ident: thread.name for thread in threading.enumerate()}
        if first:
            self._threads = frozenset(alive)
        for ident, name in self._suspected_threads.items():
            if alive.get(ident) == name:
                self._tell(Violation("thread", _NUMBER.sub("N", name)))
        new = {key: name for key, name in alive.items() if key not in self._threads and not _POOLED.search(name)}
        self._suspected_threads = {key: name for key, name in new.items() if key not in self._suspected_threads}
        self._threads = frozenset(alive) - self._suspected_threads.keys()

    # Files.

    def wrote(self, record: Record | None, kind: str, path: str) -> None:
        """Before it happens, from the audit hook. Raises LocalStateRefused."""
        full = os.path.realpath(path)
        if passed(full) or any(inside(full, root) or _is_beside(full, root) for root in self._shared):
            return
        if kind == "file" and os.path.isdir(full):  # how temporary files without a name are opened
            return
        if record is None:
            self._note_unowned(kind, full)
            return
        record.written = {} if record.written is None else record.written
        if full in record.written or len(record.written) >= _MOST_PATHS:
            return
        found = self._found(kind, full, record.endpoint)
        temporary = self._is_temporary(record, full)
        if self._enforces and not temporary and found.verdict == "SUSPECT" and not _is_importing():
            raise self._refused(found)
        if record.over:  # by a task or thread that it left behind
            self._unowned[full] = found
        else:
            record.written[full] = found, temporary

    def _note_unowned(self, kind: str, path: str) -> None:
        """Before the first request only databases count: they stay open."""
        if any(inside(path, made) for made in list(audit.unowned_temporary)):
            return
        if (kind == "sqlite" or self._latest) and path not in self._unowned and len(self._unowned) < _MOST_PATHS:
            self._unowned[path] = self._found(kind, path, "")

    def _found(self, kind: str, path: str, endpoint: str) -> Violation:
        verdict: Any = "INFO" if kind == "file" and _is_log(path) else "SUSPECT"
        told: Any = kind
        return Violation(told, shown(kind, path), verdict, endpoint, source_line=self._caller())

    def _caller(self) -> str:
        """The innermost line of the app's own code."""
        frame = sys._getframe(1)
        for _ in range(_DEEPEST):
            if self._own(frame.f_globals.get("__name__", "")):
                return f"{os.path.relpath(frame.f_code.co_filename)}:{frame.f_lineno}"
            if frame.f_back is None:
                break
            frame = frame.f_back
        return ""

    def _is_temporary(self, record: Record, path: str) -> bool:
        return record.temporary is not None and any(inside(path, made) for made in list(record.temporary))

    def _tell_files(self, record: Record, *, temporary: bool) -> None:
        """Those that are there. `temporary`: those that `tempfile` made, too."""
        for path, (found, of_tempfile) in list((record.written or {}).items()):
            if temporary or not of_tempfile:
                del record.written[path]  # type: ignore[union-attr]
                if os.path.exists(path):
                    self._tell(found)

    # What is said of it.

    def _refused(self, found: Violation) -> LocalStateRefused:
        self._tell(Violation(found.kind, found.name, "SUSPECT", found.endpoint, None, found.source_line, True))
        who = found.endpoint or "this request"
        what = "local database" if found.kind == "sqlite" else "local file"
        instead = "a database that all replicas reach" if found.kind == "sqlite" else "an object store, or a database"
        return LocalStateRefused(
            f"{who} would write the {what} {found.name}, which no other replica sees. Use the session, or {instead}. "
            f'If all replicas see it, declare it: [statelessness] shared = ["{os.path.dirname(found.name)}"]'
        )

    def _changing(self, name: str) -> LocalStateRefused | None:
        """Before `app.config` or `app.state` changes; the refusal, if it is to be refused."""
        if self._allowed(name):
            return None
        record = audit.current.get()
        endpoint = record.endpoint if record else ""
        self._tell(Violation("config", name, "SUSPECT", endpoint, None, self._caller(), self._enforces))
        if not self._enforces:
            return None
        return LocalStateRefused(
            f"{name} can't be changed after the first request: no other replica would see it. Set it at start-up, or "
            f'use the session or a store. If it is local on purpose, allow it: [statelessness] allow = ["{name}"]'
        )

    def _tell(self, found: Violation) -> None:
        if not self._limit.allows(found.name):
            return
        otel.stateless_violation(found.attributes())
        log.log(logging.WARNING if found.verdict == "SUSPECT" else logging.INFO, "%s", line(found))


def line(found: Violation) -> str:
    """For a person: what, where, who, what to do."""
    where = f" ({found.source_line})" if found.source_line else ""
    rate = "" if found.endpoint_rate is None else f" in {found.endpoint_rate:.0%} of its requests"
    did = {"memory": "changed", "thread": "was started"}.get(found.kind, "was written" if found.is_path else "changed")
    did, by = ("was refused", "to") if found.refused else (did, "by")
    who = f" {by} {found.endpoint}{rate}" if found.endpoint else ""
    return f"{found.verdict} {found.name}{where} {did}{who}{_remedy(found)}"


def _remedy(found: Violation) -> str:
    if found.verdict == "INFO" or found.kind == "thread":
        return ""
    if found.is_path:
        return "; use a store that all replicas reach; if all see this one, declare it: [statelessness] shared"
    return f"; {advice_by_name(found.name, sys.modules)}"


def shown(kind: str, path: str) -> str:
    """A path without the file's name, which may be a user's; a database's is the app's."""
    if kind == "sqlite":
        return path
    folder, name = os.path.split(path)
    return os.path.join(folder, "*" + os.path.splitext(name)[1])


def _is_log(path: str) -> bool:
    if _LOGS.search(path):
        return True
    handlers = (reference() for reference in list(logging._handlerList))  # type: ignore[attr-defined]
    return any(path == os.path.realpath(name) for one in handlers if (name := getattr(one, "baseFilename", None)))


def _is_beside(path: str, database: str) -> bool:
    return path in (f"{database}-wal", f"{database}-shm", f"{database}-journal")


def _is_importing() -> bool:
    """What a module writes while it is imported belongs to the start, whenever that is."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False
