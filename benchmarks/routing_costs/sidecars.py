"""Through a proxy on the same machine, and without: calls one after the other."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from socket import create_connection, socket
from statistics import median
from time import perf_counter, sleep

import httpx

from routing_costs.measure import Effort, Figures, tell
from routing_costs.upstream import upstreams
from routing_costs.wires import Get, pooled, rotating

DIRECT = "unsticky, direct"
PROXIES = ("haproxy", "nginx")
PLAIN, OURS = "httpx.AsyncClient through {}", "unsticky through {}"

_HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  balance roundrobin
{servers}
"""
_NGINX = """
worker_processes 1;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  upstream out {{
{servers}
    keepalive 64;
    keepalive_requests 1000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://out; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def run(effort: Effort, figures: Figures) -> None:
    """Those that are in the PATH."""
    with tempfile.TemporaryDirectory() as name, upstreams(3) as servers, ExitStack() as stack:
        ports = {}
        for kind in PROXIES:
            if _binary(kind) is None:
                tell(f"sidecar: {kind} is not in the PATH, left out")
            else:
                ports[kind] = stack.enter_context(_proxy(kind, Path(name), servers.ports))
        if ports:
            figures["sidecar"] = asyncio.run(_measured(servers.origins, ports, effort))


def _binary(kind: str) -> str | None:
    return shutil.which(kind) or shutil.which(kind, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def _proxy(kind: str, folder: Path, ports: list[int]) -> Generator[int]:
    with socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    config = folder / f"{kind}.conf"
    if kind == "haproxy":
        servers = "\n".join(f"  server s{at} 127.0.0.1:{to}" for at, to in enumerate(ports))
        config.write_text(_HAPROXY.format(port=port, servers=servers))
        arguments = ["-f", str(config), "-db", "-q"]
    else:
        servers = "\n".join(f"    server 127.0.0.1:{to};" for to in ports)
        config.write_text(_NGINX.format(port=port, servers=servers, folder=folder))
        arguments = ["-c", str(config), "-p", str(folder)]
    with subprocess.Popen([_binary(kind) or kind, *arguments]) as process:
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _wait_for(port: int, seconds: float = 10.0) -> None:
    end = perf_counter() + seconds
    while True:
        try:
            create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if perf_counter() > end:
                raise
            sleep(0.02)


async def _measured(origins: list[str], ports: dict[str, int], effort: Effort) -> dict[str, float]:
    """Microseconds from call to body: the median of a round, of the round that was disturbed least."""
    async with AsyncExitStack() as stack:
        gets = {DIRECT: await stack.enter_async_context(pooled(origins))}
        for kind, port in ports.items():
            through = [f"http://127.0.0.1:{port}"]
            gets[PLAIN.format(kind)] = rotating(await stack.enter_async_context(httpx.AsyncClient()), through)
            gets[OURS.format(kind)] = await stack.enter_async_context(pooled(through))
        times: dict[str, list[float]] = {name: [] for name in gets}  # of each round the median
        for number in range(effort.rounds):
            if number % 10 == 0:
                tell(f"sidecar: round {number + 1} of {effort.rounds}")
            for name, get in gets.items():
                times[name].append(median(await _times(get, max(5, int(effort.slice / 0.001)))))
        return {name: min(found) for name, found in times.items()}


async def _times(get: Get, amount: int) -> list[float]:
    found = []
    for _ in range(amount):
        began = perf_counter()
        await get()
        found.append((perf_counter() - began) * 1e6)
    return found
