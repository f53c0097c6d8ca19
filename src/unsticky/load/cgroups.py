"""Control groups of Linux, version 1 and 2: where this process's are, and what they allow and use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_HUGE = 1 << 60  # bytes: version 1 writes "no limit" as a number near 2^63


@dataclass(frozen=True, slots=True)
class Group:
    """A directory of a control group. `accounts` is where its CPU time stands: a directory of its own in version 1."""

    path: Path
    v2: bool
    accounts: Path

    def cores(self) -> float | None:
        """How many it may use; None: no limit."""
        if self.v2:
            quota, period = (self.path / "cpu.max").read_text("ascii").split()
            return None if quota == "max" else int(quota) / int(period)
        micros = _number(self.path / "cpu.cfs_quota_us")
        return None if micros < 0 else micros / _number(self.path / "cpu.cfs_period_us")

    def cpu_seconds(self) -> float:
        """What it used so far, ended processes included."""
        if self.v2:
            return _entry(self.accounts / "cpu.stat", "usage_usec") / 1e6
        return _number(self.accounts / "cpuacct.usage") / 1e9

    def memory(self) -> float | None:
        """The used part of what is allowed; None: no limit. File pages that the kernel drops first are not counted."""
        names = ("memory.max", "memory.current", "inactive_file")
        if not self.v2:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit = (self.path / names[0]).read_text("ascii").strip()
        if limit == "max" or not 0 < int(limit) < _HUGE:
            return None
        used = _number(self.path / names[1]) - _entry(self.path / "memory.stat", names[2])
        return max(0, used) / int(limit)


def groups(proc: Path, controller: str) -> list[Group]:
    """This process's own group and those around it, as far as they are mounted. Empty without any."""
    return quiet(lambda: _groups(proc, controller)) or []


def _groups(proc: Path, controller: str) -> list[Group]:
    paths = _paths(proc)
    v2 = controller not in paths
    levels = _levels(proc, "" if v2 else controller, paths)
    accounts = levels if v2 or controller != "cpu" else _levels(proc, "cpuacct", paths)
    return [Group(path, v2, other) for path, other in zip(levels, accounts, strict=False)]


def _paths(proc: Path) -> dict[str, str]:
    """By controller; that of version 2 has no name."""
    found: dict[str, str] = {}
    for line in (proc / "self/cgroup").read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _levels(proc: Path, controller: str, paths: dict[str, str]) -> list[Path]:
    mount, root = _mount(proc, controller)
    path = paths[controller]
    # Inside of a container the path may be the host's, while its own group is what is mounted.
    below = path[len(root) :] if root != "/" and path.startswith(root) else path
    own = mount / below.strip("/")
    own = own if own.is_dir() else mount
    return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]


def _mount(proc: Path, controller: str) -> tuple[Path, str]:
    """Where a controller is mounted, and what of its tree."""
    for line in (proc / "self/mountinfo").read_text("utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == ("cgroup" if controller else "cgroup2") and (not controller or controller in options.split(",")):
            fields = before.split(" ")
            return Path(fields[4]), fields[3]
    raise FileNotFoundError(controller)


def quiet(read: Callable[[], T]) -> T | None:
    """What `read` returns; None if it is not there, may not be read, or looks otherwise than it should."""
    try:
        return read()
    except (OSError, ValueError, LookupError, ZeroDivisionError):
        return None


def _number(path: Path) -> int:
    return int(path.read_text("ascii"))


def _entry(path: Path, name: str) -> int:
    """Of a file with a name and a number on each line."""
    for line in path.read_text("ascii").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    raise LookupError(name)
