"""``unsticky check``: does any replica answer any request the same?"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clock import SystemClock
from ..errors import CheckError, SettingsError
from .progress import Progress

if TYPE_CHECKING:
    from ..statelessness.check import Plan

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_MANY: dict[str, Any] = {"action": "append", "default": []}
EXAMPLES = """\
The script's requests are sent to one replica, then to a fresh one for each request (amnesia), then reads to all of
them (broadcast), each time over an empty store. What changes with the replica, the app kept in the process.

A script is a Python file:

  SCRIPT = [
      ("POST", "/login", {"form": {"user": "ann"}}),          # or {"json": ...}, {"headers": ...}, {"file": [...]}
      ("GET", "/cart"),
      ("POST", "/pay", lambda seen: {"headers": {"x-csrf": seen[0].json()["csrf"]}}),
      ("GET", lambda seen: "/orders/" + seen[2].json()["id"]),  # a path of an earlier response
  ]

Cookies are kept as a browser keeps them. Sessions of unsticky go to a store of the check's own. Databases of your own
are what all replicas share: empty them with --reset, and name files that all replicas see with --shared. What
[statelessness] of the settings that are found here says of `packages`, `shared` and `allow` counts as well.

exit status: 0 no counter-example, 1 proven (or suspected or inconclusive, with --strict), 2 the check could not be done

examples:
  unsticky check shop:app --script flows.py
  unsticky check shop:app --script recording.har --reset shop.testing:empty_database
  unsticky check shop:app --script openapi --json report.json
  unsticky check "shop:create_app()" --script flows.py --shared ./uploads --strict
"""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, such as 2.5, got {text!r}")
    return seconds


_ARGUMENTS: dict[str, dict[str, Any]] = {
    "app": {"metavar": "APP", "help": '"module:attribute" of a WSGI or ASGI app, or of a factory with ()'},
    "--script": {"metavar": "FILE", "required": True, "help": 'requests: .py, .har, OpenAPI .json, or "openapi"'},
    "--replicas": {"metavar": "N", "type": int, "choices": range(2, 17), "default": 3, "help": "2 to 16 boots (3)"},
    "--reset": {"metavar": "MODULE:FUNCTION", "default": "", "help": "empties your databases before each run"},
    "--shared": {**_MANY, "metavar": "PATH", "help": "a path that all replicas see"},
    "--package": {**_MANY, "metavar": "NAME", "help": "whose variables are named (APP's own)"},
    "--allow": {**_MANY, "metavar": "PATTERN", "help": 'variables that may differ, such as "shop.metrics:*"'},
    "--ignore": {**_MANY, "metavar": "PATTERN", "help": 'what may differ in responses, such as "header x-replica"'},
    "--isolate": {"choices": ("auto", "ns", "swap", "none"), "default": "auto", "help": "how disks are kept apart"},
    "--timeout": {"metavar": "SECONDS", "type": _seconds, "default": 10.0, "help": "for one request (10)"},
    "--keep-store": {"action": "store_true", "help": "leave sessions where the settings say; --reset empties them"},
    "--strict": {"action": "store_true", "help": "fail on what is suspected or inconclusive, too"},
    "--verbose": {"action": "store_true", "help": "print what is only worth knowing, too"},
    "--json": {"metavar": "FILE", "help": "write the report as JSON; - is standard output, and nothing else there"},
}


def add_to(commands: Commands) -> None:
    """Add ``check``."""
    does = "prove that no state stays behind in a replica, by replay"
    parser = commands.add_parser(
        "check", help=does, description=f"{does.capitalize()}.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    for name, more in _ARGUMENTS.items():
        parser.add_argument(name, **more)
    parser.set_defaults(run=check)


def check(options: argparse.Namespace) -> int:
    from ..statelessness import report  # not for those who ask for something else
    from ..statelessness.check import check as checked_app
    from ..statelessness.findings import Verdict

    progress = Progress("request", "sent")
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))  # so that all is cleaned up
    try:
        if options.json not in (None, "-"):  # what can't be written is told now, and no older report stays there
            _write(options.json, report.without_result(options.app, "the check did not end"))
        with progress:
            found = checked_app(_plan(options), SystemClock(), asked=progress.add)
        if options.json:
            _write(options.json, report.document(found))
    except (CheckError, SettingsError, OSError) as error:
        print(f"unsticky check: {error}", file=sys.stderr)
        if options.json:
            with contextlib.suppress(OSError):
                _write(options.json, report.without_result(options.app, str(error)))
        return 2
    if options.json != "-":
        print("\n".join(report.lines(found, everything=options.verbose)))
    failed = found.of(Verdict.PROVEN) or (
        options.strict and (found.of(Verdict.SUSPECT) or found.of(Verdict.INCONCLUSIVE))
    )
    return 1 if failed else 0


def _plan(options: argparse.Namespace) -> Plan:
    """As the arguments say, with what the settings declare. Raises SettingsError."""
    from .. import settings
    from ..statelessness.check import Plan

    declared = settings.load().statelessness
    return Plan(
        app=options.app, script=options.script, replicas=options.replicas, isolation=options.isolate,
        shared=(*options.shared, *declared.shared), packages=tuple(options.package) or declared.packages,
        allow=(*options.allow, *declared.allow), ignore=tuple(options.ignore), reset=options.reset,
        timeout=options.timeout, keep_store=options.keep_store,
    )  # fmt: skip


def _write(file: str, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if file == "-":
        print(text)
    else:
        Path(file).write_text(f"{text}\n", encoding="utf-8")
