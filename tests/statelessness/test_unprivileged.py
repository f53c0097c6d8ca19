"""A check by those who may do nothing: without any capability, without user namespaces, and among locked mounts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.waiting import eventually
from unsticky.statelessness.namespaces import below_no_mount

APP = """
import subprocess
from flask import Flask, jsonify
app = Flask(__name__)
def read(name):
    with open(name) as file:
        return file.read()
@app.post("/own")
def own():
    with open("own.txt", "a") as file:
        file.write("+")
    return "", 204
@app.post("/child")
def child():
    subprocess.run(["sh", "-c", "printf + >> child.txt"], check=True)
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    return "", 204
@app.get("/files")
def files():
    return jsonify(own=read("own.txt"), child=read("child.txt"))
"""
SCRIPT = 'SCRIPT = [("POST", "/own"), ("GET", "/files")]'
WITH_A_CHILD = 'SCRIPT = [("POST", "/own"), ("POST", "/child"), ("GET", "/files")]'
# What any user may do, also if root runs the tests: no root of its own namespace, where that is allowed; no capability.
LAUNCHER = """
import ctypes, os, sys
how, folder, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
ids = os.getuid(), os.getgid()
if libc.unshare(0x10020000) == 0:  # a user's namespace, and one of mounts
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {ids[0]} 1"), ("gid_map", f"1000 {ids[1]} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    if how == "locked":
        assert libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, None) == 0
    if how == "no namespaces":
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)
libc.prctl(38, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *command])
"""
ALLOWED = """
import ctypes, os, sys
user = os.getuid()
if ctypes.CDLL(None).unshare(0x10020000) != 0:
    sys.exit(1)
with open("/proc/self/uid_map", "w") as file:
    file.write(f"0 {user} 1")
"""


def launched(how: str, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    (home.parent / "mounted").mkdir(exist_ok=True)
    given = [sys.executable, "-c", LAUNCHER, how, str(home.parent / "mounted"), *command]
    environment = {**os.environ, "TMPDIR": str(home.parent / "temporary")}
    (home.parent / "temporary").mkdir(exist_ok=True)
    return subprocess.run(given, cwd=home, env=environment, capture_output=True, text=True, timeout=110)


def checked(how: str, home: Path, script: str) -> dict[str, Any]:
    (home / "flows.py").write_text(script)
    command = ["-m", "unsticky", "check", "shop:app", "--script", "flows.py", "--replicas", "2", "--json", "-"]
    done = launched(how, home, *command)
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "shop"
    home.mkdir()
    (home / "shop.py").write_text(APP)
    for name in ("own.txt", "child.txt"):
        (home / name).write_text("precious")
    return home


def processes(home: Path) -> list[str]:
    found = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and os.readlink(f"{entry.path}/cwd") == str(home):
                found.append(Path(f"{entry.path}/cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", ["plain", "locked", "no namespaces"])
def test_a_check_without_privileges(home: Path, how: str) -> None:
    """It says what it could do; what it then says is true; and it leaves nothing behind."""
    allowed = how != "no namespaces" and launched(how, home, "-c", ALLOWED).returncode == 0
    report = checked(how, home, WITH_A_CHILD if allowed else SCRIPT)
    assert report["isolation"] == ("ns" if allowed else "swap")
    assert any("files are swapped" in note for note in report["notes"]) is not allowed
    (proof,) = [one for one in report["findings"] if one["verdict"] == "PROVEN"]
    assert proof["title"] == "GET /files"
    assert proof["suspects"][0]["name"] in (str(home / "own.txt"), str(home / "child.txt"))
    assert proof["suspects"][0]["confirmed"] is allowed
    assert (home / "own.txt").read_text() == (home / "child.txt").read_text() == "precious"
    assert list((home.parent / "temporary").iterdir()) == []
    eventually(lambda: processes(home) == [])


@pytest.mark.parametrize(
    ("roots", "mounted", "places", "kept"),
    [
        (["/home", "/tmp"], [], ["/home/ann/shop"], ["/home", "/tmp"]),
        (["/home", "/tmp"], ["/home"], ["/home/ann/shop"], ["/home", "/tmp"]),
        (["/home", "/tmp"], ["/tmp/x"], ["/tmp/shop", "/home/ann"], ["/home", "/tmp/shop"]),
        (["/tmp", "/tmp/x"], ["/tmp/x"], ["/tmp/x/shop"], ["/tmp/x"]),
        (["/home"], ["/home/ann/mail"], ["/home/ann/shop/src"], ["/home/ann/shop"]),
        (["/home"], ["/home/ann/shop/data"], ["/home/ann/shop"], []),
        (["/home"], ["/home/anna"], ["/home/ann"], ["/home/ann"]),
        (["/etc"], ["/etc/hosts"], ["/home/ann"], []),
    ],
)
def test_what_is_overlaid_where_mounts_are_locked(
    roots: list[str], mounted: list[str], places: list[str], kept: list[str]
) -> None:
    assert below_no_mount(roots, mounted, places) == kept
