"""What a check found, for people and for machines. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .check import Checked
from .findings import Finding, Verdict

_ISOLATION = {
    "ns": "each replica had a disk of its own (mount namespaces)",
    "swap": "files were swapped between replicas, as far as the interpreter opened them",
    "none": "replicas shared the disk (--isolate none): local files were not looked at",
}


def lines(checked: Checked, *, everything: bool = False) -> Iterator[str]:
    """The report. `everything`: with what is only worth knowing, too."""
    for number, finding in enumerate(checked.of(Verdict.PROVEN), 1):
        yield from proof(number, finding)
    for verdict in (Verdict.SUSPECT, Verdict.INCONCLUSIVE, *((Verdict.INFO,) if everything else ())):
        for finding in checked.of(verdict):
            yield from _other(finding, proven=bool(checked.of(Verdict.PROVEN)))
    for note in checked.notes:
        yield f"note: {note}"
    size = f"{_counted(checked.requests, 'request')}, {_of_schedules(checked)}, {checked.seconds:.1f} s"
    yield f"{checked.kind.upper()} app {checked.plan.app}: {size}; {_ISOLATION[checked.isolation]}."
    yield _verdict(checked)


def document(checked: Checked) -> dict[str, Any]:
    """The same for machines; the report's form is `version`."""
    return {
        "version": 1,
        "app": checked.plan.app,
        "kind": checked.kind,
        "script": checked.plan.script,
        "requests": checked.requests,
        "replicas": checked.plan.replicas,
        "schedules": list(checked.schedules),
        "isolation": checked.isolation,
        "seconds": round(checked.seconds, 3),
        "notes": list(checked.notes),
        "proven": len(checked.of(Verdict.PROVEN)),
        "suspect": len(checked.of(Verdict.SUSPECT)),
        "inconclusive": len(checked.of(Verdict.INCONCLUSIVE)),
        "uncovered": checked.uncovered,
        "findings": [{**asdict(finding), "verdict": finding.verdict.value} for finding in checked.findings],
    }


def without_result(app: str, error: str) -> dict[str, Any]:
    """For machines, when the check could not be done."""
    return {"version": 1, "app": app, "error": error}


def proof(number: int, finding: Finding) -> Iterator[str]:
    """One finding that is proven."""
    yield f"PROVEN {number}: {finding.title} depends on which replica answers"
    yield f"  {finding.leaf}: {finding.expected} from one replica, {finding.found} when the replica changed"
    more = f", and {finding.more} more difference{'s'[: finding.more != 1]}" if finding.more else ""
    yield f"  request {finding.request} of the schedule {finding.schedule}{more}"
    for place, suspect in enumerate(finding.suspects[:3]):
        where = f" ({suspect.place})" if suspect.place else ""
        sure = f"; {'' if suspect.confirmed else 'not '}confirmed by putting it back" if suspect.tried else ""
        yield f"  {'suspect' if place == 0 else '     or'}: {suspect.name}{where}, {suspect.why}{sure}"
    if finding.advice:
        yield f"  remedy:  {finding.advice}"
    yield ""


def _other(finding: Finding, *, proven: bool) -> Iterator[str]:
    yield f"{finding.verdict.value}: {finding.title}"
    if finding.found:
        yield f"  {finding.found}"
    for suspect in finding.suspects:
        yield f"  {suspect.why}{f'; first bound at {suspect.place}' if suspect.place else ''}"
    if finding.verdict is Verdict.SUSPECT and finding.advice:
        unseen = "no proof above needs it" if proven else "no response of the script showed it"
        yield f"  {unseen}. If a response could show it: {finding.advice}"
    yield ""


def _verdict(checked: Checked) -> str:
    proven, suspect = len(checked.of(Verdict.PROVEN)), len(checked.of(Verdict.SUSPECT))
    missed = f"{checked.uncovered:,} of {_counted(checked.requests, 'request')} not covered"
    if proven:
        also = f" {missed}." if checked.uncovered else ""
        return f"NOT STATELESS: {_counted(proven, 'request')} proven to depend on the replica.{also}"
    suspects = f" {_counted(suspect, 'suspect')} to look at (--strict fails on them)." if suspect else ""
    if checked.uncovered:
        rest = _counted(checked.requests - checked.uncovered, "request")
        return f"INCONCLUSIVE: {missed}. No counter-example in {rest} x {_of_schedules(checked)}.{suspects}"
    return f"No counter-example in {_counted(checked.requests, 'request')} x {_of_schedules(checked)}.{suspects}"


def _of_schedules(checked: Checked) -> str:
    count = len(checked.schedules)
    return f"{_counted(count, 'schedule')} ({', '.join(checked.schedules)})"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s'[: number != 1]}"
