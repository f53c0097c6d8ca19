"""``unsticky sessions``: list, show, revoke, purge, stats, migrate. What they do is in the files beside this one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .commands import command, later

if TYPE_CHECKING:
    from .commands import Commands

SESSIONS = """\
The store is the one of the settings that an app started here would use, or --store. An operation may take 5 s, or
`store_timeout` if that is more. Exit status: 0 done, 1 problems, 2 wrong usage, 130 Ctrl-C.

examples:
  unsticky sessions stats
  unsticky sessions list --owner 42
  unsticky sessions revoke --owner 42
  UNSTICKY_SESSION__STORE=redis://cache unsticky sessions list
"""
LIST = """\
The newest login first. With --json one object per line: times in unix seconds, sizes in bytes; without --limit they
are printed while they are read, in no order.

examples:
  unsticky sessions list --limit 20
  unsticky sessions list --owner 42
  unsticky sessions list --json | jq -r 'select(.last_seen < now - 86400) | .id' | xargs unsticky sessions revoke
"""
SHOW = """\
Values are never shown. Names of keys can be data of users, so they are shown only with --keys.

examples:
  unsticky sessions show v1:GLC5cQpuoSu1tqqPyNiP3GKxDXnB1gYf_GzTpWgIBvg
  unsticky sessions show v1:GLC5cQpuoSu1tqqPyNiP3GKxDXnB1gYf_GzTpWgIBvg --keys
"""
REVOKE = """\
A session ends at once and everywhere. Requests that are under way can't write to it any more. --all ends those that
are there when it begins; whoever comes meanwhile stays. Exit status 1 if one of the IDs was none.

examples:
  unsticky sessions revoke v1:GLC5cQpuoSu1tqqPyNiP3GKxDXnB1gYf_GzTpWgIBvg
  unsticky sessions revoke --owner 42
  unsticky sessions revoke --owner 42 --keep v1:GLC5cQpuoSu1tqqPyNiP3GKxDXnB1gYf_GzTpWgIBvg
  unsticky sessions revoke --all --yes
"""
PURGE = """\
SQLite and PostgreSQL do not forget by themselves. Apps clear them in the background while new sessions come in, so
this is for a store whose apps are stopped, or for cron. The app's writes come first: it pauses between its batches.

examples:
  unsticky sessions purge
  UNSTICKY_SETTINGS=/etc/shop.toml unsticky sessions purge
"""
STATS = """\
All records are read once. With --json: one object; times in seconds, sizes in bytes of the encoded values.

examples:
  unsticky sessions stats
  unsticky sessions stats --json | jq .sessions
"""
MIGRATE = """\
PostgreSQL's table is made at first use, or here, by a role that may. For other stores there is nothing to do.

examples:
  unsticky sessions migrate
  UNSTICKY_SESSION__STORE=postgresql://admin@db/shop unsticky sessions migrate
"""


def add_to(commands: Commands) -> None:
    """Add ``sessions`` and its subcommands."""
    parser = command(commands, "sessions", "list and end sessions, and look after their store", SESSIONS)
    parser.set_defaults(parser=parser)
    below = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_list(below)
    _add_show(below)
    _add_revoke(below)
    _on_store(below, "purge", "delete what has expired", PURGE, "sessions_end:purge")
    stats = _on_store(
        below, "stats", "count sessions, and say how large and how old they are", STATS, "sessions_stats:stats"
    )
    stats.add_argument("--json", action="store_true", help="one object, for machines")
    _on_store(below, "migrate", "bring the store's schema up to date", MIGRATE, "sessions_end:migrate")


def _add_list(below: Commands) -> None:
    parser = _on_store(below, "list", "list sessions", LIST, "sessions_show:list_sessions")
    parser.add_argument("--owner", metavar="USER", help="those of this user alone, as the app names them")
    parser.add_argument("--json", action="store_true", help="one object per line, for machines")
    parser.add_argument("--limit", metavar="N", type=_positive, help="the N newest")


def _add_show(below: Commands) -> None:
    parser = _on_store(below, "show", "show one session", SHOW, "sessions_show:show")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--keys", action="store_true", help="the names of its keys too, and their sizes")
    parser.add_argument("--json", action="store_true", help="one object, for machines")


def _add_revoke(below: Commands) -> None:
    parser = _on_store(below, "revoke", "end sessions", REVOKE, "sessions_end:revoke")
    parser.add_argument("ids", metavar="ID", nargs="*")
    parser.add_argument("--owner", metavar="USER", help="all of this user, as the app names them")
    parser.add_argument("--keep", metavar="ID", help="with --owner: but not this one")
    parser.add_argument("--all", action="store_true", help="all of everybody")
    parser.add_argument("--yes", action="store_true", help="with --all: do not ask")
    parser.set_defaults(misused=parser.error)


def _on_store(below: Commands, name: str, does: str, epilog: str, action: str) -> argparse.ArgumentParser:
    """A subcommand that needs a store. `action`: which function of which file does it."""
    parser = command(below, name, does, epilog)
    parser.add_argument("--settings", metavar="FILE", help="instead of the settings that an app started here would use")
    parser.add_argument("--store", metavar="URL", help="instead of the settings' store")
    parser.set_defaults(run=later(action))
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number"  # argparse: "invalid number value"
