"""The history check: real replicas under faults, and nothing acknowledged is lost, nothing ended comes back.

    python tests/history.py --seconds 300 --store all --seed 7

Threads share browsers and send requests to replicas of both frameworks, in processes of their own on one store.
Meanwhile replicas and the store's server are killed, paused and started again. What every request did, and what its
answer was, is written down and judged by `support/history_check.py`. The seed decides what is done; the machine
decides when.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from support.history_check import Finding, Op, check
from support.history_clients import CHOICES, Browser, Client
from support.history_faults import Faults, Server, running_replicas
from support.memcached import running as running_memcached
from support.ports import free_port
from support.postgres import running as running_postgres
from support.valkey import running as running_valkey

BROWSERS, THREADS = 3, 3  # each browser has so many threads
KINDS = ("flask", "starlette", "flask", "starlette")


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished run."""

    history: list[Op]
    findings: list[Finding]
    faults: list[tuple[float, str]]

    def summary(self) -> str:
        outcomes = Counter(op.outcome for op in self.history)
        done = Counter(op.does for op in self.history if op.does and op.applied)
        sessions = len({op.session for op in self.history})
        hurt = Counter(" ".join(text.split()[:2]) for _, text in self.faults)
        return f"{len(self.history)} requests {dict(outcomes)}, {sessions} sessions, {dict(done)}, faults {dict(hurt)}"


@dataclass(frozen=True, slots=True)
class Backing:
    """A store to check: how its server is started, and what it can't do."""

    serve: Callable[[Path], AbstractContextManager[Server | None]]
    durable: bool = True  # what was acknowledged survives a kill of the server
    owners: bool = True


@contextmanager
def valkey_server(folder: Path) -> Iterator[Server]:
    """Valkey that writes every command to its disk before it answers: a crash loses nothing acknowledged."""
    with running_valkey(port=free_port(), data_dir=folder / "valkey", appendonly="yes", appendfsync="always") as server:
        yield server


# What a killed PostgreSQL has acknowledged is in the kernel's cache, and survives it. Memcached is only paused.
STORES: dict[str, Backing] = {
    "sqlite": Backing(lambda folder: nullcontext()),
    "valkey": Backing(valkey_server),
    "postgres": Backing(lambda folder: running_postgres()),
    "memcached": Backing(lambda folder: running_memcached(), durable=False, owners=False),
}


def run(store: str, seconds: float, seed: str, progress: Callable[[str], None] = lambda text: None) -> Ran:
    """One run over one store."""
    stop = threading.Event()
    backing = STORES[store]
    choices = {choice: weight for choice, weight in CHOICES.items() if backing.owners or choice != "owner"}
    with tempfile.TemporaryDirectory() as name, backing.serve(Path(name)) as server:
        url = f"sqlite:///{name}/sessions.db" if server is None else server.url
        with running_replicas(KINDS, url, Path(name)) as replicas:
            targets = [replica.target for replica in replicas]
            browsers = [Browser(f"b{number}") for number in range(BROWSERS)]
            clients = [
                Client(f"own{number}", browser, targets, f"{seed} {browser.name} {number}", stop, choices)
                for browser in browsers
                for number in range(THREADS)
            ]
            faults = Faults(replicas, server, f"{seed} faults", stop, kills_server=backing.durable)
            _drive([*clients, faults], stop, seconds, lambda left: progress(_line(store, clients, faults, left)))
    history = sorted((op for client in clients for op in client.history), key=lambda op: op.start)
    return Ran(history, check(history), faults.log)


def _drive(
    threads: list[Client | Faults], stop: threading.Event, seconds: float, progress: Callable[[float], None]
) -> None:
    """Let them run that long. Raises what any of them failed with."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    try:
        while (left := deadline - time.monotonic()) > 0 and all(thread.is_alive() for thread in threads):
            progress(left)
            stop.wait(min(left, 1.0))
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    for thread in threads:
        if thread.failure is not None:
            raise thread.failure


def _line(store: str, clients: list[Client], faults: Faults, left: float) -> str:
    requests = sum(len(client.history) for client in clients)
    return f"{store}: {left:4.0f} s left, {requests} requests, {len(faults.log)} faults"


def explained(ran: Ran, store: str, seed: str, at_most: int = 5) -> str:
    """The findings, with how to run it again."""
    shown = [str(finding) for finding in ran.findings[:at_most]]
    more = len(ran.findings) - len(shown)
    kinds = dict(Counter(finding.kind for finding in ran.findings))
    again = f"python tests/history.py --store {store} --seed {seed}"
    head = f"{len(ran.findings)} findings {kinds}; again: {again}"
    return "\n".join([head, *shown, *([f"... {more} more"] if more > 0 else [])])


def main() -> int:
    options = _options()
    stores = list(STORES) if options.store == "all" else [options.store]
    found = 0
    for store in stores:
        print(f"{store}, seed {options.seed}", flush=True)
        ran = run(store, options.seconds / len(stores), options.seed, _show)
        print(f"\r\033[K{store}: {ran.summary()}" if sys.stderr.isatty() else f"{store}: {ran.summary()}")
        print(explained(ran, store, options.seed) if ran.findings else f"{store}: no finding", flush=True)
        found += len(ran.findings)
    return 1 if found else 0


def _show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="in all; default 300")
    parser.add_argument("--store", choices=[*STORES, "all"], default="all")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="default: another one each time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
