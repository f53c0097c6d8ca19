"""From the command line to the sessions of a store."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path

from ..errors import SessionUnavailable, StoreError
from ..scalars import Duration, StoreURL
from ..session import listing
from ..session.options import SessionOptions
from ..session.store import Record, Scannable
from ..sessions import Sessions
from ..settings import load
from ..stores import check_url
from ..stores.urls import split, sqlite_path
from .progress import Progress
from .reporting import Refused, store_problem

_PATIENCE = Duration("5s")  # for one operation: an administrator can wait longer than a request
_BY_ID = "`show ID` and `revoke ID` work"


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Sessions]:
    """The sessions of the store that was asked for. What its store raises becomes Refused."""
    chosen = session_options(options)
    url = chosen.store.masked
    # Which framework's lifetime holds is not known here, where the settings name none. The records know.
    sessions = Sessions(chosen, framework_idle=inf)
    try:
        yield sessions
    except (StoreError, SessionUnavailable) as error:
        raise Refused(f"{url}: {store_problem(error)}") from error
    finally:
        sessions.close()


def session_options(options: argparse.Namespace) -> SessionOptions:
    """Raises SettingsError, and Refused for a store that can't be seen from here."""
    if options.settings is not None and not Path(options.settings).exists():
        raise Refused(f"{options.settings}: no such file", 2)
    chosen = load(options.settings).session
    if options.store is not None:
        problem = check_url(options.store)
        if problem is not None:
            raise Refused(f"--store: {problem}", 2)
        chosen = replace(chosen, store=StoreURL(options.store))
    _check_visible(chosen.store)
    return replace(chosen, store_timeout=max(chosen.store_timeout, _PATIENCE))


def _check_visible(url: StoreURL) -> None:
    scheme = split(url).scheme
    if scheme == "memory":
        raise Refused(f"{url}: it is inside of the app's process, and can't be seen from here")
    if scheme == "sqlite" and not os.path.exists(sqlite_path(url)):
        # Opening would make an empty one, perhaps beside the right one.
        raise Refused(f"{url}: there is no such file (seen from {os.getcwd()})")


def scannable(sessions: Sessions) -> Scannable:
    """The store, if it can show all that it holds."""
    store = sessions.access.store
    if not isinstance(store, Scannable):
        raise Refused(f"{sessions.options.store.masked}: this store can't list what it holds; {_BY_ID}")
    return store


def keeps_owners(sessions: Sessions) -> None:
    """Raises Refused for a store in which no session has an owner."""
    if sessions.terms.may_evict:
        raise Refused(
            f"{sessions.options.store.masked}: this store may forget any record, so sessions have no owners in it"
            f"; {_BY_ID}"
        )


def walk(store: Scannable, progress: Progress | None = None) -> Iterator[tuple[str, Record]]:
    """Key and record of each session, once. All that is read counts as progress."""
    seen = set[str]()
    for batch in store.scan():
        if progress is not None:
            progress.add(len(batch))
        for key, record in batch:
            if listing.is_session(key) and key not in seen:
                seen.add(key)
                yield key, record
