"""Who may be picked: a chain of functions from states to states, and their composition, `ranking`.

Only endpoints that are healthy, not ejected and not draining are *fit*. A call's first attempt goes to one of them: the
priority levels share the calls by their health (priority.py), near endpoints come first (locality.py), and of many
each process uses a few (subset.py). What happens when there are none, or a call tried them all:

- Ejected endpoints come next. An ejection is our own guess and up to minutes old, so it must never cause an outage
  that the endpoints themselves don't have. It also outlives a quick restart: while A is back but still ejected and B
  goes down, a retry reaches A instead of knocking at B again.
- Endpoints that the active health checks call unhealthy come last, and only when the pool has no other at all. Their
  verdict is seconds old and asked for by the operator, but a checker that is wrong (a path that moved, a
  firewall) must not take the application down.
- Endpoints that drain get no calls whatever happens.

That is how it is while `panic_threshold` is unset. With a threshold it is Envoy's panic: a level of which fewer
endpoints are available spreads first attempts over all that it has. With 0 nothing unfit is ever used: calls fail fast.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

from .endpoint import EndpointState
from .locality import by_locality
from .options import HASHING, PoolOptions
from .priority import Level, Loads, loads, loads_in_panic, panicking
from .subset import subset

Group = tuple[EndpointState, ...]  # endpoints of one priority, equally good


@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """A group that calls are sent to, and why. `share`: percent of first attempts; 0: only retries come here."""

    states: Group
    priority: int
    kind: str  # "healthy", "degraded", "panic", "ejected" or "unhealthy"
    locality: str | None = None  # None: its endpoints are of any
    share: float = 0.0

    @property
    def slot(self) -> tuple[object, ...]:
        """What stays the same while members come and go."""
        return self.priority, self.kind, self.locality


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What of a pool's options decides who is eligible."""

    factor: int = 140  # overprovisioning, in percent
    panic_threshold: int | None = None  # percent
    locality: str | None = None  # our own
    subset_size: int | None = None

    @classmethod
    def of(cls, options: PoolOptions, locality: str | None) -> Rules:
        """`locality`: where this process stands, unless the options say otherwise."""
        return cls(
            factor=round(options.overprovisioning * 100),
            panic_threshold=options.panic_threshold,
            # A key's home is the same for all callers, wherever they stand.
            locality=None if options.balancer in HASHING else options.locality or locality,
            subset_size=options.subset_size,
        )


@dataclass(frozen=True, slots=True)
class Ranking:
    """Who gets calls now. `first`: where first attempts go. `order`: for retries, best first. No tier is empty."""

    first: tuple[Tier, ...] = ()
    order: tuple[Tier, ...] = ()
    sums: tuple[float, ...] = ()  # running shares of `first`
    fit: frozenset[EndpointState] = frozenset()  # those that lack nothing
    fit_tiers: tuple[Tier, ...] = ()  # the first of `order`: theirs, as far as this process uses them
    panic: bool = False  # unfit ones get first attempts

    def loads(self) -> tuple[tuple[int, int], ...]:
        """The levels that first attempts go to, and the percent of each."""
        shares: dict[int, float] = {}
        for tier in self.first:
            shares[tier.priority] = shares.get(tier.priority, 0.0) + tier.share
        return tuple((priority, round(share)) for priority, share in sorted(shares.items()))


DEFAULT = Rules()


def healthy(states: Iterable[EndpointState]) -> Group:
    """Those that no active check calls unhealthy."""
    return tuple(state for state in states if state.healthy is not False)


def not_ejected(states: Iterable[EndpointState]) -> Group:
    """Those that are not ejected."""
    return tuple(state for state in states if state.ejected_until is None)


def ejected(states: Iterable[EndpointState]) -> Group:
    """Those that are."""
    return tuple(state for state in states if state.ejected_until is not None)


def not_draining(states: Iterable[EndpointState]) -> Group:
    """Those that may get new calls."""
    return tuple(state for state in states if not state.draining)


def by_priority(states: Iterable[EndpointState]) -> tuple[Group, ...]:
    """One group per level, the best level first; within a level the order stays."""
    ordered = sorted(states, key=_priority)
    return tuple(tuple(level) for _, level in groupby(ordered, key=_priority))


def untried(states: Iterable[EndpointState], tried: Collection[EndpointState]) -> Group:
    """Those that a call did not use yet."""
    return tuple(state for state in states if state not in tried)


def choice(tiers: tuple[Tier, ...], tried: Sequence[EndpointState]) -> tuple[Tier, Collection[EndpointState]]:
    """The best of `tiers` with an endpoint that a call should use next, and whom not to take from it.

    `tried` is what the call used, in its order. Untried endpoints come first, level by level: failover within a call.
    Then those that were used least, and the last one is not used twice in a row if there is another.
    """
    if not tried:
        return tiers[0], ()
    if tier := _with_others(tiers, tried):
        return tier, tried
    for excluded in (_used_most(tiers, tried), tried[-1:]):  # only now: it looks at all
        if tier := _with_others(tiers, excluded):
            return tier, excluded
    return tiers[0], ()


def _with_others(tiers: tuple[Tier, ...], excluded: Sequence[EndpointState]) -> Tier | None:
    """The first with an endpoint that is not excluded."""
    for tier in tiers:
        if any(state not in excluded for state in tier.states):
            return tier
    return None


def _used_most(tiers: tuple[Tier, ...], tried: Sequence[EndpointState]) -> Sequence[EndpointState]:
    """All that were used more often than the least used one, and the last."""
    times = {state: tried.count(state) for tier in tiers for state in tier.states}
    least = min(times.values())
    return [*(state for state, count in times.items() if count > least), tried[-1]]


def _priority(state: EndpointState) -> int:
    return state.endpoint.priority


def ranking(states: Iterable[EndpointState], rules: Rules = DEFAULT) -> Ranking:
    """All that may be used now, see the module's docstring. Empty when nothing may."""
    return rank_levels(by_priority(states), rules)


def rank_levels(groups: Sequence[Group], rules: Rules = DEFAULT) -> Ranking:
    """The same, of the priority levels, best first."""
    levels = tuple(map(_Members.of, groups))
    counts = [Level(len(level.healthy), len(level.degraded), len(level.all)) for level in levels]
    fit = _fit_tiers(levels, loads(counts, rules.factor), rules)
    first = tuple(tier for tier in fit if tier.share > 0)
    panic = panicking(counts, rules.panic_threshold, rules.factor) if rules.panic_threshold else (False,) * len(levels)
    if any(panic):
        first = _in_panic(levels, counts, panic, first, rules.subset_size)
    order = fit if rules.panic_threshold == 0 else _with_unfit(fit, levels, panic=any(panic))
    first = first or tuple(replace(tier, share=100.0) for tier in order[:1])
    return Ranking(
        first,
        order,
        tuple(accumulate(tier.share for tier in first)),
        frozenset(state for level in levels for state in (*level.healthy, *level.degraded)),
        fit,
        any(panic) or (not fit and bool(order)),
    )


def renewed(ranking: Ranking) -> Ranking:
    """The same with new tuples: what pickers keep for a group, such as sums of weights, holds no longer."""
    fresh = {tier: replace(tier, states=(*tier.states,)) for tier in (*ranking.first, *ranking.order)}
    return replace(
        ranking,
        first=tuple(fresh[tier] for tier in ranking.first),
        order=tuple(fresh[tier] for tier in ranking.order),
        fit_tiers=tuple(fresh[tier] for tier in ranking.fit_tiers),
    )


@dataclass(frozen=True, slots=True)
class _Members:
    """One priority level, sorted out."""

    all: Group
    open: Group  # not draining
    healthy: Group
    degraded: Group

    @classmethod
    def of(cls, level: Group) -> _Members:
        open_ = not_draining(level)
        fit = not_ejected(healthy(open_))
        return cls(
            level,
            open_,
            tuple(state for state in fit if not state.degraded),
            tuple(state for state in fit if state.degraded),
        )


def _fit_tiers(levels: Sequence[_Members], shares: Loads, rules: Rules) -> tuple[Tier, ...]:
    """Healthy ones of all levels, then degraded ones, each cut by locality and down to the subset."""
    tiers = []
    for kind, of_kind in (("healthy", shares.healthy), ("degraded", shares.degraded)):
        for level, load in zip(levels, of_kind, strict=True):
            members = level.healthy if kind == "healthy" else level.degraded
            for zone, found, part in by_locality(members, level.all, rules.locality):
                states = subset(found, rules.subset_size)
                tiers.append(Tier(states, _priority(states[0]), kind, zone, load * part))
    return tuple(tiers)


def _in_panic(
    levels: Sequence[_Members],
    counts: Sequence[Level],
    panic: Sequence[bool],
    first: tuple[Tier, ...],
    size: int | None,
) -> tuple[Tier, ...]:
    """First attempts while some levels use all they have."""
    total = all(panic)
    anew = loads_in_panic(counts)
    tiers = []
    for index, level in enumerate(levels):
        own = [tier for tier in first if tier.priority == _priority(level.all[0])]
        if not panic[index]:
            tiers += own
            continue
        share = anew[index] if total else sum(tier.share for tier in own)
        if level.open and share:
            states = subset(level.open, size)  # whatever is known of them
            tiers.append(Tier(states, _priority(level.all[0]), "panic", None, share))
    return tuple(tiers)


def _with_unfit(fit: tuple[Tier, ...], levels: Sequence[_Members], *, panic: bool) -> tuple[Tier, ...]:
    """Then ejected ones by priority; unhealthy ones in panic, or when there is nothing else."""
    tiers = fit + _tiers("ejected", (ejected(healthy(level.open)) for level in levels))
    if not tiers or panic:
        tiers += _tiers("unhealthy", (untried(level.open, healthy(level.open)) for level in levels))
    return tiers


def _tiers(kind: str, groups: Iterable[Group]) -> tuple[Tier, ...]:
    return tuple(Tier(group, _priority(group[0]), kind) for group in groups if group)
