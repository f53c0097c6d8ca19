"""One run: servers, clients and arrivals of one scenario under one policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from unsticky.routing.call import Endpoint
from unsticky.routing.options import HASHING

from .clients import Client
from .figures import Figures, Tally, course, quantile, recovery
from .policies import Policy
from .world import DRAWS, Agenda, Server

WORKERS = 4  # of a server
PROGRESS = 5_000  # calls
Shape = Callable[[float], float]  # how much of the usual rate, at a part of the time from 0 to 1


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a run is. The time that a request takes follows: the servers shall be as busy as the scenario says."""

    endpoints: int = 10  # servers
    requests: int = 8_000
    clients: int = 4
    seed: int = 1
    service: str = "exponential"
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a scenario asks of its servers."""

    utilization: float = 0.6  # of all servers' working time
    seconds: float = 40.0  # of virtual time
    backlog: int = 40  # requests that may wait at a server
    speeds: tuple[float, ...] = (1.0,)  # of the servers, in turn
    shape: Shape = lambda part: 1.0
    shape_mean: float = 1.0  # of `shape` over the time
    trouble_ends: float | None = None  # part of the time


class Stage:
    """The world of one run."""

    def __init__(self, size: Size, load: Load, policy: Policy) -> None:
        self.size, self.load, self.policy = size, load, policy
        self.agenda = Agenda()
        self.random = Random(size.seed)
        self.begin, self.seconds = self.agenda.clock.now, load.seconds
        speeds = [load.speeds[i % len(load.speeds)] for i in range(size.endpoints)]
        self.rate = size.requests / load.seconds / load.shape_mean  # calls per second, usually
        self.mean = load.utilization * sum(speeds) * WORKERS / self.rate
        self.tally = Tally(self.begin, load.seconds)
        draw = DRAWS[size.service](Random(size.seed + 1))
        self.servers = {
            one.url: Server(one, WORKERS, load.backlog, self.mean, draw) for one in map(endpoint, range(size.endpoints))
        }
        self.ordered = list(self.servers.values())
        self.listed = {server.endpoint: True for server in self.ordered}  # in discovery
        for server, speed in zip(self.ordered, speeds, strict=True):
            server.speed = speed
        self.clients = [self._client(n) for n in range(size.clients)]
        self._keys = [self.random.getrandbits(64) for _ in range(20 * size.endpoints)]
        self._hashes = policy.balancer in HASHING

    def _client(self, number: int) -> Client:
        random = Random(self.size.seed * 1_000_003 + number)
        options = self.policy.options(self.mean)
        return Client(options, self.agenda, self.servers, self.tally, random, self._ended)

    def moment(self, part: float) -> float:
        """When that part of the time is over."""
        return self.begin + part * self.seconds

    def at(self, part: float, do: Callable[[], None]) -> None:
        self.agenda.at(self.moment(part), lambda _: do())

    def some(self, share: float = 0.1) -> list[Server]:
        """The first of them, one at least."""
        return self.ordered[: max(1, round(share * len(self.ordered)))]

    def run(self, progress: Callable[[float], None] | None = None) -> Figures:
        """`progress` is told now and then which part of the calls has begun."""
        self._progress = progress
        for client in self.clients:
            client.watch(self.begin + self.seconds)
        if self.size.closed:
            self._think = 2 * self.mean
            for _ in range(max(1, round(self.rate * (self.mean + self._think)))):
                self._after_thinking(self.random.choice(self.clients))
        else:
            self.agenda.at(self._next(), self._arrive)
        self.agenda.run()
        return self._figures()

    # Arrivals -------------------------------------------------------------

    def _next(self) -> float:
        now = self.agenda.clock.now
        rate = self.rate * self.load.shape((now - self.begin) / self.seconds)
        return now + self.random.expovariate(rate)

    def _arrive(self, _: object) -> None:
        """A Poisson process: nobody waits for anybody."""
        clients = self.clients
        self._call(clients[int(self.random.random() * len(clients))])
        if self.tally.begun < self.size.requests:
            self.agenda.at(self._next(), self._arrive)

    def _call(self, client: Client) -> None:
        self.tally.begun += 1
        if self._progress is not None and self.tally.begun % PROGRESS == 0:
            self._progress(self.tally.begun / self.size.requests)
        client.call(self._keys[int(self.random.random() * len(self._keys))] if self._hashes else None)

    def _ended(self, client: Client) -> None:
        if self.size.closed:
            self._after_thinking(client)

    def _after_thinking(self, client: Client) -> None:
        self.agenda.at(self.agenda.clock.now + self.random.expovariate(1 / self._think), self._call_again, client)

    def _call_again(self, client: Client) -> None:
        if self.tally.begun < self.size.requests:
            self._call(client)

    # The end --------------------------------------------------------------

    def _figures(self) -> Figures:
        tally, end = self.tally, self.load.trouble_ends
        times = sorted(time for bucket in tally.times for time in bucket)
        busy = [server.busy for server in self.ordered]
        return Figures(
            policy=self.policy.name,
            calls=tally.begun,
            success=sum(tally.good) / tally.begun,
            amplification=tally.sent / tally.begun,
            p50=quantile(times, 0.5) * 1e3,
            p99=quantile(times, 0.99) * 1e3,
            imbalance=max(busy) * len(busy) / sum(busy),
            seconds=self.seconds,
            lost=tally.begun - tally.over,
            held=sum(client.held for client in self.clients),
            recovery=None if end is None else recovery(tally, self.seconds, end * self.seconds),
            course=course(tally),
        )


def endpoint(number: int) -> Endpoint:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80"
    return Endpoint(f"http://{address.removesuffix(':80')}", address)
