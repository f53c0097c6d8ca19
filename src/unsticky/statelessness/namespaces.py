"""Linux's mount namespaces and overlays, through the C library: a process gets a disk of its own in a millisecond.

The overlays' upper layers are in memory, on a tmpfs over /dev/shm that only this namespace sees. All of it goes with
the last process of the namespace; nothing has to be cleaned up.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import tempfile
from collections.abc import Sequence

_NEWNS, _NEWUSER = 0x20000, 0x10000000
_BIND, _REC, _PRIVATE, _DETACH = 0x1000, 0x4000, 0x40000, 2
_BASE = "/dev/shm"  # always there on Linux, and no place that an app's own files are in


_SYSTEM = ("/dev", "/proc", "/run", "/sys")


def private_roots() -> list[str]:
    """What shall be private: the directories below / and what is mounted on them, the outer ones first."""
    tops = [f"/{name}" for name in sorted(os.listdir("/"))]
    found = {path for path in tops if os.path.isdir(path) and not os.path.islink(path)}
    return sorted(path for path in found | set(_mounted()) if not path.startswith(_SYSTEM) and os.path.isdir(path))


def below_no_mount(roots: Sequence[str], mounted: Sequence[str], places: Sequence[str]) -> list[str]:
    """The same roots for one who may not overlay what other mounts lie in: a user's namespace has those locked.

    Instead of such a root, the topmost directories in it that hold one of `places`, and no mount.
    """
    found: dict[str, None] = {}
    for root in roots:
        if not _holds_mounts(root, mounted):
            found[root] = None
            continue
        for place in places:
            parts = place.removeprefix(root).strip("/").split("/")
            ways = [root + "".join(f"/{part}" for part in parts[:count]) for count in range(1, len(parts) + 1)]
            if place.startswith(f"{root}/"):
                found.update(dict.fromkeys([way for way in ways if not _holds_mounts(way, mounted)][:1]))
    return sorted(found)


def _holds_mounts(root: str, mounted: Sequence[str]) -> bool:
    return any(path.startswith(f"{root}/") for path in mounted)


def _mounted() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [path for line in file if (path := _unescaped(line.split()[4])) != "/"]


def _unescaped(path: str) -> str:
    """Blanks and the like are written in octal there."""
    return path.encode("latin-1", "replace").decode("unicode_escape") if "\\" in path else path


class Overlays:
    """Private views of `roots`, with `shared` paths as they are."""

    def __init__(self, roots: Sequence[str], shared: Sequence[str]) -> None:
        """Goes into a namespace. Raises OSError where that is not allowed, perhaps after the first steps."""
        if sys.platform != "linux" or not os.path.isdir(_BASE):
            raise OSError("this system has no mount namespaces")
        self._libc = ctypes.CDLL(None, use_errno=True)
        # Where an app writes, if nothing else is said. If these can't be private, it is better to say so.
        self._places = [os.path.realpath(path) for path in (os.getcwd(), tempfile.gettempdir())]
        files = [path for path in _mounted() if os.path.isfile(path) and not path.startswith(_SYSTEM)]
        self._shared = [*files, *(path for path in shared if os.path.exists(path))]
        self._uppers: dict[str, int] = {}  # open directories, by root
        self._layers: list[str] = []  # names of the upper layers so far, the newest last
        self._user = self._unshare()
        self._roots = below_no_mount(roots, _mounted(), self._places) if self._user else list(roots)
        self._mount(None, "/", None, _REC | _PRIVATE)
        self._mount("tmpfs", _BASE, "tmpfs")
        for kind, paths in (("original", self._roots), ("shared", self._shared)):
            for number, path in enumerate(paths):
                self._bind(path, f"{_BASE}/{kind}/{number}")

    def enter(self, name: str) -> None:
        """From now on writes go into a layer of this process's own, above those of its parent.

        Raises OSError where the app's own directories can't be private; then all is as it was.
        """
        if self._layers:
            self._call("unshare", _NEWNS)
            self._mount(None, "/", None, _REC | _PRIVATE)
        here = os.getcwd()
        private = []
        for number, root in enumerate(self._roots):
            below = [f"{_BASE}/layers/{layer}/{number}/upper" for layer in reversed(self._layers)]
            try:
                self._overlay(root, [*below, f"{_BASE}/original/{number}"], f"{_BASE}/layers/{name}/{number}")
                private.append(root)
            except OSError:  # a file system that no overlay goes over stays as it is, also if it is mounted on another
                self._mount(f"{_BASE}/original/{number}", root, None, _BIND | _REC)
        if exposed := [path for path in self._places if not self._is_private(path, private)]:
            for root in reversed(self._roots):
                self._call("umount2", os.fsencode(root), _DETACH)
            raise OSError(f"no disk of its own for {exposed[0]}")
        for number, path in enumerate(self._shared):
            self._mount(f"{_BASE}/shared/{number}", path, None, _BIND)
        self._uppers = {
            root: os.open(f"{_BASE}/layers/{name}/{number}/upper", os.O_PATH) for number, root in enumerate(self._roots)
        }
        os.chdir(here)  # into the overlay: a working directory stays where it was opened
        self._layers.append(name)
        if len(self._layers) > 1:
            self._mount("tmpfs", _BASE, "tmpfs")  # shared memory of its own, too

    def _is_private(self, path: str, private: Sequence[str]) -> bool:
        """Whether the innermost root that holds it is an overlay, and its owner known in this namespace."""
        within = [root for root in self._roots if path == root or path.startswith(f"{root}/")]
        known = not self._user or not os.access(path, os.W_OK) or os.stat(path).st_uid == os.getuid()
        return bool(within) and max(within, key=len) in private and known

    def written(self) -> dict[str, tuple[int, int]]:
        """The files of this process's own layer: their sizes and times of change, by path."""
        found = {}
        for root, upper in self._uppers.items():
            top = f"/proc/self/fd/{upper}"
            for folder, _, names in os.walk(top):
                for name in names:
                    seen = os.lstat(os.path.join(folder, name))
                    if stat.S_ISREG(seen.st_mode):
                        found[root + os.path.join(folder, name)[len(top) :]] = seen.st_size, seen.st_mtime_ns
        return found

    def _overlay(self, root: str, lower: Sequence[str], upper: str) -> None:
        for part in ("upper", "work"):
            os.makedirs(f"{upper}/{part}")
        options = f"lowerdir={':'.join(lower)},upperdir={upper}/upper,workdir={upper}/work"
        self._mount("overlay", root, "overlay", 0, options + (",userxattr" if self._user else ""))

    def _bind(self, path: str, place: str) -> None:
        if os.path.isdir(path):
            os.makedirs(place)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            open(place, "x").close()
        self._mount(path, place, None, _BIND | _REC)  # a user's namespace may not tear mounts off what they are on

    def _unshare(self) -> bool:
        """True if it took a user namespace."""
        try:
            self._call("unshare", _NEWNS)
            return False
        except OSError:
            ids = os.getuid(), os.getgid()
            self._call("unshare", _NEWNS | _NEWUSER)
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {ids[0]} 1"), ("gid_map", f"0 {ids[1]} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
            return True

    def _mount(self, source: str | None, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
        encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
        self._call("mount", *encoded, ctypes.c_ulong(flags), options.encode() or None)

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
