"""``unsticky settings``: check, show, schema."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..routing.discovery import described
from ..routing.fault_options import FaultOptions
from ..routing.options import PoolOptions
from ..scalars import Duration
from ..settings import Found, Settings, find, read
from ..settings.notes import notes
from ..settings.schema import masked_path, shipped
from . import show

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

SETTINGS = """\
examples:
  unsticky settings check unsticky.toml
  UNSTICKY_SESSION__STORE=redis://cache unsticky settings show
  unsticky settings schema > schema.json
"""
CHECK = """\
Every problem is printed with its path and what is allowed. Exit status: 0 right, 1 problems, 2 no such file.
What has no effect, but may be meant, is noted. Discoveries of the app's own are imported, as they are at its start.
Variables UNSTICKY_..__.. of the environment count too, as they will when the app starts.

examples:
  unsticky settings check unsticky.toml
  env -i "$(command -v unsticky)" settings check unsticky.toml     the file alone
"""
SHOW = """\
Without FILE: what an app started here would use (UNSTICKY_SETTINGS, ./unsticky.toml, else the defaults).
Passwords and keys are masked. Each line says where its value comes from.

examples:
  unsticky settings show
  unsticky settings show production.toml
  UNSTICKY_POOLS__CATALOG__TIMEOUT=1s unsticky settings show | grep timeout
"""
SCHEMA = """\
Editors that know TOML (taplo, Even Better TOML) complete and check by it.

examples:
  unsticky settings schema > schema.json
  sed -i '1i #:schema schema.json' unsticky.toml
"""


def add_to(commands: Commands) -> None:
    """Add ``settings`` and its subcommands."""
    parser = _command(commands, "settings", "check, show and describe settings", SETTINGS)
    parser.set_defaults(parser=parser)
    below = parser.add_subparsers(title="commands", metavar="COMMAND")
    checker = _command(below, "check", "find every problem of a settings file", CHECK)
    checker.add_argument("file", metavar="FILE")
    checker.set_defaults(run=check)
    shower = _command(below, "show", "print the settings in effect, and where each comes from", SHOW)
    shower.add_argument("file", metavar="FILE", nargs="?")
    shower.add_argument("--settings", metavar="FILE", help="the same as FILE, as other commands have it")
    shower.set_defaults(run=show_settings)
    _command(below, "schema", "print the JSON Schema of a settings file", SCHEMA).set_defaults(run=schema)


def _command(commands: Commands, name: str, does: str, epilog: str) -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(
        name, help=does, description=f"{does.capitalize()}.", epilog=epilog, formatter_class=form
    )


def check(options: argparse.Namespace) -> int:
    return _reading(options.file, _approve, starting=True)


def show_settings(options: argparse.Namespace) -> int:
    if None not in (options.file, options.settings):
        print("expected FILE or --settings FILE, got both", file=sys.stderr)
        return 2
    return _reading(options.file or options.settings, show.lines)


def _reading(file: str | None, then: Callable[[Settings, Found], Iterator[str]], *, starting: bool = False) -> int:
    """Print what `then` makes of the settings, or all that is wrong with them; `starting`: as an app starts."""
    if file is not None and not Path(file).exists():
        print(f"{file}: no such file", file=sys.stderr)
        return 2
    try:
        found = find(file)
        settings = read(found)
        if starting:
            _start(settings, found)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(then(settings, found)))
    return 0


def _start(settings: Settings, found: Found) -> None:
    """Raises SettingsError with what would keep an app from starting here."""
    if any(pool.discovery or pool.health.ca_file for pool in settings.pools.values()):
        from .settings_start import at_start  # it loads the HTTP client

        if wrong := at_start(settings):
            raise SettingsError(found.title, wrong)


def schema(options: argparse.Namespace) -> int:
    print(shipped(), end="")
    return 0


def _approve(settings: Settings, found: Found) -> Iterator[str]:
    """What was understood: one line for sessions and one per pool."""
    yield f"{found.title}: OK"
    session = settings.session
    limits = [_limit("idle", session.idle_timeout), _limit("absolute", session.absolute_timeout)]
    yield ", ".join([f"  sessions in {session.store.masked}", *filter(None, limits)])
    for name, pool in settings.pools.items():
        parts = [f"  pool {name}: {_endpoints(pool)}", pool.balancer]
        parts += [f"{pool.retry.attempts} attempt{'s'[: pool.retry.attempts != 1]}"]
        parts += [
            _limit("timeout", pool.timeout),
            f"health {masked_path(pool.health.path)}" if pool.health.path else "",
        ]
        yield ", ".join(filter(None, parts))
        yield from (f"    note: {note}" for note in (*_faults(pool.faults), *notes(name, pool, found)))


def _faults(options: FaultOptions) -> Iterator[str]:
    """What must not be overlooked before this goes into production."""
    if options.abort_percent:
        yield f"{options.abort_percent:g} % of its attempts fail on purpose (faults.abort_percent)"
    if options.delay_percent and options.delay is not None:
        yield f"{options.delay_percent:g} % of its attempts wait {options.delay.text} on purpose (faults.delay_percent)"


def _endpoints(pool: PoolOptions) -> str:
    count = len(pool.endpoints)
    listed = f"{count} endpoint{'s'[: count != 1]}"
    if pool.discovery is None:
        return listed
    found = f"endpoints by {described(pool.discovery)}"
    return f"{listed} and {found}" if count else found


def _limit(name: str, value: Duration | None) -> str:
    return f"{name} {value.text}" if value is not None else ""
