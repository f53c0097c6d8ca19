"""What to do about a suspect. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

from .walk import DIRECTORY, OF_FILE, OF_MEMORY

# Libraries that keep state in the process on purpose, and have a mode that shares it.
_LIBRARIES = {
    "flask_limiter": 'flask-limiter counts in memory: set RATELIMIT_STORAGE_URI (or storage_uri=) to "redis://..."',
    "slowapi": 'slowapi counts in memory: give its Limiter storage_uri="redis://..."',
    "limits": 'limits counts in memory: use storage_from_string("redis://...")',
    "flask_caching": 'flask-caching\'s SimpleCache is local: set CACHE_TYPE = "RedisCache", or another shared one',
    "cachelib": "cachelib's SimpleCache and FileSystemCache are local: use its RedisCache or MemcachedCache",
    "cachetools": "cachetools keeps its caches local: use a shared one, or a lifetime so short that stale is no harm",
    "apscheduler": "APScheduler's MemoryJobStore is local: use a SQLAlchemyJobStore, and one scheduler",
    "flask_session": "Flask-Session's file and cachelib sessions are local: use unsticky's store, or its Redis one",
}
_NAMED = {  # as variables of them often are, where nothing but the name is known
    "limiter": ("slowapi", "flask_limiter"),
    "limits.": ("limits",),
    "cachelib": ("cachelib",),
    "flask_caching": ("flask_caching",),
    "['cache']": ("flask_caching",),
    "scheduler": ("apscheduler",),
}
_MADE = "made anew by each process: read it from the environment or the settings, the same for all replicas"
UNSEEN = (
    "hash() of a text, id(), the process's number, the host's name, a database in memory, or what a child process "
    "or another thread keeps"
)
_HASH = "if the response has nothing of it, look for hash() of a text, which each process salts"
_OF_DATABASE = "a database on the local disk: use one that all replicas reach, or name it by --shared if they do"
_DATABASES = (".db", ".sqlite", ".sqlite3", ".db-wal", ".db-journal", ".db-shm")


class _Suspect(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def library(self) -> str: ...


def library(modules: Iterable[str]) -> str:
    """The first with a shared mode. `modules`: of the types that hold a value, from outside."""
    return next((name for name in (module.partition(".")[0] for module in modules) if name in _LIBRARIES), "")


def advice(suspects: Sequence[_Suspect], *, of_boot: bool = False) -> str:
    """For the first suspect. `of_boot`: each process makes it for itself, and no request changes it."""
    if not suspects:
        return f"no variable changed: look for {UNSEEN}"
    name = suspects[0].name
    if suspects[0].library:
        return _LIBRARIES[suspects[0].library]
    if name.endswith(OF_FILE):
        return _OF_DATABASE
    if name.endswith(OF_MEMORY):
        return "a database in memory: use one that all replicas reach"
    if name.startswith("/"):
        return _of_file(name)
    if name == DIRECTORY:
        return "os.chdir moves the whole process: name files by absolute paths"
    if name.startswith("os.environ"):
        return "it is the environment of one process: pass the value along, or keep it in the session or the store"
    if of_boot or "secret" in name.lower():
        return _MADE if any(word in name.lower() for word in ("secret", "key", "salt")) else f"{_MADE}; {_HASH}"
    return ("move it to the session or to a shared store; if it is local on purpose, say so: "
            "replica_local(value, why=...), or allow it by name")  # fmt: skip


def advice_by_name(variable: str, loaded: Container[str]) -> str:
    """Where nothing but the name is known. `loaded`: modules, of which one may be the library that it sounds like."""
    guesses = chain.from_iterable(names for mark, names in _NAMED.items() if mark in variable.lower())
    return advice((_Guess(variable, next((name for name in guesses if name in loaded), "")),))


class _Guess(NamedTuple):
    name: str
    library: str


def _of_file(path: str) -> str:
    if path.endswith(_DATABASES):
        return _OF_DATABASE
    return "a file on the local disk: use an object store or a database; if all replicas see it, name it by --shared"
