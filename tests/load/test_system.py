"""Reading CPU, memory and network: files as kernels and container runtimes make them, and this machine's own."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from unsticky.load.cgroups import groups
from unsticky.load.system import System

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"
NET = """Inter-|   Receive                                   |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 9000000 100 0 0 0 0 0 0 9000000 100 0 0 0 0 0 0
  eth0:    1000  10 0 0 0 0 0 0    5000  10 0 0 0 0 0 0
  eth1:     500  10 0 0 0 0 0 0     600  10 0 0 0 0 0 0
"""


class Machine:
    """A /proc and the cgroup mounts that it speaks of."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.mounts = root / "cgroup"
        self.mounted: list[str] = []
        self.write(self.proc, {"meminfo": MEMINFO, "self/net/dev": NET, "self/mountinfo": "", "self/cgroup": ""})

    def write(self, folder: Path, files: Mapping[str, object]) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{content}\n" if not isinstance(content, str) else content)

    def mount(self, name: str, kind: str, options: str, root: str = "/") -> Path:
        path = self.mounts / name
        path.mkdir(parents=True, exist_ok=True)
        self.mounted.append(f"30 20 0:26 {root} {path} rw,nosuid shared:9 - {kind} {kind} rw,{options}")
        self.write(self.proc, {"self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda rw\n" + "\n".join(self.mounted)})
        return path

    def own(self, lines: str) -> None:
        self.write(self.proc, {"self/cgroup": lines})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def v2(machine: Machine, folder: Path, quota: str, *, memory: str = "max", cpu: int = 0) -> None:
    machine.write(
        folder,
        {
            "cpu.max": f"{quota} 100000\n",
            "cpu.stat": f"usage_usec {cpu}\nuser_usec 1\n",
            "memory.max": memory + "\n",
            "memory.current": 600,
            "memory.stat": "anon 300\ninactive_file 100\n",
        },
    )


def test_v2_in_a_container(machine: Machine) -> None:
    """The container's own group is all there is of the tree."""
    root = machine.mount("", "cgroup2", "nsdelegate")
    machine.own("0::/\n")
    v2(machine, root, "150000", memory="1000", cpu=2_500_000)
    sample = System(machine.proc).sample(7.0)
    assert (sample.time, sample.quota, sample.group_cpu, sample.memory) == (7.0, 1.5, 2.5, 0.5)
    assert sample.network is None


def test_v2_on_a_host_takes_the_tightest_group(machine: Machine) -> None:
    """Limits of groups further out hold as well; the root has no files of these."""
    root = machine.mount("", "cgroup2", "nsdelegate")
    machine.own("0::/pods.slice/pod.slice/one.scope\n")
    (root / "pods.slice/pod.slice/one.scope").mkdir(parents=True)
    v2(machine, root / "pods.slice", "800000", memory="2000", cpu=9_000_000)
    v2(machine, root / "pods.slice/pod.slice", "200000", memory="625", cpu=3_000_000)
    v2(machine, root / "pods.slice/pod.slice/one.scope", "max", cpu=1_000_000)
    sample = System(machine.proc).sample(0.0)
    assert (sample.quota, sample.group_cpu, sample.memory) == (2.0, 3.0, 0.8)


@pytest.mark.parametrize("root", ["/", "/docker/abc"])
def test_v1_in_a_container(machine: Machine, root: str) -> None:
    """Its path is the host's; what is mounted is its own group."""
    cpu = machine.mount("cpu", "cgroup", "cpu", root)
    accounts = machine.mount("cpuacct", "cgroup", "cpuacct", root)
    memory = machine.mount("memory", "cgroup", "memory", root)
    machine.own("4:memory:/docker/abc\n3:cpuacct:/docker/abc\n2:cpu:/docker/abc\n1:name=systemd:/docker/abc\n0::/x\n")
    machine.write(cpu, {"cpu.cfs_quota_us": 50000, "cpu.cfs_period_us": 100000})
    machine.write(accounts, {"cpuacct.usage": 4_000_000_000})
    machine.write(
        memory,
        {
            "memory.limit_in_bytes": 1000,
            "memory.usage_in_bytes": 300,
            "memory.stat": "cache 1\ninactive_file 7\ntotal_inactive_file 50\n",
        },
    )
    sample = System(machine.proc).sample(0.0)
    assert (sample.quota, sample.cores, sample.group_cpu, sample.memory) == (0.5, 0.5, 4.0, 0.25)


def test_v1_without_limits(machine: Machine) -> None:
    """-1 and a number near 2^63 are none: the machine's memory counts, and no quota."""
    both = machine.mount("cpu,cpuacct", "cgroup", "cpu,cpuacct")
    memory = machine.mount("memory", "cgroup", "memory")
    machine.own("4:memory:/\n2:cpu,cpuacct:/\n")
    machine.write(both, {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000, "cpuacct.usage": 1})
    machine.write(memory, {"memory.limit_in_bytes": 9223372036854771712, "memory.usage_in_bytes": 3, "memory.stat": ""})
    sample = System(machine.proc).sample(0.0)
    assert (sample.quota, sample.group_cpu, sample.memory) == (None, None, pytest.approx(0.4))
    assert [(group.path, group.accounts) for group in groups(machine.proc, "cpu")] == [(both, both)]


def test_limits_that_change_are_seen(machine: Machine) -> None:
    """A container is resized in place."""
    root = machine.mount("", "cgroup2", "nsdelegate")
    machine.own("0::/\n")
    v2(machine, root, "100000")
    system = System(machine.proc)
    assert system.sample(0.0).quota == 1
    v2(machine, root, "300000")
    assert system.sample(0.0).quota == 3


def test_network(machine: Machine) -> None:
    """All interfaces but the loopback, if asked for."""
    assert System(machine.proc, network=True).sample(0.0).network == (1500, 5600)


@pytest.mark.parametrize("content", ["", "\n", "junk", "0::", "1:2", "\x00", "usage_usec x\n", "0 0\n", "1 0"])
def test_what_looks_otherwise_is_left_out(machine: Machine, content: str) -> None:
    """Files of kernels to come, or of sandboxes that only pretend."""
    root = machine.mount("", "cgroup2", "nsdelegate")
    machine.own("0::/\n")
    names = ("cpu.max", "cpu.stat", "memory.max", "memory.current", "memory.stat")
    machine.write(root, dict.fromkeys(names, content))
    machine.write(machine.proc, {"meminfo": content, "self/net/dev": content})
    sample = System(machine.proc, network=True).sample(0.0)
    assert (sample.quota, sample.group_cpu, sample.memory) == (None, None, None)
    machine.write(machine.proc, {"self/mountinfo": content, "self/cgroup": content})
    assert System(machine.proc).sample(0.0).cpu > 0


def test_without_proc(tmp_path: Path) -> None:
    """macOS has none: what is left is the process's own CPU time."""
    sample = System(tmp_path / "none", network=True).sample(0.0)
    assert (sample.quota, sample.memory, sample.network) == (None, None, None)
    assert sample.cpu > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads this machine's /proc")
def test_this_machine() -> None:
    """Real files: CPU time grows while it is used, memory is a part, bytes are there."""
    system = System(network=True)
    before = system.sample(time.monotonic())
    while time.process_time() < before.cpu + 0.05:
        pass
    after = system.sample(time.monotonic())
    assert after.cpu >= before.cpu + 0.05
    assert before.memory is not None
    assert 0 < before.memory < 1.5
    assert after.network is not None
    assert after.cores > 0
