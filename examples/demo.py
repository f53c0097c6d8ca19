"""The main job, live: `make demo`, or `python examples/demo.py [--store redis://localhost:6379/0]`.

Three replicas of each example shop on one session store, three endpoints of their upstream. Shoppers send every
request to another replica. In the middle one replica of each shop and one endpoint are killed. No request may fail,
no session may be lost; the exit status is 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import TaskID
from stage.collector import Collector, collecting
from stage.screen import Screen, attempts_per_call
from stage.servers import (
    Server,
    Servers,
    StartError,
    clean_environment,
    shop_settings,
    start_catalogs,
    start_flask,
    start_starlette,
    uninterrupted,
)
from stage.shoppers import Balancer, Counts, visit

from unsticky import settings
from unsticky.errors import SettingsError

NAMES = ("Ada", "Ben", "Cleo", "Dov", "Eva", "Finn")
REQUESTS = 40  # of each shopper
TRAFFIC_SECONDS = 15.0  # by then the visits are over, or something hangs
ATTEMPTS = 3  # the shops' unsticky.toml allows no more


@dataclass(slots=True)
class Cast:
    """Who takes part."""

    catalogs: list[Server]
    shops: dict[str, Balancer]  # "Flask" and "Starlette"

    @property
    def replicas(self) -> list[Server]:
        return [server for balancer in self.shops.values() for server in balancer.replicas]


@dataclass(slots=True)
class Plot:
    """Kills servers when a part of the traffic is done."""

    screen: Screen
    task: TaskID
    scenes: list[tuple[float, Server]]  # the part of all requests, and who dies then; in order
    total: int
    done: int = field(default=0)

    def request_done(self) -> None:
        self.done += 1
        self.screen.progress.update(self.task, completed=self.done)
        while self.scenes and self.done >= self.scenes[0][0] * self.total:
            _, server = self.scenes.pop(0)
            server.kill()
            self.screen.say(f"  [red]kill -9[/red] {server.name} ({server.url}), after {self.done} requests")


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 if every promise was kept, 1 if not, 2 if it was called wrongly, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Kill replicas and upstreams under load, and lose nothing.")
    parser.add_argument("--store", metavar="URL", help="the session store; without it SQLite in a temporary folder")
    store: str | None = parser.parse_args(argv).store
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    screen = Screen()
    try:
        if store is not None:
            settings.load({"session": {"store": store}}, environ={})
        return run(screen, store)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        screen.say("\nStopped; nothing is left running.")
        return 130


def run(screen: Screen, store: str | None) -> int:
    """From the first process to the last: whatever happens, all are gone at the end."""
    stack = ExitStack()
    try:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="unsticky-demo-")))
        collector = stack.enter_context(collecting())
        servers = stack.enter_context(Servers(folder, clean_environment(collector.url)))
        cast = set_up(screen, servers, store or f"sqlite:///{folder / 'sessions.db'}")
        play(screen, cast)
        collector.settle()
        return tell(screen, cast, collector)
    finally:
        with uninterrupted():  # an impatient second Ctrl-C leaves nothing behind either
            stack.close()


def set_up(screen: Screen, servers: Servers, store: str) -> Cast:
    """Start everybody, and wait until each answers."""
    screen.say("Starting three catalogs, three Flask replicas (gunicorn) and three Starlette replicas (uvicorn) ...")
    catalogs = start_catalogs(servers, 3)
    environ = shop_settings(store, catalogs)
    flask, starlette = start_flask(servers, 3, **environ), start_starlette(servers, 3, **environ)
    cast = Cast(catalogs, {"Flask": Balancer(flask, Counts()), "Starlette": Balancer(starlette, Counts())})
    for server in cast.replicas:
        server.wait("/api/cart")
    return cast


def play(screen: Screen, cast: Cast) -> None:
    """The traffic, and three deaths in the middle of it."""
    total = REQUESTS * len(NAMES) * len(cast.shops)
    screen.say(f"{len(NAMES)} shoppers in each shop; each sends every request to another replica than the last.")
    flask, starlette = (balancer.replicas[1] for balancer in cast.shops.values())
    with screen.progress:
        task = screen.progress.add_task("", total=total)
        plot = Plot(screen, task, [(0.3, flask), (0.45, cast.catalogs[0]), (0.6, starlette)], total)
        run_on_a_loop(traffic(cast.shops.values(), plot.request_done))


def run_on_a_loop(main: Coroutine[Any, Any, None]) -> None:
    """As asyncio.run, whose loop, stopped by Ctrl-C while it is made, complains when it is collected."""
    runner = asyncio.Runner()
    try:
        with uninterrupted():
            runner.get_loop()
        runner.run(main)
    finally:
        with uninterrupted():
            runner.close()


async def traffic(balancers: Collection[Balancer], done: Callable[[], None]) -> None:
    """All visits at once. Those that do not end in time have failed."""
    try:
        async with asyncio.timeout(TRAFFIC_SECONDS), asyncio.TaskGroup() as visits:
            for balancer in balancers:
                for name in NAMES:
                    visits.create_task(visit(name, balancer, REQUESTS, done))
    except TimeoutError:
        for balancer in balancers:
            balancer.counts.failures.append(f"the visits took longer than {TRAFFIC_SECONDS:g} s")


def tell(screen: Screen, cast: Cast, collector: Collector) -> int:
    """Trace, table, verdict."""
    shops = {name: balancer.counts for name, balancer in cast.shops.items()}
    attempts = {name: attempts_per_call(collector, name.lower()) for name in shops}
    trace = collector.failed_over()
    if trace is not None:
        screen.say("\nOne call that failed over, as the replicas traced it:\n")
        screen.trace(trace)
    screen.say("")
    screen.table(shops, {name: f"{mean:.2f} (at most {most})" for name, (mean, most) in attempts.items()})
    broken = list(broken_promises(shops, attempts, failed_over=trace is not None))
    for promise in broken:
        screen.say(f"\nBROKEN: {promise}", "bold red")
    if not broken:
        screen.say(
            "\nTwo replicas and an upstream endpoint died without warning: every request was answered, every cart was "
            "kept, because no replica holds anything that another one needs."
        )
    return 1 if broken else 0


def broken_promises(
    shops: dict[str, Counts], attempts: dict[str, tuple[float, int]], *, failed_over: bool
) -> Iterator[str]:
    """What did not happen as promised."""
    for name, counts in shops.items():
        if counts.failures:
            yield f"{name}: {len(counts.failures)} requests failed; the first: {counts.failures[0]}"
        if counts.lost:
            yield f"{name}: sessions lost: {', '.join(sorted(counts.lost))}"
        if min((len(used) for used in counts.replicas.values()), default=0) < 2:
            yield f"{name}: a session was served by one replica only, which shows nothing"
        if not 1 <= attempts[name][1] <= ATTEMPTS:
            yield f"{name}: {attempts[name][1]} attempts for one call, where 1 to {ATTEMPTS} are right"
    if not failed_over:
        yield "no trace of a failed-over call came"


if __name__ == "__main__":
    sys.exit(main())
