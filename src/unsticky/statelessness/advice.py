"""What to do about a suspect. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# Libraries that keep state in the process on purpose, and have a mode that shares it.
_LIBRARIES = {
    "flask_limiter": 'flask-limiter counts in memory: set RATELIMIT_STORAGE_URI (or storage_uri=) to "redis://..."',
    "slowapi": 'slowapi counts in memory: give its Limiter storage_uri="redis://..."',
    "limits": 'limits counts in memory: use storage_from_string("redis://...")',
    "flask_caching": 'flask-caching\'s SimpleCache is local: set CACHE_TYPE = "RedisCache", or another shared one',
    "cachelib": "cachelib's SimpleCache and FileSystemCache are local: use its RedisCache or MemcachedCache",
    "apscheduler": "APScheduler's MemoryJobStore is local: use a SQLAlchemyJobStore, and one scheduler",
    "flask_session": "Flask-Session's file and cachelib sessions are local: use unsticky's store, or its Redis one",
}
_MARKS = {
    "limiter": "flask_limiter",
    "limits.": "limits",
    "cachelib": "cachelib",
    "flask_caching": "flask_caching",
    "['cache']": "flask_caching",
    "apscheduler": "apscheduler",
    "scheduler": "apscheduler",
    "slowapi": "slowapi",
}
OF_DATABASES = ".total_changes"  # how the walk names an SQLite connection to a file
_OF_DATABASE = "a database on the local disk: use one that all replicas reach, or name it by --shared if they do"
_DATABASES = (".db", ".sqlite", ".sqlite3", ".db-wal", ".db-journal", ".db-shm")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def advice(suspects: Sequence[_Named], *, of_boot: bool = False) -> str:
    """For the first suspect. `of_boot`: each process makes it for itself, and no request changes it."""
    if not suspects:
        return ("no variable changed: look for hash() of a text, id(), the process's number, the host's name, "
                "or what a child process or another thread keeps")  # fmt: skip
    name = suspects[0].name
    for mark, library in _MARKS.items():
        if mark in name.lower():
            return _LIBRARIES[library]
    if name.endswith(OF_DATABASES):
        return _OF_DATABASE
    if name.startswith("/"):
        return _of_file(name)
    if name.startswith("os.environ"):
        return "it is the environment of one process: pass the value along, or keep it in the session or the store"
    if of_boot or "secret" in name.lower():
        return "made anew by each process: read it from the environment or the settings, the same for all replicas"
    return ("move it to the session or to a shared store; if it is local on purpose, say so: "
            "replica_local(value, why=...), or allow it by name")  # fmt: skip


def _of_file(path: str) -> str:
    if path.endswith(_DATABASES):
        return _OF_DATABASE
    return "a file on the local disk: use an object store or a database; if all replicas see it, name it by --shared"
