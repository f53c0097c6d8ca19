"""Settings: one typed tree, read from TOML, a mapping and the environment.

The first source that is found wins whole: the argument; the file that ``UNSTICKY_SETTINGS`` names;
``./unsticky.toml``; the defaults. Only the environment is merged into it, and only names with a double underscore, and
``UNSTICKY_LOCALITY``, as it differs from host to host:

    UNSTICKY_SESSION__STORE=redis://cache:6379/0
    UNSTICKY_POOLS__CATALOG__RETRY__ATTEMPTS=5
    UNSTICKY_POOLS__CATALOG__ENDPOINTS=http://10.0.0.1:8000,http://10.0.0.2:8000
    UNSTICKY_POOLS__CATALOG__ENDPOINTS=[{url = "http://10.0.0.1:8000", weight = 3}]

An upper-case name finds the pool whatever its case, and ``_`` stands for ``-`` and ``.`` too; a pool that no source
names yet is created with the name in lower case. A list is comma separated, or in the syntax of TOML or JSON; a table
is in that of TOML or JSON. A variable that is empty counts as not set (as OpenTelemetry has it).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from .reading import read
from .sources import Found, Source, find
from .tree import Settings

__all__ = ["Found", "Settings", "Source", "find", "load", "read"]


def load(
    source: Source | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    search: bool = True,
) -> Settings:
    """The settings of `source`: a TOML file's path, a mapping of the file's shape, or None to look for one.

    A ready `Settings` is checked too, but the environment does not change it: the program has decided already.
    `search=False` leaves out the files that nobody passed. Raises SettingsError with every problem of the source.
    """
    return read(find(source, environ=environ, search=search))
