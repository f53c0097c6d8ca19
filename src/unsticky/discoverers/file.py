"""Endpoints from a file that others write: TOML or JSON, watched."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..blocking import OneAtATime
from ..errors import DiscoveryError, SettingsError
from ..routing.call import Endpoint
from ..routing.endpoint import endpoint_from
from ..routing.options import EndpointOptions
from ..rules import Shorthand
from ..settings.reading import read_as

_LOOKS = 20  # at a file that keeps changing
Mark = tuple[int, int, int, int]  # device, inode, size, time of the last write in nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointsFile:
    """What the file holds."""

    endpoints: tuple[Annotated[EndpointOptions, Shorthand("url")], ...]


class FileDiscovery:
    """A list `endpoints` in a file, as it is in settings; in JSON the list alone is enough.

    The file is read when it changed: when it was renamed into place, written over, or a symbolic link leads elsewhere.
    A valid beginning of a list is valid too, so a file that is being written is left alone until it rests.
    """

    def __init__(self, path: str | os.PathLike[str], *, settled: float = 0.1) -> None:
        """`path` is relative to the working directory. A name that ends in .json is JSON, any other is TOML.

        `settled`: seconds that a file must stay the same before it is read, as its writer may be in the middle.
        """
        self._settled = settled
        self._aside = OneAtATime()  # a file of a network may hang
        self._path = Path(path)
        self._mark: Mark | None = None  # of what was read
        self._endpoints: frozenset[Endpoint] = frozenset()

    async def discover(self) -> frozenset[Endpoint]:
        """Raises DiscoveryError when the file is missing, can't be read, or makes no sense."""
        mark = await self._aside(self._look)
        if mark == self._mark:
            return self._endpoints
        for _ in range(_LOOKS):
            await asyncio.sleep(self._settled)
            before, mark = mark, await self._aside(self._look)
            if mark == before:
                endpoints = await self._aside(self._read)
                mark = await self._aside(self._look)
                if mark == before:
                    self._mark, self._endpoints = mark, endpoints
                    return endpoints
        raise DiscoveryError("it keeps changing")

    def _look(self) -> Mark:
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise DiscoveryError(error.strerror or type(error).__name__) from error
        if not stat.S_ISREG(found.st_mode):
            raise DiscoveryError(_irregular(found.st_mode))
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> frozenset[Endpoint]:
        try:
            return parsed(self._path.read_bytes(), as_json=self._path.suffix == ".json")
        except OSError as error:
            raise DiscoveryError(error.strerror or type(error).__name__) from error


def _irregular(mode: int) -> str:
    """To open a FIFO would wait for its writer, and to read a device might not end."""
    kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    kind = next((name for is_one, name in kinds if is_one(mode)), "a device")
    return f"it is {kind}, not a regular file"


def parsed(data: bytes, *, as_json: bool) -> frozenset[Endpoint]:
    """The endpoints in a file's bytes. Raises DiscoveryError with all that is wrong."""
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(text) if as_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of all three
        raise DiscoveryError(f"not {'JSON' if as_json else 'TOML'}: {error}") from None
    if not isinstance(content, Mapping):
        content = {"endpoints": content}
    try:
        return frozenset(map(endpoint_from, read_as(EndpointsFile, content).endpoints))
    except SettingsError as error:
        raise DiscoveryError("; ".join(map(str, error.problems))) from None
