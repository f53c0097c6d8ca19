"""What goes wrong becomes one line on stderr and an exit status: no stack trace, no password."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from ..errors import SessionUnavailable, SettingsError, StoreError


class Refused(Exception):
    """It can't be done, and its text says why. `status`: 1 problems, 2 wrong usage."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def reported(action: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """The exit status of `action(options)`."""
    # What the library logs for servers is told below; without a handler Python would print it as well.
    logging.getLogger("unsticky").addHandler(_silent)
    try:
        return action(options)
    except Refused as refused:
        print(f"unsticky: {refused}", file=sys.stderr)
        return refused.status
    except SettingsError as error:
        print(f"unsticky: {_settings_problem(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"unsticky: interrupted{_so_far(stop)}", file=sys.stderr)
        return 130
    finally:
        logging.getLogger("unsticky").removeHandler(_silent)


def store_problem(error: StoreError | SessionUnavailable) -> str:
    """Why the store did not answer, and what was done before."""
    cause = error.__cause__ if isinstance(error, SessionUnavailable) and error.__cause__ else error
    return f"{cause}{_so_far(error)}"


def _settings_problem(error: SettingsError) -> str:
    return f"{error.source}: {error.problems[0]}" if len(error.problems) == 1 else str(error)


def _so_far(error: BaseException) -> str:
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


_silent = logging.NullHandler()
