"""The command `unsticky`. Each subcommand is a file; it is imported only when it is called, so that all start fast."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from . import settings

EXAMPLES = """\
examples:
  unsticky settings check unsticky.toml     is this file right?
  unsticky settings show                    what would my app use, and where does each value come from?
  unsticky settings schema > schema.json    for editors: "#:schema schema.json" as the file's first line
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 fine, 1 problems were found, 2 it was called wrongly."""
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unsticky",
        description="Any replica can serve any request.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unsticky {__version__}")
    parser.set_defaults(parser=parser)
    settings.add_to(parser.add_subparsers(title="commands", metavar="COMMAND"))
    return parser
