"""The command `unsticky`. Each subcommand is a file; it is imported only when it is called, so that all start fast."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from . import check, pools, sessions, settings

EXAMPLES = """\
examples:
  unsticky settings check unsticky.toml     is this file right?
  unsticky settings show                    what would my app use, and where does each value come from?
  unsticky settings schema > schema.json    for editors: "#:schema schema.json" as the file's first line
  unsticky sessions list --owner 42         where is this user logged in?
  unsticky sessions revoke --owner 42       log them out everywhere
  unsticky pools probe                      do all endpoints answer?
  unsticky pools explain catalog --path /x  where would this call go, and why?
  unsticky sessions stats                   how many sessions are there, how old, how large?
  unsticky check shop:app --script flows.py     does any state stay behind in a replica?
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 fine, 1 problems were found, 2 it was called wrongly, 130 Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(argv)
    if "run" not in options:
        options.parser.print_help(sys.stderr)
        return 2
    try:
        return int(options.run(options))
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Nothing may be written at exit any more.
        sys.stdout = None
        return 0
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """A parser that repeats no password of a URL which stood in the wrong place."""

    def error(self, message: str) -> NoReturn:
        super().error(re.sub(r"://\S+", "://***", message))


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="unsticky",
        description="Any replica can serve any request.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unsticky {__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    settings.add_to(commands)
    sessions.add_to(commands)
    pools.add_to(commands)
    check.add_to(commands)
    return parser
