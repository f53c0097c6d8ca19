"""What boots and replicas do when the check is killed and can end nothing any more, even while an app's request hangs.

A replica dies with its boot, by the kernel's word (Linux). A boot waits for messages while its replicas serve: it sees
the check's end, kills what is left of the check, and puts back what was swapped.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from . import disks

MARK = "UNSTICKY_CHECK"  # in the environment of all that a check starts, and of what that starts
_SET_DEATH_SIGNAL = 1  # prctl(2)
_LOOKS, _BETWEEN = 100, 0.02  # seconds
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with(parent: int) -> None:
    """From now on this process is killed when the thread that started it ends. A fork, or new rights, undo that."""
    _death_signal(signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)


def outlive() -> None:
    """Undo it: this process looks itself."""
    _death_signal(0)


class Place:
    """The check's own directory, as the host has it: what a boot sees there later is private to the boot."""

    def __init__(self, path: str) -> None:
        self._name = os.path.basename(path)
        self._folder = os.open(os.path.dirname(path), os.O_RDONLY)

    def remove(self) -> None:
        shutil.rmtree(self._name, ignore_errors=True, dir_fd=self._folder)


def clean_up(parent: int, mark: str, own: str, state: str, place: Place) -> None:
    """In a boot whose connection has ended: if the check is dead, end all that it started, this process as well.

    `own`: where files are kept aside; `state`: a directory that all boots share, locked so that one alone cleans up;
    `place` holds both, and goes.
    """
    if not _reached(lambda: os.getppid() != parent):
        return  # it lives, and closed the connection only
    with contextlib.suppress(OSError):  # gone: another has cleaned up
        fcntl.flock(os.open(state, os.O_RDONLY), fcntl.LOCK_EX)
    kill_marked(mark)
    _reached(lambda: not any(_marked(mark)))  # none writes any more
    disks.put_back(own)
    place.remove()


def kill_marked(mark: str) -> None:
    """End what else has the mark, in sessions of their own, too. Linux tells each one's environment; others do not."""
    for pid in _marked(mark):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int(entry.name) != os.getpid() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except (OSError, ValueError):  # gone, or not ours to look at
            continue


def _reached(condition: Callable[[], bool]) -> bool:
    """Whether it holds before long."""
    for _ in range(_LOOKS):
        if condition():
            return True
        Event().wait(_BETWEEN)
    return False


def _death_signal(number: int) -> None:
    if _libc is not None:
        _libc.prctl(_SET_DEATH_SIGNAL, number)
