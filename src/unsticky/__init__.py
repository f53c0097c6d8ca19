"""Any replica can serve any request.

Sessions go to a shared store, outbound calls go over pools of endpoints, and every attempt is traced. Start with
`unsticky.flask.Unsticky` or `unsticky.starlette.UnstickyMiddleware`; outside of a web app, with `Pools`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    AttemptsFailed,
    CallTimeout,
    ClientDisconnected,
    DamagedRecord,
    DeadlineExceeded,
    FailedAttempt,
    NoHealthyEndpoint,
    PoolOverflow,
    RoutingError,
    SessionConflict,
    SessionError,
    SessionHeadersSent,
    SessionLimitReached,
    SessionNotLoaded,
    SessionUnavailable,
    SessionValueError,
    SettingsError,
    StoreError,
    UnstickyError,
)
from .local import replica_local

if TYPE_CHECKING:
    from .pools import Pools
    from .sessions import Sessions
    from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AttemptsFailed",
    "CallTimeout",
    "ClientDisconnected",
    "DamagedRecord",
    "DeadlineExceeded",
    "FailedAttempt",
    "NoHealthyEndpoint",
    "PoolOverflow",
    "Pools",
    "RoutingError",
    "SessionConflict",
    "SessionError",
    "SessionHeadersSent",
    "SessionLimitReached",
    "SessionNotLoaded",
    "SessionUnavailable",
    "SessionValueError",
    "Sessions",
    "Settings",
    "SettingsError",
    "StoreError",
    "UnstickyError",
    "__version__",
    "replica_local",
]

# Imported when they are asked for: who only wants a session, or the command line, need not load an HTTP client.
_LATER = {"Pools": "pools", "Sessions": "sessions", "Settings": "settings"}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
