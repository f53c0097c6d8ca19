"""What the system says about this process: CPU, memory, network. What it does not say is None."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .cgroups import groups, quiet


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment. Counters only grow; what they mean is the difference of two samples."""

    time: float  # monotonic seconds
    cpu: float  # seconds that this process used, all threads
    cores: float  # that it can use
    group_cpu: float | None = None  # seconds that its control group used
    quota: float | None = None  # cores that the group may use
    memory: float | None = None  # used of what is allowed, from 0 to 1
    network: tuple[int, int] | None = None  # bytes received and sent by all interfaces but the loopback


class System:
    """Reads samples. Where things stand is found once, limits are read each time: they can change meanwhile."""

    def __init__(self, proc: Path = Path("/proc"), *, network: bool = False) -> None:
        """`network`: count bytes as well."""
        self._proc = proc
        self._network = network
        self._cpu = groups(proc, "cpu")
        self._memory = groups(proc, "memory")

    def sample(self, now: float) -> Sample:
        """`now` is monotonic seconds. Reads a handful of small files, and never raises."""
        quotas = [(quota, group) for group in self._cpu if (quota := quiet(group.cores))]
        quota, group = min(quotas, key=lambda one: one[0], default=(None, None))
        return Sample(
            time=now,
            cpu=time.process_time(),
            cores=_cores(quota),
            group_cpu=quiet(group.cpu_seconds) if group else None,
            quota=quota,
            memory=self._memory_used(),
            network=quiet(lambda: _bytes(self._proc)) if self._network else None,
        )

    def _memory_used(self) -> float | None:
        """Of the tightest group, else of the machine."""
        used = [part for group in self._memory if (part := quiet(group.memory)) is not None]
        return max(used) if used else quiet(lambda: _machine_memory(self._proc))


def _cores(quota: float | None) -> float:
    """Under the GIL one process has one core at most, whatever the machine has."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    cores = 1.0 if locked else float(_allowed_cores())
    return cores if quota is None else min(cores, quota)


def _allowed_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine_memory(proc: Path) -> float:
    lines = (line.split() for line in (proc / "meminfo").read_text("ascii").splitlines())
    sizes = {fields[0]: int(fields[1]) for fields in lines}
    return 1 - sizes["MemAvailable:"] / sizes["MemTotal:"]


def _bytes(proc: Path) -> tuple[int, int]:
    received = sent = 0
    for line in (proc / "self/net/dev").read_text("ascii").splitlines()[2:]:
        name, _, counts = line.partition(":")
        if name.strip() != "lo":
            fields = counts.split()
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent
