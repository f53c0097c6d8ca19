"""What the start of an app looks at beside its settings: discoveries of its own, and authorities for TLS."""

from __future__ import annotations

import os
import sys

from ..clock import SystemClock
from ..discovery import open_sources
from ..errors import Problem
from ..probes import problems
from ..settings import Settings


def at_start(settings: Settings) -> list[Problem]:
    """What would keep an app from starting here. What the program passes itself is not known."""
    sys.path.insert(0, os.getcwd())  # for discoveries of the app's own, as servers have it
    named = {name: pool for name, pool in settings.pools.items() if pool.discovery and pool.discovery.type != "program"}
    _, wrong = open_sources(named, {}, SystemClock())
    return problems(settings.pools) + wrong
