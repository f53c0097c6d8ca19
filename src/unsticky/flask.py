"""Flask: `Unsticky(app)` takes the session out of the process and gives the app a client over its pools.

from unsticky.flask import Unsticky

unsticky = Unsticky(app)
session["cart"] = [...]                      # flask.session, unchanged
unsticky.client.get("http://catalog/items")  # "catalog" is a pool of unsticky.toml
"""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import Any

from flask import Flask, current_app

from . import errors, wsgi
from . import settings as settings_module
from .arrivals import Arrivals
from .context import Deadline, current_deadline
from .flask_sessions import (
    FlaskSession,
    SessionInterface,
    SessionLimitReached,
    SessionUnavailable,
    as_http,
    too_late,
)
from .load import Meter
from .pools import Pools
from .reporting import ReportingApp
from .sessions import Sessions
from .settings import Settings, Source
from .wsgi_context import InContext

__all__ = ["AppState", "FlaskSession", "SessionInterface", "SessionLimitReached", "SessionUnavailable", "Unsticky"]


class AppState:
    """What one app has of unsticky: `app.extensions["unsticky"]`."""

    def __init__(self, settings: Settings, interface: SessionInterface) -> None:
        self.settings = settings
        self.sessions = interface.sessions
        self._interface = interface
        self.pools = Pools(settings)
        self.load = Meter(settings.load_report)  # `load.say("named_metrics.queue", 3)`

    @cached_property
    def client(self) -> Any:
        """The client over the pools: an httpx.Client, or httpx2.Client where the settings say so."""
        return self.pools.client()

    def close(self) -> None:
        """Close the client, the pools and the store. They open again when they are used."""
        client = self.__dict__.pop("client", None)
        if client is not None:
            client.close()
        self.pools.close()
        self._interface.close()


class Unsticky:
    """The Flask extension.

    `settings`: a path, a mapping with the file's shape, or Settings. None: `app.config["UNSTICKY"]`, then the file
    that the environment variable UNSTICKY_SETTINGS names, then ./unsticky.toml, then the defaults.
    """

    def __init__(self, app: Flask | None = None, settings: Source | None = None) -> None:
        self._settings = settings
        self._only: weakref.ref[Flask] | None = None
        if app is not None:
            self.init_app(app, settings)

    def init_app(self, app: Flask, settings: Source | None = None) -> None:
        """Set `app` up. Raises SettingsError, with every problem in it, if the settings are wrong."""
        if "unsticky" in app.extensions:
            raise RuntimeError("This app has been set up with unsticky before; call Unsticky(app) once.")
        source = next((s for s in (settings, self._settings, app.config.get("UNSTICKY")) if s is not None), None)
        loaded = settings_module.load(source)
        interface = SessionInterface(loaded.session)
        state = AppState(loaded, interface)
        app.session_interface = interface
        app.register_error_handler(errors.SessionUnavailable, as_http)  # of `unsticky.sessions.list`, say
        app.register_error_handler(errors.DeadlineExceeded, too_late)
        interface.last_to_see_responses = "wsgi_app" not in vars(app)
        if loaded.statelessness.guard != "off":
            from .statelessness.guard import hosts  # not for those who do without

            hosts.guard_flask(app, hosts.guard_of(loaded))
        inner = InContext(app.wsgi_app, Arrivals(loaded.inbound))
        app.wsgi_app = ReportingApp(inner, state.load) if state.load.on else inner  # type: ignore[method-assign]
        app.extensions["unsticky"] = state
        wsgi.close_at_exit(state)
        self._only = weakref.ref(app)

    @property
    def client(self) -> Any:
        """The client over the pools: an httpx.Client, or httpx2.Client where the settings say so."""
        return self.state.client

    @property
    def deadline(self) -> Deadline:
        """When the client of the current request gives up: `.remaining()` seconds are left; None: there is none."""
        return current_deadline()

    @property
    def pools(self) -> Pools:
        """The app's pools."""
        return self.state.pools

    @property
    def load(self) -> Meter:
        """What this process reports of its load: `.say("application_utilization", 0.4)`."""
        return self.state.load

    @property
    def sessions(self) -> Sessions:
        """The app's sessions: `.list(user.id)`, `.revoke(id)`, `.revoke_all(user.id, keep=session)`."""
        return self.state.sessions

    @property
    def state(self) -> AppState:
        """The current app's; outside of an app context, that of the app that was set up last."""
        app = current_app or (self._only and self._only())
        if not app:
            raise RuntimeError("No app has been set up: call unsticky.init_app(app) first.")
        state: AppState = app.extensions["unsticky"]
        return state
