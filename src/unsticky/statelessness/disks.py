"""What a replica writes to disk is its own, as on a machine of its own. Only declared paths are shared.

Two ways. In a mount namespace of its own (Linux, as root or where users may have namespaces) a replica sees overlays of
all directories and of what is mounted on them: whoever writes, also a child process, writes into memory.
Elsewhere the interpreter's audit hook sees what is opened for writing, keeps the original aside, and the replica's
version is swapped in for its own requests only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from . import namespaces

_PASSED = ("/dev/", "/proc/", "/sys/")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Disk(Protocol):
    """A boot's view of the disk. Called in the boot's process, and then in its replicas'."""

    name: str

    def boot(self) -> None:
        """Before the app is imported."""

    def fork(self, replica: str) -> None:
        """In a replica that has just been forked."""

    def enter(self) -> None:
        """Before a request."""

    def leave(self) -> list[str]:
        """After it. Returns what was written, as far as it was seen."""


def choose(wanted: str, shared: Sequence[str], own: str) -> Disk:
    """`wanted`: auto, ns, swap or none; `own`: where files are kept aside. Raises OSError if ns can't be had."""
    if wanted == "none":
        return Unprotected()
    if wanted in ("auto", "ns"):
        try:
            return Namespaced(shared)
        except OSError:
            if wanted == "ns":
                raise
    return Swapped(shared, own)


class Unprotected:
    name = "none"

    def boot(self) -> None: ...
    def fork(self, replica: str) -> None: ...
    def enter(self) -> None: ...
    def leave(self) -> list[str]:
        return []


class Namespaced(Unprotected):
    name = "ns"

    def __init__(self, shared: Sequence[str]) -> None:
        """Raises OSError where this system does not allow it; then nothing has changed."""
        self._overlays = namespaces.Overlays(namespaces.private_roots(), [os.path.realpath(path) for path in shared])
        self._overlays.enter("boot")
        self._before: dict[str, tuple[int, int]] = {}

    def fork(self, replica: str) -> None:
        self._overlays.enter(replica)

    def enter(self) -> None:
        self._before = self._overlays.written()

    def leave(self) -> list[str]:
        """What child processes wrote, too."""
        now = self._overlays.written()
        return [path for path, seen in now.items() if self._before.get(path) != seen]


class Swapped(Unprotected):
    """Files are kept by the number of their first writing: `originals` of the host, `versions` of this replica."""

    name = "swap"

    def __init__(self, shared: Sequence[str], own: str) -> None:
        self._shared = [os.path.realpath(path) for path in (*shared, own)]
        self._own = Path(own)
        self._kept: dict[str, Path] = {}  # by path; the file is absent if there was none
        self._versions = self._own
        self._busy = False
        self._active = False

    def boot(self) -> None:
        self._begin("boot")
        sys.addaudithook(self._hook)
        self._active = True

    def fork(self, replica: str) -> None:
        """The replica begins with what the boot wrote, which lies in the boot's versions by then."""
        boot, kept = self._versions, dict(self._kept)
        self._begin(replica)
        for path, original in kept.items():
            self._kept[path] = original
            _copy(boot / original.name, self._versions / original.name)

    def enter(self) -> None:
        """This replica's versions take the place of the originals."""
        with self._quietly():
            for path, original in self._kept.items():
                _copy(self._versions / original.name, Path(path))
        self._active = True

    def leave(self) -> list[str]:
        self._active = False
        changed = []
        with self._quietly():
            for path, original in self._kept.items():
                if not _same(Path(path), self._versions / original.name):
                    changed.append(path)
                _copy(Path(path), self._versions / original.name)
                _copy(original, Path(path))
        return [path for path in changed if os.path.exists(self._versions / self._kept[path].name)]

    def _begin(self, name: str) -> None:
        self._versions = self._own / f"{name}-{os.getpid()}"
        self._versions.mkdir(parents=True, exist_ok=True)
        self._originals = self._versions / "originals"
        self._originals.mkdir(exist_ok=True)
        self._active = name != "boot"

    def _quietly(self) -> _Quiet:
        return _Quiet(self)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self._active or self._busy:
            return
        for path in _touched(event, arguments):
            self._keep(path)

    def _keep(self, path: str) -> None:
        full = os.path.realpath(path)
        if full in self._kept or passed(full):
            return
        if any(inside(full, shared) for shared in self._shared) or os.path.isdir(full):
            return
        with self._quietly():
            original = self._originals / f"{len(self._kept)}-{os.path.basename(full)[-100:]}"
            _copy(Path(full), original)
            # Before the app writes: whoever ends us, the check puts the originals back.
            with open(self._originals / JOURNAL, "ab") as journal:
                journal.write(os.fsencode(f"{original.name}\0{full}\0"))
            self._kept[full] = original


JOURNAL = "journal"


def put_back(own: str) -> None:
    """The host's files as they were before the first replica wrote to them. For when no replica runs any more."""
    for journal in sorted(
        Path(own).glob(f"*/originals/{JOURNAL}"), key=lambda path: path.stat().st_mtime_ns, reverse=True
    ):
        parts = os.fsdecode(journal.read_bytes()).split("\0")
        for name, path in zip(parts[0::2], parts[1::2], strict=False):
            _copy(journal.parent / name, Path(path))


class _Quiet:
    """The hook does not look at what we do ourselves."""

    def __init__(self, disk: Swapped) -> None:
        self._disk = disk

    def __enter__(self) -> None:
        self._disk._busy = True

    def __exit__(self, *_: object) -> None:
        self._disk._busy = False


def passed(path: str) -> bool:
    """Whether it is no file of an app's: devices, and what the interpreter compiles."""
    return path.startswith(_PASSED) or "__pycache__" in path


def written(event: str, arguments: tuple[object, ...]) -> list[str]:
    """The paths that an audit event is about to change."""
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & _WRITING
        return [os.fsdecode(path)] if writes and isinstance(path, (str, bytes)) else []
    if event in ("os.remove", "os.truncate", "os.rename", "os.link"):
        return [os.fsdecode(path) for path in arguments[:2] if isinstance(path, (str, bytes))]
    return []


def _touched(event: str, arguments: tuple[object, ...]) -> list[str]:
    """The same, with the files of a database: SQLite opens them without the interpreter."""
    if event != "sqlite3.connect":
        return written(event, arguments)
    path = str(arguments[0]).removeprefix("file:").partition("?")[0]
    return [] if path in ("", ":memory:") else [path, f"{path}-wal", f"{path}-shm", f"{path}-journal"]


def inside(path: str, root: str) -> bool:
    """Whether `path` is `root`, or below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def _copy(source: Path, target: Path) -> None:
    """`target` becomes what `source` is, which may be nothing."""
    if source.is_file():
        shutil.copy2(source, target)
    elif target.is_file():
        target.unlink()


def _same(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()):
        return one.is_file() == other.is_file()
    return one.read_bytes() == other.read_bytes()
