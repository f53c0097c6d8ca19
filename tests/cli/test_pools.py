"""The command `unsticky pools`, against real endpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from cli.shops import here
from support.nameserver import nameserver
from support.ports import free_port
from support.tls import tls_endpoint
from support.upstream import Upstream, upstreams
from unsticky import Pools
from unsticky.cli import main
from unsticky.routing.hashing import combine, hash_text

__all__ = ["here"]


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def toml(value: Any) -> str:
    """On one line: JSON's texts and numbers are TOML's too."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml(inner)}' for key, inner in value.items())}}}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


class Command:
    """`unsticky pools` with settings of the test's own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def settings(self, **pools: Any) -> None:
        Path("unsticky.toml").write_text("".join(f"pools.{name} = {toml(pool)}\n" for name, pool in pools.items()))

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        self._capsys.readouterr()
        try:
            status = main(["pools", *arguments])
        except SystemExit as stop:  # argparse
            status = int(stop.code or 0)
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    def says(self, status: int, *arguments: str) -> str:
        done, out, err = self.run(*arguments)
        assert (done, err) == (status, "")
        return out

    def objects(self, status: int, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.says(status, *arguments, "--json").splitlines()]


@pytest.fixture
def pools(here: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Command(capsys)


# check ----------------------------------------------------------------------------------------------------------------


def test_check_what_is_fine(pools: Command, two: list[Upstream]) -> None:
    """Endpoints as they are listed; an endpoint that is down is not its matter."""
    listed = [two[0].url, {"url": f"http://127.0.0.1:{free_port()}", "weight": 3, "priority": 1, "locality": "b"}]
    pools.settings(catalog={"endpoints": listed, "timeout": "2s"})
    title, first, second, end = pools.says(0, "check").splitlines()
    assert title == "catalog: 2 endpoints, least_request"
    assert first.strip() == two[0].url
    assert second.split() == [listed[1]["url"], "weight", "3", "priority", "1", "b"]  # type: ignore[index]
    assert end == "1 pool: 0 problems, 0 notes."
    assert two[0].seen().get("accepted") == 1, "the connection of this question alone"


def test_check_what_is_wrong_and_odd(pools: Command) -> None:
    """Problems make the exit status, notes do not."""
    pools.settings(
        names={"endpoints": ["http://nobody.invalid:8000", "http://localhost:8000"], "timeout": 1},
        lost={"discovery": {"type": "file", "path": "nothing.toml"}, "timeout": 1},
        stopped={"endpoints": [{"url": "http://127.0.0.1:1", "draining": True}, "https://127.0.0.1:2"]},
        odd={"endpoints": ["https://127.0.0.1:1"], "balancer": "maglev"},
        all_stopped={"endpoints": [{"url": "http://127.0.0.1:1", "draining": True}], "timeout": 1},
    )
    text = pools.says(1, "check")
    assert "  ! http://nobody.invalid:8000: nobody.invalid can't be resolved (" in text
    assert "  ! file nothing.toml: No such file or directory\n" in text
    assert "  ! all endpoints drain\n" in text
    found = {one["pool"]: one for one in pools.objects(1, "check")}
    assert [len(found[name]["problems"]) for name in ("names", "lost", "stopped", "odd", "all_stopped")] == [
        1, 1, 0, 0, 1
    ]  # fmt: skip
    assert found["odd"]["notes"] == [
        "a single endpoint: retries have nowhere else to go",
        "no timeout: a call may take as long as its attempts and their waits",
        "maglev without hash.on: calls without a hash_key go anywhere",
        "https://127.0.0.1:1: its certificate must be for the address; `host` names it otherwise",
    ]
    assert any("some by https" in note for note in found["stopped"]["notes"])
    assert [one["pool"] for one in pools.objects(0, "check", "ODD", "stopped")] == ["odd", "stopped"]


def test_check_endpoints_that_are_found(pools: Command) -> None:
    """By DNS, and by a module that lies beside the settings; but not those that only a program passes."""
    Path("my_registry_of_tests.py").write_text(
        "from unsticky.discoverers import Endpoint\n"
        "class Registry:\n"
        "    def discover(self): return {Endpoint.of('http://127.0.0.1:7')}\n"
    )
    with nameserver() as server:
        server.set("catalog.test", "A", "127.0.0.1", "127.0.0.2")
        dns = {"type": "dns", "name": "catalog.test", "nameservers": [server.address], "port": 8000}
        pools.settings(
            by_dns={"discovery": dns},
            by_module={"discovery": {"type": "my_registry_of_tests:Registry"}},
            by_program={"discovery": {"type": "program"}},
        )
        text = pools.says(1, "check")
    assert "by_dns: 2 endpoints, least_request, dns A catalog.test\n" in text
    assert "    http://127.0.0.2:8000  as catalog.test\n" in text
    assert "    http://127.0.0.1:7\n" in text
    assert "  ! program: the program must pass it" in text
    sys.modules.pop("my_registry_of_tests")


# probe ----------------------------------------------------------------------------------------------------------------


def test_probe(pools: Command, two: list[Upstream]) -> None:
    """By the pool's own check, else by connecting; each endpoint once, with its time."""
    health = {"path": "/up", "headers": {"Authorization": "Bearer secret"}}
    gone = f"http://127.0.0.1:{free_port()}"
    pools.settings(catalog={"endpoints": [two[0].url, gone], "health": health}, shop={"endpoints": [two[1].url]})
    head, *rows, space, end = pools.says(1, "probe").splitlines()
    assert head.split() == ["POOL", "ENDPOINT", "RESULT", "TIME", "WHY"]
    results = {row.split()[1]: row.split()[2] for row in rows}
    assert results == {two[0].url: "good", gone: "bad", two[1].url: "good"}
    assert [row.split(" ms  ")[1] for row in rows if "bad" in row] == ["could not connect"]
    assert (space, end) == ("", "3 endpoints probed, 1 bad.")
    assert two[0].seen()["GET /up"] == 1
    assert two[1].seen().get("requests", 0) == 0
    assert "secret" not in "".join(rows)


def test_probe_otherwise(pools: Command, two: list[Upstream]) -> None:
    """A path, or connecting, in the place of the pool's check; and how long it may take."""
    pools.settings(catalog={"endpoints": [two[0].url], "health": {"path": "/up", "body": "UP"}})
    two[0].behave("status", status=503)
    [one] = pools.objects(1, "probe", "catalog", "--path", "/other")
    assert (one["ok"], one["reason"], one["url"]) == (False, "status 503", two[0].url)
    assert two[0].seen()["GET /other"] == 1
    assert pools.objects(0, "probe", "--tcp")[0]["ok"]
    two[0].behave("echo", delay=5)
    assert pools.objects(1, "probe", "--timeout", "200ms")[0]["reason"] == "no answer within 0.2 s"
    two[0].behave("garbage")
    assert pools.objects(1, "probe")[0]["reason"] == "the answer is no HTTP"
    two[0].behave("echo")
    assert pools.objects(1, "probe")[0]["reason"] == "the expected text is not in the answer"
    two[0].behave("status", status=200, body="UP", headers={"x-envoy-degraded": ""})
    assert " degraded " in pools.says(0, "probe")
    for wrong in (["--path", "up"], ["--timeout", "soon"]):
        status, out, err = pools.run("probe", *wrong)
        assert (status, out) == (2, "")
        assert "expected" in err


def test_probe_certificates(pools: Command) -> None:
    """A certificate that is not good, a name that is not there."""
    with tls_endpoint() as endpoint:
        urls = [endpoint.url, "http://nobody.invalid:1"]
        pools.settings(catalog={"endpoints": urls, "health": {"path": "/", "timeout": "5s"}})
        found = {one["url"]: one["reason"] for one in pools.objects(1, "probe")}
    assert found == {urls[0]: "its certificate is not good", urls[1]: "its name can't be resolved"}


# status, explain -----------------------------------------------------------------------------------------------------


def test_status(pools: Command, two: list[Upstream]) -> None:
    """Levels, shares and health, by one check from here."""
    two[0].behave("status", status=500)
    endpoints = [two[0].url, {"url": two[1].url, "priority": 1, "weight": 2}]
    pools.settings(catalog={"endpoints": endpoints, "health": {"path": "/up"}}, shop={"endpoints": [two[0].url]})
    title, head, *rows, _, shop, _, last = pools.says(0, "status").splitlines()
    assert (title, shop) == ("catalog: least_request", "shop: least_request, no health checks: all count as healthy")
    assert head.split() == ["ENDPOINT", "PRIORITY", "WEIGHT", "SHARE", "HEALTH"]
    assert [row.split() for row in rows] == [
        [two[0].address, "0", "1", "0.0", "%", "bad:", "status", "500"],
        [two[1].address, "1", "2", "100.0", "%", "good"],
    ]
    assert last.split()[-2:] == ["100.0", "%"]
    found = pools.objects(0, "status", "catalog")
    assert [(one["url"], one["share"], one["eligible"]) for one in found] == [
        (two[0].url, 0.0, False),
        (two[1].url, 100.0, True),
    ]
    pools.settings(catalog={"endpoints": endpoints, "health": {"path": "/up"}, "panic_threshold": 0})
    two[1].kill()
    pools.says(1, "status")


def test_explain_finds_where_the_call_goes(pools: Command) -> None:
    """By the same key, table and order of retries as the transport's own."""
    with upstreams(3) as three:
        options = {"balancer": "ring_hash", "hash": {"on": ["header:x-tenant", "path"]}}
        settings = {"catalog": {"endpoints": [one.url for one in three], **options}}
        pools.settings(**settings)
        with Pools.from_settings("unsticky.toml") as real, real.client() as client:
            for n in range(8):
                headers, path = {"x-tenant": f"t{n}"}, f"/items/{n}"
                went = client.get(f"http://catalog{path}?page=1", headers=headers).extensions["unsticky"]["endpoint"]
                arguments = ("--path", f"{path}?page=1", "--header", f"X-Tenant=t{n}")
                [said] = pools.objects(0, "explain", "catalog", *arguments)
                assert said["attempts"][0] == f"http://{went}"
                assert len(set(said["attempts"])) == 3
                assert said["hashed"] == ["header:x-tenant", "path"]
                assert said["hash_key"] == f"{combine(hash_text(f't{n}'), hash_text(path)):016x}"
        *_, key, goes, retries, repeat = pools.says(0, "explain", "CATALOG", *arguments).splitlines()
    assert key == f"hash key: {said['hash_key']}, of header:x-tenant, path"
    assert goes == f"goes to: {went}"
    assert retries.startswith("retries, if each attempt fails: 127.0.0.1:")
    assert repeat == "up to 3 attempts: GET may be sent again"


@pytest.mark.parametrize(
    ("on", "arguments", "hashed"),
    [
        (["session", "path"], ["--session", "v1:abc"], ["session", "path"]),
        ([{"key": "session", "terminal": True}, "path"], ["--session", "v1:abc"], ["session"]),
        ([{"key": "session", "terminal": True}, "path"], [], ["path"]),
        (["cookie:cart", "inbound-header:x-user"], ["--cookie", "cart=1", "--inbound-header", "X-User=7"],
         ["cookie:cart", "inbound-header:x-user"]),
        (["query:page"], ["--path", "/items?page=&page=2"], ["query:page"]),
        (["query:page"], ["--path", "/items"], []),
        (["query:page"], ["--hash-key", "u42"], ["--hash-key"]),
    ],
)  # fmt: skip
def test_explain_what_is_hashed(on: list[Any], arguments: list[str], hashed: list[str], pools: Command) -> None:
    """Names, never values."""
    pools.settings(catalog={"endpoints": ["http://127.0.0.1:1"], "balancer": "maglev", "hash": {"on": on}})
    [said] = pools.objects(0, "explain", "catalog", *arguments)
    assert said["hashed"] == hashed
    assert (said["hash_key"] is None) == (not hashed)
    text = pools.says(0, "explain", "catalog", *arguments)
    assert "abc" not in text
    assert ("hash key: none, as the call has nothing of what is hashed (query:page)" in text) == (not hashed)


def test_explain_draws_and_methods(pools: Command, two: list[Upstream]) -> None:
    """Where endpoints are drawn one draw is shown; unfit ones come only when nothing else is left."""
    two[0].behave("status", status=500)
    pools.settings(catalog={"endpoints": [one.url for one in two], "health": {"path": "/up"}})
    text = pools.says(0, "explain", "catalog", "--method", "post")
    assert f"one draw: {two[1].address}\n" in text
    assert "only while nothing was sent: POST is not in retry.methods" in text
    before = two[0].seen()["GET /up"]
    pools.says(0, "explain", "catalog", "--no-probe")
    assert two[0].seen()["GET /up"] == before
    pools.settings(catalog={"endpoints": [two[0].url], "health": {"path": "/up"}, "panic_threshold": 0})
    assert "unhealthy" in pools.objects(1, "explain", "catalog")[0]["problem"]
    pools.settings(catalog={"endpoints": [two[1].url], "retry": {"attempts": 1}})
    assert "no retries: attempts = 1" in pools.says(0, "explain", "catalog")


def test_explain_rules(pools: Command, two: list[Upstream]) -> None:
    """The rules that hold send the call to another pool, and to a level of it; those of others' tenants do not."""
    rule = {"name": "big tenants", "when": {"path": ["/reports/*"], "header": {"x-tenant": "big-*"}}, "use_pool": "big"}
    second = {"url": two[1].url, "priority": 1}
    pools.settings(
        catalog={"endpoints": [two[0].url], "rules": [rule]},
        big={"endpoints": [two[0].url, second], "rules": [{"when": {"method": ["POST"]}, "use_priority": 1}]},
    )
    arguments = ["explain", "catalog", "--path", "/reports/1?x=1", "--header"]
    [said] = pools.objects(0, *arguments, "x-tenant=big-a", "--method", "POST")
    assert said["pool"] == "big"
    assert said["rules"] == ['rule "big tenants" of catalog: use pool big', 'rule "0" of big: begin with priority 1']
    assert said["attempts"] == [two[1].url, two[0].url, two[1].url]
    assert pools.objects(0, *arguments, "x-tenant=big-a")[0]["attempts"][0] == two[0].url
    [said] = pools.objects(0, *arguments, "x-tenant=small")
    assert (said["pool"], said["rules"]) == ("catalog", [])
    text = pools.says(0, *arguments, "x-tenant=big-a")
    assert text.startswith('rule "big tenants" of catalog: use pool big\nbig: least_request, no health checks')


# all of them ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["check"], ["probe"], ["status"], ["explain", "catalog"]])
def test_what_cannot_be_done(command: list[str], pools: Command) -> None:
    """Is one line and an exit status."""
    pools.settings()
    assert pools.run(*command) == (1, "", "unsticky: the settings have no pools\n")
    assert pools.run(*command, "--settings", "no.toml") == (2, "", "unsticky: no.toml: no such file\n")
    pools.settings(catalog={"endpoints": ["nonsense"]})
    status, out, err = pools.run(*command)
    assert (status, out) == (1, "")
    assert "pools.catalog.endpoints[0]: expected an origin" in err
    pools.settings(shop={"endpoints": ["http://127.0.0.1:1"]})
    status, out, err = pools.run(command[0], "catalog")
    assert (status, out, err) == (2, "", 'unsticky: there is no pool "catalog"; there are: shop\n')


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (["probe", "--timeout", "0s"], "--timeout: expected more than 0"),
        (["probe", "--path", "foo?key=secret"], "expected a path that begins with "),
        (["explain", "catalog", "--path", "foo?key=secret"], "expected a path that begins with "),
        (["explain", "catalog", "--method", "G ET"], "expected an HTTP method such as "),
    ],
)
def test_arguments_are_checked(command: list[str], wrong: str, pools: Command, two: list[Upstream]) -> None:
    """By the rules of the settings; what may be a secret is not repeated."""
    pools.settings(catalog={"endpoints": [two[0].url]})
    status, out, err = pools.run(*command)
    assert (status, out) == (2, "")
    assert wrong in err
    assert "secret" not in err


def test_values_are_not_repeated(pools: Command) -> None:
    """A header that is written wrongly may hold a secret."""
    status, _, err = pools.run("explain", "catalog", "--header", "Authorization: Bearer secret")
    assert status == 2
    assert "expected NAME=VALUE" in err
    assert "secret" not in err


def test_many_endpoints_show_progress(pools: Command, two: list[Upstream]) -> None:
    """On a terminal, and nowhere else; Ctrl-C and pipes are the same as for all commands."""
    discovery = {"type": "file", "path": "many.json"}
    Path("many.json").write_text(
        json.dumps([f"http://127.0.{n // 250}.{n % 250 + 1}:{two[0].port}" for n in range(400)])
    )
    pools.settings(catalog={"discovery": discovery, "health": {"path": "/up", "timeout": "30s"}})
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "unsticky", "pools", "probe", "--json"], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    assert len(done.stdout.splitlines()) == 400
    assert "of 400 endpoints probed" in seen


def test_help_names_what_a_person_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has examples."""
    for command in ("check", "probe", "status", "explain"):
        with pytest.raises(SystemExit):
            main(["pools", command, "--help"])
        assert f"unsticky pools {command}" in capsys.readouterr().out.split("examples:")[1]
    assert main(["pools"]) == 2
