"""The requests that are replayed: from a Python file, a HAR recording, or an OpenAPI document."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..errors import ScriptError
from .openapi import requests
from .step import METHODS, OF_CLIENTS, Step


def load(source: str, app_document: Callable[[], Any] | None = None) -> tuple[Step, ...]:
    """The script in the file `source`, or, for "openapi", one made of the app's own document.

    A Python file has `SCRIPT = [(method, path), (method, path, options), ...]`; a `.har` file is a recording of a
    browser; any other `.json` is an OpenAPI document. Raises ScriptError, which names the place.
    """
    if source == "openapi":
        if app_document is None:
            raise ScriptError("openapi: the app has no OpenAPI document; name a file")
        return _not_empty(source, _of_openapi(app_document(), source))
    path = Path(source)
    if not path.is_file():
        raise ScriptError(f"{source}: no such file; a script is a Python file with SCRIPT = [...], a .har file, "
                          'an OpenAPI document (.json), or "openapi" for the app\'s own')  # fmt: skip
    if path.suffix == ".py":
        return _not_empty(source, _of_python(path))
    if path.suffix in (".yaml", ".yml"):
        raise ScriptError(f"{source}: YAML is not read; save the OpenAPI document as JSON")
    document = _json(path)
    if path.suffix == ".har" or (isinstance(document, dict) and "log" in document):
        return _not_empty(source, tuple(_of_har(document, source)))
    return _not_empty(source, _of_openapi(document, source))


def checked(script: object, source: str) -> tuple[Step, ...]:
    """The steps of a list of tuples."""
    if not isinstance(script, (list, tuple)):
        raise ScriptError(f"{source}: SCRIPT must be a list of (method, path, options), not {type(script).__name__}")
    return tuple(_step(entry, f"{source}: SCRIPT[{number}]") for number, entry in enumerate(script))


def _step(entry: object, place: str) -> Step:
    if not isinstance(entry, (list, tuple)) or not 2 <= len(entry) <= 3:
        raise ScriptError(f'{place}: expected (method, path) or (method, path, options), such as ("GET", "/")')
    method, path, options = (*entry, None)[:3]
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise ScriptError(f"{place}: {method!r} is no method; allowed are {', '.join(sorted(METHODS))}")
    if not callable(path) and (not isinstance(path, str) or not path.startswith("/")):
        raise ScriptError(
            f"{place}: {path!r} is no path; it must begin with a slash, or be a function of the responses so far"
        )
    options = {} if options is None else options
    if not callable(options) and not isinstance(options, Mapping):
        raise ScriptError(f"{place}: options must be a mapping, or a function of the responses so far")
    step = Step(method.upper(), path, options, place.rpartition(": ")[2])
    if not callable(options):
        step.content(())  # what is wrong is told before anything runs
    return step


def _of_python(path: Path) -> tuple[Step, ...]:
    sys.path.insert(0, str(path.resolve().parent))  # as for a script that is run: what lies beside it can be imported
    try:
        names = runpy.run_path(str(path))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
        raise ScriptError(f"{path}: can't be run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if "SCRIPT" not in names:
        raise ScriptError(f'{path}: has no SCRIPT = [("GET", "/"), ...]')
    return checked(names["SCRIPT"], str(path))


def _of_har(document: Any, source: str) -> Iterator[Step]:
    """The requests of a recording to its first origin. Cookies are left out: each run gets its own."""
    place, origin = "log.entries", ""
    try:
        for number, entry in enumerate(document["log"]["entries"]):
            place = f"log.entries[{number}].request"
            request = entry["request"]
            url, method = urlsplit(request["url"]), request["method"].upper()
            if url.scheme not in ("http", "https"):
                continue
            origin = origin or url.netloc
            if url.netloc == origin and method in METHODS:
                target = (url.path or "/") + (f"?{url.query}" if url.query else "")
                step = Step(method, target, _recorded(request))
                step.content(())  # what is wrong is told before anything runs
                yield step
    except ScriptError as error:
        raise ScriptError(f"{source}: {place}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise ScriptError(f"{source}: is no HAR recording: {place}: {what}") from error


def _recorded(request: Mapping[str, Any]) -> dict[str, Any]:
    headers = {one["name"].lower(): one["value"] for one in request.get("headers", ())}
    kept = {name: value for name, value in headers.items() if name not in OF_CLIENTS and name[:1] != ":"}
    posted = request.get("postData") or {}
    text = posted.get("text")
    if text is None and posted.get("params"):
        text = urlencode([(one["name"], one.get("value") or "") for one in posted["params"]])
    return {"headers": kept, **({"body": text} if text is not None else {})}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ScriptError(f"{path}: is no JSON: {error}") from error


def _of_openapi(document: Any, source: str) -> tuple[Step, ...]:
    try:
        return tuple(requests(document, source))
    except (KeyError, TypeError, AttributeError, ValueError, LookupError, RecursionError) as error:
        raise ScriptError(
            f"{source}: is no OpenAPI document that can be read: {type(error).__name__}: {error}"
        ) from error


def _not_empty(source: str, script: Sequence[Step]) -> tuple[Step, ...]:
    if not script:
        raise ScriptError(f"{source}: has no requests")
    return tuple(script)
