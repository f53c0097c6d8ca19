"""Active health checks of every endpoint, in the worker's loop. What they mean is routing's."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from random import Random

import anyio
import anyio.lowlevel
import httpx

from .errors import Problem
from .routing.call import Endpoint, authority
from .routing.health import GOOD, MOST_BODY, CheckResult, checked, judged, pause, target
from .routing.options import HealthOptions, PoolOptions
from .routing.pool import Pool
from .telemetry.contexts import suppressed
from .telemetry.log import log
from .telemetry.pool_events import report
from .worker import Holds, worker

_LOOK = 1.0  # seconds between two looks at which endpoints there are, at most
_AT_ONCE = 256  # checks of a pool


class Probes:
    """Checks those of `pools` that want it, from now on until `close`."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self._holds = Holds(
            worker.every(pool.options.health.interval, _Checks(pool)) for pool in pools if checked(pool.options.health)
        )

    def close(self) -> None:
        self._holds.close()


def problems(options: Mapping[str, PoolOptions]) -> list[Problem]:
    """Authorities that can't be read, by their setting: a check would only call each endpoint unhealthy."""
    found = []
    for name, pool in options.items():
        if checked(pool.health) and pool.health.ca_file:
            try:
                _tls(pool.health.verify, pool.health.ca_file)
            except OSError as error:
                text = f"can't be read as certificates: {type(error).__name__}"
                found.append(Problem(f"pools.{name}.health.ca_file", text))
    return found


class _Checks:
    """All checks of one pool. Each endpoint has a task of its own: one that hangs keeps nobody waiting."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._options = pool.options.health
        self._random = Random()
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by URL

    async def __call__(self) -> None:
        """Goes on until it is cancelled."""
        self._tasks = {}
        self._traffic = asyncio.Event()
        self._places = asyncio.Semaphore(_AT_ONCE)
        await prepare()
        with suppressed():
            async with asyncio.TaskGroup() as group:
                while True:
                    self._follow(group)
                    await asyncio.sleep(min(_LOOK, self._options.interval))

    def _follow(self, group: asyncio.TaskGroup) -> None:
        """See which endpoints there are, and whether the pool is used by now."""
        with self._pool.lock:
            wanted = {endpoint.url: endpoint for endpoint in self._pool.watched()}
        for url in self._tasks.keys() - wanted.keys():
            self._tasks.pop(url).cancel()
        for url in wanted.keys() - self._tasks.keys():
            self._tasks[url] = group.create_task(self._watch(wanted[url]))
        if self._pool.used:
            self._traffic.set()

    async def _watch(self, endpoint: Endpoint) -> None:
        while True:
            async with self._places:
                result = await check(endpoint, self._options)
            with self._pool.lock:
                healthy = self._pool.report_health(endpoint, result)
            report(self._pool)
            await self._pause(healthy)

    async def _pause(self, healthy: bool | None) -> None:
        """Until the next check. The long pause of a pool without calls ends with the first one."""
        used = self._traffic.is_set()
        seconds = pause(self._options, healthy, used=used, random=self._random)
        if used:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._traffic.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._random.uniform(0, min(seconds, self._options.interval)))  # not all at once


async def prepare() -> None:
    """Load what checks need: it can take longer than the first one may, whose result would be a verdict."""
    async with httpx.AsyncClient(trust_env=False, verify=_no_tls()):
        await anyio.lowlevel.checkpoint()


async def check(endpoint: Endpoint, options: HealthOptions) -> CheckResult:
    """Ask `endpoint` once."""
    origin, host, port = target(endpoint.url, options.port)
    try:
        async with asyncio.timeout(options.timeout):
            if options.type == "tcp":
                return await _connected(host, port)
            return await _answered(origin, options, endpoint.host)
    except _EXPECTED as error:
        return CheckResult(False, reason=_reason(error, options.timeout))
    except Exception as error:  # "unknown" counts as healthy, and would stay so for ever
        _log_once(type(error).__name__)
        return CheckResult(False, reason=type(error).__name__)


_EXPECTED = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError)


@cache
def _log_once(kind: str) -> None:
    """Checks are repeated, as often as every few milliseconds: a kind of error is told once in a process."""
    log.exception("a health check failed in an unexpected way (%s), which counts as a failed check", kind)


def _reason(error: Exception, seconds: float) -> str:
    """Nothing of what was sent: headers of checks may be secrets."""
    if isinstance(error, (TimeoutError, httpx.TimeoutException)):
        return f"no answer within {seconds:g} s"
    if isinstance(error, (httpx.ConnectError, OSError)):
        causes = tuple(_causes(error))
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return "its certificate is not good"
        resolved = not any(isinstance(cause, socket.gaierror) for cause in causes)
        return "could not connect" if resolved else "its name can't be resolved"
    return "the answer is no HTTP" if isinstance(error, httpx.RemoteProtocolError) else type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def _connected(host: str, port: int) -> CheckResult:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return GOOD


async def _answered(origin: str, options: HealthOptions, named: str | None) -> CheckResult:
    """Over a connection of its own, so that a server that stopped accepting is noticed."""
    name = options.host or named
    headers = {header.encode(): value.encode("latin-1") for header, value in options.headers.items()}
    if name is not None:
        headers[b"host"] = (options.host or authority(origin, name)).encode()
    extensions = {"sni_hostname": name} if name and origin.startswith("https:") else {}
    tls = _tls(options.verify, options.ca_file) if origin.startswith("https:") else _no_tls()
    async with (
        httpx.AsyncClient(timeout=options.timeout, trust_env=False, verify=tls) as client,
        client.stream(options.method, f"{origin}{options.path}", headers=headers, extensions=extensions) as response,
    ):
        return judged(response.status_code, response.headers, await _text(response, options), options)


async def _text(response: httpx.Response, options: HealthOptions) -> str:
    if options.body is None:
        return ""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= MOST_BODY:
            break
    return body[:MOST_BODY].decode("utf-8", "replace")


@cache
def _tls(verify: bool, ca_file: str | None) -> ssl.SSLContext:
    """Made once, as it takes 20 ms."""
    if not verify:
        return _no_tls()
    return ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context()


@cache
def _no_tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(verify=False)
