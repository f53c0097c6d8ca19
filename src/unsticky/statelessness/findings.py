"""What a check finds, and how sure it is. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from itertools import chain

from .advice import UNSEEN, advice
from .boots import BootValues
from .oracle import Comparison, Difference, shown
from .runs import Ran
from .step import Step
from .walk import OF_FILE
from .wire import Changed

_TRIED = 3  # suspects of a finding
_MOST_ABLATED = 6  # suspects of a schedule
_OF_REQUESTS = 5  # suspects of a finding that requests changed
_OF_BOOTS = 2  # and that no request changed


class Verdict(Enum):
    """From certain to harmless. PROVEN fails a check; SUSPECT does with --strict."""

    PROVEN = "PROVEN"  # a response changed, and only the routing had
    SUSPECT = "SUSPECT"  # the process changed again and again; no response showed it
    INCONCLUSIVE = "INCONCLUSIVE"  # the controls disagree with each other, or were not answered
    INFO = "INFO"  # worth knowing


@dataclass(frozen=True, slots=True)
class Suspect:
    """A variable, or a file, that would explain a finding."""

    name: str
    place: str = ""
    why: str = ""
    changed: bool = True  # by a request; False: two processes do not begin with the same
    confirmed: bool = False  # one replica that has it put back before each request answers as the other one did
    tried: bool = False  # it was put back: if it is not confirmed, this explained nothing
    library: str = ""  # whose object holds it, of those that have a shared mode


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know."""

    verdict: Verdict
    title: str  # the request, or the variable
    schedule: str = ""
    request: int = 0  # which of the run's requests, from 1
    leaf: str = ""
    expected: str = ""
    found: str = ""
    more: int = 0  # further leaves that differ
    suspects: tuple[Suspect, ...] = ()
    advice: str = ""


def proven(
    schedule: str,
    comparison: Comparison,
    script: Sequence[Step],
    control: Sequence[Ran],
    boot_values: BootValues,
) -> list[Finding]:
    """One finding per request of the script that the routing changed: its first difference, and how many others."""
    by_step: dict[int, list[Difference]] = {}
    for difference in comparison.differences:
        by_step.setdefault(control[difference.turn].turn.step, []).append(difference)
    found = []
    for step, differences in by_step.items():
        first = differences[0]
        suspects = _suspects(control, first, boot_values)
        found.append(
            Finding(
                Verdict.PROVEN, script[step].title, schedule, first.turn + 1, shown(first.path),
                _short(first.expected), _short(first.found), len(differences) - 1, suspects, remedy(suspects),
            )
        )  # fmt: skip
    return found


def remedy(suspects: Sequence[Suspect]) -> str:
    """For the first of them; if all that a request changed was put back in vain, it may be none of them."""
    told = advice(suspects, of_boot=bool(suspects) and not suspects[0].changed)
    in_vain = bool(suspects) and all(one.tried and not one.confirmed for one in suspects)
    return f"{told}; if that is not it, look for {UNSEEN}" if in_vain else told


def to_ablate(found: Iterable[Finding]) -> list[str]:
    """The variables and files that are worth a run of their own, those that would explain the most first."""
    changed = [[one.name for one in finding.suspects if _can_be_tried(one)][:_TRIED] for finding in found]
    return [name for name, _ in Counter(chain.from_iterable(changed)).most_common(_MOST_ABLATED)]


def confirmed(found: Iterable[Finding], name: str, ablated: Comparison) -> list[Finding]:
    """With those findings confirmed whose difference is there, too, when one replica has `name` put back each time.

    Any other change proves nothing: to put something back may break it. Then `name` was tried in vain.
    """
    same = {(one.turn + 1, shown(one.path), _short(one.found)) for one in ablated.differences}
    return [
        _with_tried(finding, name, confirmed=(finding.request, finding.leaf, finding.found) in same)
        for finding in found
    ]


def _can_be_tried(suspect: Suspect) -> bool:
    """What a connection wrote is in its file."""
    return suspect.changed and not suspect.name.endswith(OF_FILE)


def is_doubtful(found: Iterable[Finding], name: str) -> bool:
    """Whether there is a finding with that suspect of which none is confirmed yet."""
    by_name = [[one.confirmed for one in finding.suspects] for finding in found if _names(finding, name)]
    return not all(any(sure) for sure in by_name)


def _names(finding: Finding, name: str) -> bool:
    return any(one.name == name for one in finding.suspects)


def _with_tried(finding: Finding, name: str, *, confirmed: bool) -> Finding:
    suspects = [replace(one, confirmed=confirmed, tried=True) if one.name == name else one for one in finding.suspects]
    return replace(finding, suspects=tuple(sorted(suspects, key=lambda one: not one.confirmed)))


def may_be_of_boots(finding: Finding) -> bool:
    """Whether it is not known to be something else."""
    return any(not one.changed for one in finding.suspects) and not any(one.confirmed for one in finding.suspects)


def told_from_boots(found: Iterable[Finding], among_forks: Comparison) -> list[Finding]:
    """What each process makes stands first, or is left out: forks of one process differ only in what came later."""
    places = {(one.turn + 1, shown(one.path)) for one in among_forks.differences}
    return [
        _of_boots_or_not(one, differs=(one.request, one.leaf) in places) if may_be_of_boots(one) else one
        for one in found
    ]


def _of_boots_or_not(finding: Finding, *, differs: bool) -> Finding:
    if differs:
        return replace(finding, suspects=tuple(one for one in finding.suspects if one.changed))
    told = (one if one.changed else replace(one, why=f"{one.why}; forks of one agree") for one in finding.suspects)
    return replace(finding, suspects=tuple(sorted(told, key=lambda one: one.changed)))


def inconclusive(
    schedule: str, comparison: Comparison, script: Sequence[Step], control: Sequence[Ran]
) -> list[Finding]:
    """Requests whose status is not the same when nothing changed at all."""
    titles = dict.fromkeys(script[control[turn].turn.step].title for turn in comparison.unstable)
    text = "the controls got different statuses from the same requests; nothing can be said of it"
    return [Finding(Verdict.INCONCLUSIVE, title, schedule, found=text) for title in titles]


def uncovered(control: Sequence[Ran], script: Sequence[Step]) -> list[Finding]:
    """Requests that one replica, asked on its own, does not answer, or with a 5xx: no other can be told from it."""
    why: dict[str, str] = {}
    for ran in control:
        if ran.response.failure or ran.response.status >= 500:
            why.setdefault(script[ran.turn.step].title, ran.response.failure or f"it is {ran.response.status}")
    return [
        Finding(Verdict.INCONCLUSIVE, title, "control", found=f"{text} in the control already; not covered")
        for title, text in why.items()
    ]


def suspected(
    control: Sequence[Ran], script: Sequence[Step], explained: Iterable[Finding], allowed: Sequence[str]
) -> list[Finding]:
    """Variables that changed after the warm-up, without a response that told. `control` repeats each read."""
    known = {suspect.name for finding in explained for suspect in finding.suspects}
    times: Counter[str] = Counter()
    held: dict[str, Changed] = {}
    requests: dict[str, dict[str, None]] = {}
    warmed: set[int] = set()
    for ran in control:
        step = script[ran.turn.step]
        warm = ran.turn.step in warmed or step.method not in ("GET", "HEAD", "OPTIONS")
        warmed.add(ran.turn.step)
        for changed in ran.changed:
            times[changed.variable] += warm
            held[changed.variable] = changed
            requests.setdefault(changed.variable, {})[step.title] = None
    found = []
    for variable, changed in held.items():
        if variable in known or any(fnmatchcase(variable, pattern) for pattern in allowed):
            continue
        verdict = Verdict.SUSPECT if times[variable] >= 2 and not harmless(variable) else Verdict.INFO
        why = f"changed by {', '.join(list(requests[variable])[:3])}"
        suspect = Suspect(variable, changed.place, why, library=changed.library)
        found.append(Finding(verdict, variable, suspects=(suspect,), advice=advice((suspect,))))
    return found


def files(control: Sequence[Ran], script: Sequence[Step], explained: Iterable[Finding]) -> list[Finding]:
    """Local files that requests wrote. Who never reads them back shows nothing; another replica does not have them."""
    known = {suspect.name for finding in explained for suspect in finding.suspects}
    written: dict[str, dict[str, None]] = {}
    for ran in control:
        for path in ran.files:
            written.setdefault(path, {})[script[ran.turn.step].title] = None
    found = []
    for path, titles in written.items():
        if path not in known:
            suspect = Suspect(path, why=f"written by {', '.join(list(titles)[:3])}")
            verdict = Verdict.INFO if path.endswith(".log") else Verdict.SUSPECT
            found.append(Finding(verdict, path, suspects=(suspect,), advice=advice((suspect,))))
    return found


def without(findings: Iterable[Finding], allowed: Sequence[str]) -> list[Finding]:
    """Without suspects that may change; a proof stays a proof."""
    return [
        replace(
            finding,
            suspects=tuple(one for one in finding.suspects if not any(fnmatchcase(one.name, p) for p in allowed)),
        )
        for finding in findings
    ]


_LAZY = re.compile(r"\.(error_handler_spec|jinja_env\.cache|logger)\b")  # Flask fills these when it looks into them


def harmless(variable: str) -> bool:
    """Memoization that a framework or functools does: the same answer, sooner."""
    return variable.endswith((".cache_info()", ".getstate()", OF_FILE)) or bool(_LAZY.search(variable))


def _suspects(control: Sequence[Ran], difference: Difference, boot_values: BootValues) -> tuple[Suspect, ...]:
    """What each process made for itself and the response shows; what requests changed, the latest first; the rest."""
    shown_ones = [*boot_values.shown_in(control[difference.turn].response)]
    first = [_of_boots(name) for name in shown_ones]
    last = [_of_boots(name) for name in boot_values.names if name not in shown_ones]
    changed = _changed(control, difference.turn)
    return (*first[:_OF_BOOTS], *changed[:_OF_REQUESTS], *last[: _OF_BOOTS if changed or first else _OF_REQUESTS])


def _of_boots(name: str) -> Suspect:
    return Suspect(name, why="differs between two fresh processes", changed=False)


def _changed(control: Sequence[Ran], turn: int) -> list[Suspect]:
    """By the control's requests up to that one."""
    found: dict[str, Suspect] = {}
    for number in range(turn, -1, -1):
        ran, told = control[number], f"by request {number + 1}"
        for changed in ran.changed:
            suspect = Suspect(changed.variable, changed.place, f"changed {told}", library=changed.library)
            found.setdefault(changed.variable, suspect)
        for path in ran.files:
            found.setdefault(path, Suspect(path, why=f"a local file, written {told}"))
    return [suspect for suspect in found.values() if not harmless(suspect.name)] or [*found.values()]


def _short(text: str) -> str:
    if not text:
        return "(empty)"
    return text if len(text) <= 80 else f"{text[:77]}..."
