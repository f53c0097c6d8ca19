"""Log lines of pools, at `unsticky.routing`: with fields for formatters, and not more than a few a minute."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

from .otel import span_ids

log = logging.getLogger("unsticky.routing")
MOST = 10  # lines a minute that say the same of one pool and endpoint
_MINUTE = 60.0
_KEPT = 1000  # of which pools and endpoints something is remembered

Value = str | int | float | bool

_TEXTS = {
    "ejection": "{endpoint} is ejected for {seconds:.1f} s ({cause}, failures: {failures})",
    "recovery": "{endpoint} is back from its ejection",
    "health": "the checks call {endpoint} {verdict}",
    "failover": "calls go to priority {to_priority} now, before to {from_priority}",
    "load_shift": "the priorities get {loads} of the calls",
    "overflow": "a call found no place, limits.{limit} is reached",
    "faults_injected": "attempts fail on purpose ({abort_percent:g} %) or wait ({delay_percent:g} %), as `faults` says",
    "report_ignored": "the load reports of {endpoint} are ignored: {reason}",
    "call_failed": "a {method} failed, attempts: {attempts}; {why}",
    "fallback": "a {method} failed, and {fallback} stepped in; attempts: {attempts}; {why}",
}
_WARNINGS = frozenset({"ejection", "overflow", "report_ignored", "faults_injected", "call_failed", "fallback"})


class RateLimit:
    """At most `most` times a minute for each key. Pure: time is given, and locks are its owner's."""

    def __init__(self, most: int = MOST, kept: int = _KEPT) -> None:
        self._most = most
        self._kept = kept
        self._seen: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()  # when the minute began, how many

    def left_out(self, key: tuple[str, ...], now: float) -> int | None:
        """None: not now. Else how many were not allowed since the last one that was."""
        began, count = self._seen.pop(key, (now, 0))
        suppressed = max(0, count - self._most)
        if now - began >= _MINUTE:
            began, count = now, 0
        else:
            suppressed = 0
        self._seen[key] = began, count + 1
        if len(self._seen) > self._kept:
            self._seen.popitem(last=False)
        return suppressed if count < self._most else None


_limit = RateLimit()
_lock = Lock()


def pool_line(pool: str, event: str, details: Mapping[str, Value], now: float) -> None:
    """One line about `event`, if it is worth one. `now`: monotonic seconds."""
    level = _level(event, details)
    if level is None or not log.isEnabledFor(level):
        return
    with _lock:
        left_out = _limit.left_out((event, pool, str(details.get("endpoint", ""))), now)
    if left_out is None:
        return
    text = f"pool {pool!r}: {_text(event, details)}"
    if left_out:
        text += f" ({left_out} more like this were left out)"
    log.log(level, "%s", text, extra=_fields(pool, event, details, left_out))


def _level(event: str, details: Mapping[str, Value]) -> int | None:
    if event == "panic":
        return logging.WARNING if details["panic"] else logging.INFO
    if event == "failover":
        return logging.WARNING if details["to_priority"] > details["from_priority"] else logging.INFO  # type: ignore[operator]
    if event in _WARNINGS:
        return logging.WARNING
    return logging.INFO if event in _TEXTS else None


def _text(event: str, details: Mapping[str, Value]) -> str:
    if event == "panic":
        return "too few endpoints are fit, unfit ones are used too" if details["panic"] else "enough endpoints are fit"
    verdict = "healthy" if details.get("healthy") else "unhealthy"
    return _TEXTS[event].format(verdict=verdict, **details)


def _fields(pool: str, event: str, details: Mapping[str, Value], left_out: int) -> dict[str, Value]:
    """For JSON formatters: ours begin with `unsticky_`, and the current span's ids are there if there is one."""
    fields: dict[str, Value] = {"unsticky_event": event, "unsticky_pool": pool, "unsticky_suppressed": left_out}
    fields.update({f"unsticky_{name}": value for name, value in details.items()})
    trace_id, span_id = span_ids()
    if trace_id is not None and span_id is not None:
        fields |= {"trace_id": trace_id, "span_id": span_id}
    return fields
