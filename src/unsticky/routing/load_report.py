"""Load reports (ORCA): what an endpoint says about itself in its response's headers, read and written.

    endpoint-load-metrics: TEXT cpu_utilization=0.3,rps_fractional=120,named_metrics.queue=4
    endpoint-load-metrics: JSON {"cpu_utilization": 0.3, "rps_fractional": 120, "named_metrics": {"queue": 4}}
    endpoint-load-metrics: BIN <base64 of xds.data.orca.v3.OrcaLoadReport>
    endpoint-load-metrics-bin: <the same>

As Envoy's orca_parser has it, what is wrong anywhere makes the whole report worthless: half of one gives weights that
nobody meant. What can be meant in one way only is read: spaces, ":" for "=", base64 without padding.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from .orca_wire import read_message, write_message

HEADER = "endpoint-load-metrics"
LEGACY_HEADER = "endpoint-load-metrics-bin"
FORMAT_HEADER = "endpoint-load-metrics-format"  # of requests: which form the caller wants (vLLM)
LONGEST = 4096  # characters of a report

FIELDS = ("cpu_utilization", "mem_utilization", "application_utilization", "rps_fractional", "eps")
MAPS = ("utilization", "named_metrics")
_IGNORED = ("request_cost", "rps")  # of the message; nobody weighs by them
_CAMEL = {
    "".join(part.capitalize() if i else part for i, part in enumerate(name.split("_"))): name
    for name in (*FIELDS, *MAPS, *_IGNORED)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What an endpoint said. Utilisations are 1.0 when it is fully used; 0 is the same as not said."""

    cpu_utilization: float = 0.0
    mem_utilization: float = 0.0
    application_utilization: float = 0.0
    rps_fractional: float = 0.0  # requests per second that it serves, of all callers
    eps: float = 0.0  # errors per second among them
    utilization: Mapping[str, float] = field(default_factory=dict)
    named_metrics: Mapping[str, float] = field(default_factory=dict)

    def metric(self, name: str) -> float:
        """By its name in settings, such as `cpu_utilization` or `named_metrics.queue`; 0.0 if it was not said."""
        group, dot, key = name.partition(".")  # the first dot: the key may hold more
        if dot:
            return {"utilization": self.utilization, "named_metrics": self.named_metrics}.get(group, {}).get(key, 0.0)
        return float(getattr(self, name)) if name in FIELDS else 0.0


def parse(metrics: str | None, legacy: str | None = None) -> LoadReport:
    """The report in the values of `endpoint-load-metrics` and of `endpoint-load-metrics-bin`, which wins.

    Raises ValueError, and nothing else, with a few words that quote nothing of the report.
    """
    if max(len(metrics or ""), len(legacy or "")) > LONGEST:
        raise ValueError("too long")
    if legacy is not None:
        return _parse_binary(legacy)
    form, _, rest = (metrics or "").partition(" ")
    read = _READERS.get(form)
    if read is None:
        raise ValueError("not TEXT, JSON or BIN")
    return read(rest)


def _parse_text(text: str) -> LoadReport:
    return _report(_pairs(filter(None, (part.strip() for part in text.split(",")))))


def _pairs(parts: Iterable[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        equals, colon = part.find("="), part.find(":")
        cut = min(equals, colon) if equals >= 0 and colon >= 0 else max(equals, colon)
        name, value = (part[:cut].strip(), part[cut + 1 :].strip()) if cut >= 0 else (part, "")
        if name in found:
            raise ValueError("a metric twice")
        found[name] = _number(value)
    return found


def _number(text: str) -> float:
    """More than JSON allows, less than Python does: "1_0" and digits of other scripts are no numbers here."""
    if not text.isascii() or "_" in text:
        raise ValueError("a value that is no number")
    try:
        return float(text)
    except ValueError:
        raise ValueError("a value that is no number") from None


def _parse_json(text: str) -> LoadReport:
    try:
        read = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise ValueError("not valid JSON") from None
    if not isinstance(read, dict):
        raise ValueError("JSON that is no object")
    found: dict[str, float] = {}
    for name, value in read.items():
        name = str(_CAMEL.get(name, name))
        if "." in name:
            raise ValueError("an unknown metric")
        for key, number in _members(name, value):
            if key in found:  # once in each spelling
                raise ValueError("a metric twice")
            found[key] = _json_number(number)
    return _report(found)


def _members(name: str, value: object) -> list[tuple[str, object]]:
    if name in (*MAPS, "request_cost") and isinstance(value, dict):
        return [(f"{name}.{key}", number) for key, number in value.items()]
    return [(name, value)]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _json_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a value that is no number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a value that is not finite") from None


def _parse_binary(text: str) -> LoadReport:
    text = text.strip()
    if not text:
        raise ValueError("an empty message")
    try:
        message = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("not base64") from None
    return _report(read_message(message))


_READERS: dict[str, Callable[[str], LoadReport]] = {"TEXT": _parse_text, "JSON": _parse_json, "BIN": _parse_binary}


def _report(metrics: Mapping[str, float]) -> LoadReport:
    """From names with their groups to a report, if all of it is as it should be."""
    plain: dict[str, float] = {}
    groups: dict[str, dict[str, float]] = {group: {} for group in (*MAPS, "request_cost")}
    for name, value in metrics.items():
        if not isfinite(value) or value < 0:
            raise ValueError("a value that is negative or not finite")
        group, dot, key = name.partition(".")
        if dot and group in groups and key:
            groups[group][key] = value
        elif name in FIELDS or name in _IGNORED:
            plain[name] = value
        else:
            raise ValueError("an unknown metric")
    plain.setdefault("rps_fractional", plain.pop("rps", 0.0))  # its former, whole form
    plain.pop("rps", None)
    return LoadReport(
        **{name: plain.get(name, 0.0) for name in FIELDS},
        utilization=groups["utilization"],
        named_metrics=groups["named_metrics"],
    )


# Writing -----------------------------------------------------------------


def format_text(report: LoadReport) -> str:
    """The header's value. What is 0 is left out, but for what has a name of its own."""
    return "TEXT " + ",".join(f"{name}={value:.6g}" for name, value in _said(report))


def format_json(report: LoadReport) -> str:
    """The header's value, in ASCII."""
    found: dict[str, Any] = {}
    for name, value in _said(report):
        group, dot, key = name.partition(".")
        if dot:
            found.setdefault(group, {})[key] = float(f"{value:.6g}")
        else:
            found[name] = float(f"{value:.6g}")
    return "JSON " + json.dumps(found, separators=(",", ":"))


def format_binary(report: LoadReport) -> str:
    """The header's value."""
    return "BIN " + b64encode(write_message(_said(report))).decode("ascii")


FORMATS: dict[str, Callable[[LoadReport], str]] = {"text": format_text, "json": format_json, "bin": format_binary}


def _said(report: LoadReport) -> list[tuple[str, float]]:
    plain = [(name, getattr(report, name)) for name in FIELDS if getattr(report, name)]
    return plain + [(f"{group}.{key}", value) for group in MAPS for key, value in getattr(report, group).items()]
