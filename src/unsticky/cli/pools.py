"""``unsticky pools``: check, probe, status, explain. What they do is in the files beside this one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..rules import METHOD, PATH, Rule
from .commands import command, later

if TYPE_CHECKING:
    from .commands import Commands

POOLS = """\
The pools are those of the settings that an app started here would use, or of --settings. Exit status: 0 fine,
1 problems, 2 wrong usage, 130 Ctrl-C.

examples:
  unsticky pools check
  unsticky pools probe catalog --path /healthz
  unsticky pools status
  unsticky pools explain catalog --method GET --path /items --header x-tenant=a
"""
CHECK = """\
Each pool, its endpoints, and what is wrong (!) or odd (-) about it: names that nobody knows, a discovery that fails, a
balancer without hash keys. No endpoint is connected to: `probe` does that.

examples:
  unsticky pools check
  unsticky pools check catalog --settings production.toml
"""
PROBE = """\
Each endpoint is asked once: by the pool's health check, or where it has none by connecting. --path and --tcp are in its
place. Exit status 1 if one of them is bad.

examples:
  unsticky pools probe
  unsticky pools probe catalog --path /healthz --timeout 5s
  unsticky pools probe --json | jq -r 'select(.ok | not) | .url'
"""
STATUS = """\
Ejections, calls in flight, load reports and results of health checks are inside of each app's process and can't be
seen from here; there `pools.status()` and `pools.explain(NAME)` tell them. This looks with its own eyes: it runs the
health check of each endpoint once, and shows how an app that has just started would spread its calls. Endpoints of
pools without checks count as healthy, as they do in an app. Exit status 1 if a pool has no endpoint for calls.

examples:
  unsticky pools status
  unsticky pools status catalog --json
"""
EXPLAIN = """\
Like `status` it looks with its own eyes. Then it goes through one call: the rules that hold for it, the hash key and
what it is made of, the endpoint of the first attempt, and those of its retries, if each attempt failed. For balancers
that draw it shows one of the possible draws. Rules about error rates and load hold in apps alone: here nothing failed,
and no call is in flight. Nothing is sent but health checks, and values of headers and cookies are not printed.

examples:
  unsticky pools explain catalog
  unsticky pools explain catalog --method POST --path '/items?page=2' --header x-tenant=a
  unsticky pools explain catalog --hash-key user-42
  unsticky pools explain catalog --cookie cart=1 --inbound-header x-user=7 --no-probe
"""


def add_to(commands: Commands) -> None:
    """Add ``pools`` and its subcommands."""
    parser = command(commands, "pools", "check, probe and explain pools of endpoints", POOLS)
    parser.set_defaults(parser=parser)
    below = parser.add_subparsers(title="commands", metavar="COMMAND")
    _over_pools(below, "check", "say what is wrong or odd about pools", CHECK, "pools_check:check")
    _add_probe(below)
    _over_pools(below, "status", "show how calls would be spread now", STATUS, "pools_status:status")
    _add_explain(below)


def _add_probe(below: Commands) -> None:
    parser = _over_pools(below, "probe", "ask each endpoint once", PROBE, "pools_probe:probe")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--path", metavar="PATH", help="GET this, in place of the pool's health check")
    how.add_argument("--tcp", action="store_true", help="only connect")
    parser.add_argument("--timeout", metavar="DURATION", help='of each probe, such as "2s"; else as the checks have it')


def _add_explain(below: Commands) -> None:
    parser = command(below, "explain", "show where a call would go, and why", EXPLAIN)
    parser.add_argument("pool", metavar="POOL")
    parser.add_argument("--method", default="GET", metavar="METHOD", type=_by(METHOD), help="default: GET")
    parser.add_argument("--path", default="/", metavar="PATH", type=_by(PATH), help="with its query; default: /")
    for name, what in (
        ("--header", "of the call; may be repeated"),
        ("--cookie", "of the request that the app serves"),
        ("--inbound-header", "of the request that the app serves"),
    ):
        parser.add_argument(name, metavar="NAME=VALUE", action="append", default=[], type=_pair, help=what)
    parser.add_argument("--session", metavar="ID", help="of the request that the app serves: v1:...")
    parser.add_argument(
        "--hash-key", metavar="TEXT", help="as hash_key of a single call: in place of all that is hashed"
    )
    parser.add_argument("--no-probe", action="store_true", help="run no health checks: all count as healthy")
    _common(parser, "pools_explain:explain")


def _over_pools(below: Commands, name: str, does: str, epilog: str, action: str) -> argparse.ArgumentParser:
    parser = command(below, name, does, epilog)
    parser.add_argument("pools", metavar="POOL", nargs="*", help="these alone")
    return _common(parser, action)


def _common(parser: argparse.ArgumentParser, action: str) -> argparse.ArgumentParser:
    parser.add_argument("--settings", metavar="FILE", help="instead of the settings that an app started here would use")
    parser.add_argument("--json", action="store_true", help="one object per line, for machines")
    parser.set_defaults(run=later(action))
    return parser


def _by(rule: Rule) -> Callable[[str], str]:
    """An argument that is held against a rule of the settings."""

    def read(text: str) -> str:
        try:
            return rule.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")  # the value is not repeated
    return name, value
