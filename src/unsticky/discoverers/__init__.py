"""Where the endpoints of a pool come from: one file per source.

A source of your own is an object with `discover`, sync or async, that returns the whole set:

    class Consul:
        def discover(self) -> frozenset[Endpoint]: ...

    Pools.from_settings("unsticky.toml", discovery={"catalog": Consul()})
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..clock import Clock
from ..errors import DiscoveryError
from ..routing.call import Endpoint
from ..routing.discovery import AsyncDiscovery, Discovery, DiscoveryStatus, Paced, Source
from ..routing.discovery_options import DiscoveryOptions

__all__ = [
    "AsyncDiscovery",
    "Discovery",
    "DiscoveryError",
    "DiscoveryStatus",
    "Endpoint",
    "Paced",
    "open_discovery",
]


def open_discovery(options: DiscoveryOptions, clock: Clock) -> Source:
    """The source that settings name. Raises ValueError, with a remedy, when there is none."""
    if options.type == "file":
        from .file import FileDiscovery

        return FileDiscovery(options.path or "")
    if options.type == "dns":
        return _dns(options, clock)
    if options.type == "program":
        raise ValueError('the program must pass it: Pools(..., discovery={NAME: ...}), or use "module:attribute"')
    return _own(options.type)


def _dns(options: DiscoveryOptions, clock: Clock) -> Source:
    asks = options.resolver == "dns" or options.record == "SRV" or bool(options.nameservers)
    if options.resolver == "system" or not (asks or find_spec("dns")):
        from .system import SystemDiscovery

        return SystemDiscovery(options)
    try:
        module = import_module(".dns", __package__)
    except ModuleNotFoundError as error:
        needs = "SRV, nameservers and TTLs need"
        raise ValueError(f"{needs} the extra dns: pip install 'unsticky[dns]' ({error.name} is missing)") from error
    found: Source = module.DnsDiscovery(options, clock)
    return found


def _own(name: str) -> Source:
    """An object with `discover`, or what makes one: a class, or a function, without arguments."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'"{name}" is not there: {error}') from error
    if isinstance(found, type) or not hasattr(found, "discover"):
        found = _made(found, name)
    if not hasattr(found, "discover"):
        raise ValueError(f'"{name}" has no method discover')
    source: Source = found
    return source


def _made(make: Callable[[], object], name: str) -> object:
    if not callable(make):
        raise ValueError(f'"{name}" has no method discover')
    return make()
