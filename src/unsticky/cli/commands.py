"""Subcommands: their help, and how what they do is imported when it is needed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def later(action: str) -> Callable[[argparse.Namespace], int]:
    """Runs `action`, "module:function" of this package, which is imported then: `unsticky --help` starts fast."""
    module, _, name = action.partition(":")

    def run(options: argparse.Namespace) -> int:
        from .reporting import reported

        return reported(getattr(import_module(f"{__package__}.{module}"), name), options)

    return run


def command(commands: Commands, name: str, does: str, epilog: str) -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(
        name, help=does, description=f"{does.capitalize()}.", epilog=epilog, formatter_class=form
    )
