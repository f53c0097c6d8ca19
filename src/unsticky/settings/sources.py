"""Where settings come from: the first source found, with the environment laid over it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import Problem, SettingsError
from .environment import overlay
from .shapes import table_of
from .tree import Settings

Source = str | os.PathLike[str] | Mapping[str, object] | Settings

FILE_VARIABLE = "UNSTICKY_SETTINGS"
FILE_NAME = "unsticky.toml"
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Found:
    """A source before it is read: `name` says which, `how` why it is this one."""

    data: Mapping[str, object]
    name: str
    how: str
    variables: tuple[str, ...] = ()  # of the environment, that were laid over it
    problems: tuple[Problem, ...] = ()  # of variables that fit nowhere

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.name} and the environment" if self.variables or self.problems else self.name


def find(
    source: Source | None,
    *,
    environ: Mapping[str, str] = os.environ,
    search: bool = True,
) -> Found:
    """The first source there is, the environment laid over it. Raises SettingsError if a file can't be used."""
    if isinstance(source, Settings):
        return Found(table_of(source) or {}, "Settings", "given by the program")
    found = _first(source, environ if search else {}, search)
    data, used, problems = overlay(found.data, environ)
    return Found(data, found.name, found.how, tuple(used), tuple(problems))


def _first(
    source: str | os.PathLike[str] | Mapping[str, object] | None, environ: Mapping[str, str], here: bool
) -> Found:
    if isinstance(source, Mapping):
        return Found(source, "settings", "a mapping given by the program")
    if source is not None:
        return Found(_parse(Path(source)), os.fspath(source), "the file that was named")
    if named := environ.get(FILE_VARIABLE):
        return Found(_parse(Path(named)), named, f"the file that {FILE_VARIABLE} names")
    if here and Path(FILE_NAME).exists():
        return Found(_parse(Path(FILE_NAME)), FILE_NAME, "found in the current directory")
    return Found({}, "defaults", f"no source was given, and there is no {FILE_NAME} here")


def _parse(path: Path) -> dict[str, object]:
    try:
        # Editors of one system put a byte order mark first, which TOML does not know.
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        _refuse(path, "", error.strerror or type(error).__name__, error)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        _refuse(path, f"line {line}", "this is not UTF-8", error)
    except RecursionError as error:
        _refuse(path, "", "lists or tables are nested too deeply", error)
    except tomllib.TOMLDecodeError as error:
        where, message = _position(str(error), path.read_text("utf-8-sig"))
        _refuse(path, where, message, error)


def _refuse(path: Path, where: str, message: str, cause: Exception) -> NoReturn:
    raise SettingsError(str(path), [Problem(where, message)]) from cause


def _position(message: str, text: str) -> tuple[str, str]:
    """tomllib tells where in its message's tail only, and not for the end of the document."""
    at = _AT.search(message)
    if at is None:
        return "", message
    last = text.split("\n")
    line, column = at.groups() if at[1] else (len(last), len(last[-1]) + 1)
    return f"line {line}, column {column}", message[: at.start()]
