"""The whole of a check: boots, controls, experiments, and what is to be said of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from ..clock import Clock
from ..errors import CheckError, ScriptError
from . import findings, schedules, script, walk
from .boots import BootValues
from .confirming import Confirming
from .findings import Finding, Verdict
from .fleet import Fleet
from .oracle import Difference, compare, shown
from .responses import Response
from .runs import Ran, Runner, responses
from .schedules import Schedule, Turn
from .step import Step
from .wire import Hello


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to check, and how."""

    app: str  # "module:attribute"
    script: str  # a file, or "openapi"
    replicas: int = 3
    isolation: str = "auto"
    shared: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()  # patterns of variables
    ignore: tuple[str, ...] = ()  # patterns of leaves, such as "header x-replica"
    reset: str = ""
    timeout: float = 10.0  # seconds for one request
    keep_store: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """The result."""

    plan: Plan
    kind: str  # asgi or wsgi
    requests: int
    schedules: tuple[str, ...]
    isolation: str
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    seconds: float
    uncovered: int = 0  # requests of the script that are inconclusive

    def of(self, verdict: Verdict) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict is verdict)


@dataclass(slots=True)
class _Check:
    """One check under way."""

    plan: Plan
    fleet: Fleet
    steps: tuple[Step, ...]
    runner: Runner
    told: Callable[[str], None]
    notes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    proven: set[str] = field(default_factory=set)  # titles of requests

    def findings(self) -> list[Finding]:
        every = range(len(self.steps))
        boots = self.plan.replicas
        boot_values = self._boot_values()
        control = self._run("control", schedules.control(every, 0), watched=True)
        self._alive(control)
        failing = findings.uncovered(control, self.steps)
        again = self._run("control on another boot", schedules.control(every, 1))
        name, make = ("amnesia", schedules.amnesia) if self.fleet.forks else ("rotate", schedules.rotate)
        found = self._experiment(name, make(every, boots), control, again, boot_values)
        longer = schedules.expanded(self.steps, boots)
        control = self._run("control, reads repeated", schedules.control(longer, 0), watched=True)
        again = self._run("the same on another boot", schedules.control(longer, 1))
        found += self._experiment("broadcast", schedules.broadcast(longer, boots), control, again, boot_values)
        found = _each_request_once(failing + found)
        found += findings.suspected(control, self.steps, found, self.plan.allow)
        found += findings.files(control, self.steps, found)
        return found

    def _experiment(
        self,
        name: str,
        schedule: Schedule,
        control: Sequence[Ran],
        again: Sequence[Ran],
        boot_values: BootValues,
    ) -> list[Finding]:
        self.names.append(name)
        controls = responses(control), responses(again)
        run = self._run(name, schedule)
        comparison = compare(*controls, responses(run))
        asked = [one for one in comparison.differences if self._is_news(schedule[one.turn], one)]
        comparison = replace(comparison, differences=tuple(asked))
        if asked:
            confirming = Confirming(name, self.runner, self.told, schedule, *controls, comparison)
            comparison = confirming.confirmed(run, self.notes.append)
        found = findings.proven(name, comparison, self.steps, control, boot_values)
        self.proven.update(finding.title for finding in found)
        found = self._ablated(findings.without(found, self.plan.allow), schedule, controls)
        found = self._among_forks(found, schedule, controls)
        found = [replace(finding, advice=findings.remedy(finding.suspects)) for finding in found]
        return found + findings.inconclusive(name, comparison, self.steps, control)

    def _ablated(
        self, found: list[Finding], schedule: Schedule, controls: tuple[list[Response], list[Response]]
    ) -> list[Finding]:
        """Is it that variable? One replica, where it is put back before each request, answers as the other one did."""
        count = max((finding.request for finding in found), default=0)
        first, second = controls[0][:count], controls[1][:count]
        for name in findings.to_ablate(found):
            if not findings.is_doubtful(found, name):
                continue
            self.told(f"{name} put back")
            run = self.runner.run(schedules.control([turn.step for turn in schedule[:count]], 0), put_back=name)
            if run:
                found = findings.confirmed(found, name, compare(first, second, responses(run)))
        return found

    def _among_forks(
        self, found: list[Finding], schedule: Schedule, controls: tuple[list[Response], list[Response]]
    ) -> list[Finding]:
        """Is it what each process makes at its start? Forks of one process have that in common."""
        count = max((finding.request for finding in found if findings.may_be_of_boots(finding)), default=0)
        if not count or not self.fleet.forks:
            return found
        self.told("forks of one process")
        run = self.runner.run(schedules.of_one_boot(schedule[:count]))
        comparison = compare(controls[0][:count], controls[1][:count], responses(run))
        return findings.told_from_boots(found, comparison)

    def _is_news(self, turn: Turn, difference: Difference) -> bool:
        """Not of a request that is proven already, and not to be ignored: to confirm it takes ten runs."""
        known = self.steps[turn.step].title in self.proven
        return not known and not any(fnmatchcase(shown(difference.path), pattern) for pattern in self.plan.ignore)

    def _run(self, name: str, schedule: Schedule, *, watched: bool = False) -> tuple[Ran, ...]:
        self.told(name)
        return self.runner.run(schedule, watched=watched)

    def _alive(self, control: Sequence[Ran]) -> None:
        """An app that answers nothing, or that the script does not fit, proves nothing."""
        failures = [ran for ran in control if ran.response.failure]
        if unmade := [ran for ran in failures if ran.response.failure.startswith("the script")]:
            raise ScriptError(unmade[0].trace)
        if len(failures) == len(control):
            ran = failures[0]
            raise CheckError(f"{self.steps[0].title}: {ran.response.failure}\n{ran.trace}".rstrip())
        missing = [self.steps[ran.turn.step].title for ran in control if ran.response.status in (404, 405)]
        if len(missing) == len(control):
            raise CheckError(
                f"the app knows none of the script's requests: {missing[0]} is {control[0].response.status}"
            )
        for ran in failures:
            self.notes.append(f"{self.steps[ran.turn.step].title}: {ran.response.failure}, in the control, too")
        broken = [self.steps[ran.turn.step].title for ran in control if ran.response.status >= 500]
        if broken:
            self.notes.append(f"5xx in the control, too: {', '.join(dict.fromkeys(broken))}")
        if missing:
            self.notes.append(f"404 or 405 in the control, too: {', '.join(dict.fromkeys(missing))}")

    def _boot_values(self) -> BootValues:
        held = self.fleet.held(0)
        names = walk.differences(held, self.fleet.held(1))
        return BootValues(tuple(filter(_is_the_apps, names)), held, self.fleet.fingerprint)


def check(
    plan: Plan, clock: Clock, *, told: Callable[[str], None] = lambda _: None, asked: Callable[[], None] = lambda: None
) -> Checked:
    """Do it. `told` is called with the name of each run, `asked` after each request. Raises CheckError."""
    started = clock.monotonic()
    # What is wrong with a script is told before anything starts. It is run once: a module may not stand a second time.
    steps = () if plan.script == "openapi" else script.load(plan.script)
    told("boot")
    with Fleet(
        plan.app, boots=plan.replicas, isolation=plan.isolation, shared=plan.shared, packages=plan.packages,
        timeout=plan.timeout, keep_store=plan.keep_store,
    ) as fleet:  # fmt: skip
        document = fleet.boots[0].hello.document
        steps = steps or script.load(plan.script, (lambda: json.loads(document)) if document else None)
        found = examine(fleet, plan, steps, clock, told=told, asked=asked)
    return replace(found, seconds=clock.monotonic() - started)


def examine(
    fleet: Fleet,
    plan: Plan,
    steps: Sequence[Step],
    clock: Clock,
    *,
    told: Callable[[str], None] = lambda _: None,
    asked: Callable[[], None] = lambda: None,
) -> Checked:
    """The same for steps that are known, over a fleet that is there. Raises CheckError."""
    started = clock.monotonic()
    boot = fleet.boots[0].hello
    under_way = _Check(plan, fleet, tuple(steps), Runner(fleet, steps, plan.reset, asked, clock), told)
    if not fleet.forks:
        under_way.notes.append(_why_no_forks(boot))
    if boot.isolation != "ns" and plan.isolation == "auto":
        text = "files are swapped, and what child processes write is not seen"
        under_way.notes.append(f"no mount namespaces here: {text}")
    found = under_way.findings()
    unsure = {finding.title for finding in found if finding.verdict is Verdict.INCONCLUSIVE}
    return Checked(
        plan, boot.kind, len(steps), tuple(under_way.names), boot.isolation, tuple(under_way.notes), tuple(found),
        clock.monotonic() - started, sum(step.title in unsure for step in steps),
    )  # fmt: skip


def _why_no_forks(boot: Hello) -> str:
    """For a person."""
    found = [f"started threads ({', '.join(boot.threads[:3])}), which a fork would lose"] if boot.threads else []
    found += [f"opened files ({', '.join(boot.files[:3])}), which forks would share"] if boot.files else []
    text = f"importing the app {' and '.join(found)}" if found else "this system has no fork"
    return f"{text}: each replica is an interpreter of its own, and amnesia becomes rotate"


def _each_request_once(found: Sequence[Finding]) -> list[Finding]:
    """What both schedules prove of one request is one finding."""
    kept: dict[tuple[Verdict, str], Finding] = {}
    for finding in found:
        kept.setdefault((finding.verdict, finding.title), finding)
    return list(kept.values())


def _is_the_apps(name: str) -> bool:
    """Not a framework's own: pydantic names its schemas by addresses."""
    own = not name.startswith(("os.environ", "the app object")) and "core_schema" not in name
    return own or "SECRET_KEY" in name
