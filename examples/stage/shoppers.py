"""Simulated shoppers, and the load balancer between them and the replicas of one shop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from .servers import Server

SKUS = ("tea", "cup", "pot", "mat")
PAUSE = 0.04  # seconds between two requests of one shopper
IDEMPOTENT = ("GET", "PUT")
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(slots=True)
class Counts:
    """What is told in the end, of one shop."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    resent: int = 0  # by the load balancer, to another replica
    lost: set[str] = field(default_factory=set)  # shoppers whose session was not what they had put into it
    replicas: dict[str, set[str]] = field(default_factory=dict)  # that served each shopper


@dataclass(slots=True)
class Balancer:
    """Sends each request of a shopper to another replica. It is told of no death: it finds out, as real ones do.

    As nginx does by default (proxy_next_upstream), it tries another replica when a connection can't be made, and,
    for methods that are idempotent, when it breaks.
    """

    replicas: list[Server]
    counts: Counts
    down: set[str] = field(default_factory=set)

    async def send(self, shopper: Shopper, method: str, path: str, **body: Any) -> httpx.Response:
        """The response of some replica. Raises the last error when no replica answers."""
        for tries_left in reversed(range(2 * len(self.replicas))):
            replica = self._next(shopper)
            try:
                response = await shopper.client.request(method, replica.url + path, **body)
            except httpx.TransportError as error:
                self._learn(error, replica)
                if not tries_left or self.all_down or not (method in IDEMPOTENT or isinstance(error, UNSENT)):
                    raise
                self.counts.resent += 1
            else:
                self.counts.replicas.setdefault(shopper.name, set()).add(replica.name)
                return response
        raise AssertionError("the last try returns or raises")

    def _learn(self, error: httpx.TransportError, replica: Server) -> None:
        if isinstance(error, UNSENT):
            self.down.add(replica.name)

    @property
    def all_down(self) -> bool:
        return len(self.down) == len(self.replicas)

    def _next(self, shopper: Shopper) -> Server:
        """The one after the shopper's last, of those that are not known to be down."""
        shopper.turn += 1
        alive = [replica for replica in self.replicas if replica.name not in self.down]
        return alive[shopper.turn % len(alive)]


@dataclass(slots=True)
class Shopper:
    """One visitor with one cookie jar, who remembers what must be in the cart."""

    name: str
    client: httpx.AsyncClient
    turn: int = field(default_factory=lambda: random.randrange(3))
    cart: dict[str, int] = field(default_factory=dict)


async def visit(name: str, balancer: Balancer, requests: int, done: Callable[[], None]) -> None:
    """One shopper's whole visit: login, then items into the cart and looks at it, `requests` in all."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        shopper = Shopper(name, client)
        for number in range(requests):
            step = _login if number == 0 else (_put, _look, _put, _page)[number % 4]
            await _counted(step(shopper, balancer), shopper, balancer.counts)
            done()
            await asyncio.sleep(random.uniform(0, 2 * PAUSE))


async def _counted(step: Any, shopper: Shopper, counts: Counts) -> None:
    counts.requests += 1
    try:
        if not await step:
            counts.lost.add(shopper.name)
    except (httpx.HTTPError, ValueError) as error:
        counts.failures.append(f"{shopper.name}: {type(error).__name__}: {error}")


async def _login(shopper: Shopper, balancer: Balancer) -> bool:
    answer = await balancer.send(shopper, "POST", "/login", data={"user": shopper.name})
    if answer.status_code != 303:
        answer.raise_for_status()
    return "session" in shopper.client.cookies


async def _put(shopper: Shopper, balancer: Balancer) -> bool:
    sku, quantity = random.choice(SKUS), random.randint(1, 5)
    shopper.cart[sku] = quantity
    answer = await balancer.send(shopper, "PUT", f"/api/cart/{sku}", json={"quantity": quantity})
    return bool(answer.raise_for_status().json() == shopper.cart)


async def _look(shopper: Shopper, balancer: Balancer) -> bool:
    answer = (await balancer.send(shopper, "GET", "/api/cart")).raise_for_status().json()
    return bool(answer["cart"] == shopper.cart and answer["user"] == shopper.name)


async def _page(shopper: Shopper, balancer: Balancer) -> bool:
    page = (await balancer.send(shopper, "GET", "/")).raise_for_status().text
    return f"Logged in as {shopper.name}." in page
