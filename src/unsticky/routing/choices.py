"""Which of the endpoints that may be used gets a call's next attempt."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from random import Random

from .eligibility import Group, Ranking, Tier, choice
from .endpoint import EndpointState
from .hashed import Build, HashPickers
from .limits import Places
from .options import HASHING, PoolOptions
from .picker import Picker, picker_for
from .preference import preferred
from .rules import Preference


class Choices:
    """The pickers of one pool, and what is between its ranking and them. Under the pool's lock."""

    def __init__(self, options: PoolOptions, random: Random, places: Places) -> None:
        self._options = options
        self._random = random
        self._places = places
        self._hashed = HashPickers(options, random, places) if options.balancer in HASHING else None
        self._pickers: dict[tuple[object, ...], Picker] = {}  # one per group that calls alternate between
        self._tier: Tier | None = None  # of the last pick
        self._picker_of_tier: Picker

    def replace(self, levels: Mapping[int, Group], *, at_once: bool) -> list[Build]:
        """The pool's endpoints are these now. Gives the tables that must be built aside: none if `at_once`."""
        self._pickers = {slot: picker for slot, picker in self._pickers.items() if slot[0] in levels}
        self._tier = None
        return self._hashed.replace(levels, at_once=at_once) if self._hashed else []

    def next(self, ranking: Ranking, key: int | None, tried: list[EndpointState], now: float) -> EndpointState | None:
        """The endpoint for a call that used `tried` so far; None: nobody has a place left."""
        excluded: Collection[EndpointState] = ()
        if tried:
            tier, excluded = choice(ranking.order, tried)
        elif len(ranking.first) == 1:
            tier = ranking.first[0]
        else:
            tier = self._drawn(ranking, key)
        states = tier.states
        state = states[0] if len(states) == 1 else self._picker(tier).pick(states, key, excluded, now)
        if (full := self._places.full) and state in full:
            return self._with_place(ranking, tier, key, tried, now)
        return state

    def preferred(
        self,
        prefer: Preference,
        ranking: Ranking,
        states: Mapping[str, EndpointState],
        key: int | None,
        tried: Sequence[EndpointState],
        now: float,
    ) -> tuple[EndpointState | None, bool]:
        """The endpoint that a rule wants, or None; and whether it wants one that has no place left."""

        def pick(tier: Tier, excluded: Collection[EndpointState]) -> EndpointState:
            return self._picker(tier).pick(tier.states, key, excluded, now)

        return preferred(prefer, ranking, states, tried, self._places.full, pick)

    def _drawn(self, ranking: Ranking, key: int | None) -> Tier:
        """Where a first attempt goes. As in Envoy a key always falls on the same share: it keeps its endpoint."""
        first, sums = ranking.first, ranking.sums
        point = self._random.random() if key is None or not self._hashed else key % 100 / 100
        return first[bisect(sums, point * sums[-1], 0, len(sums) - 1)]

    def _with_place(
        self, ranking: Ranking, tier: Tier, key: int | None, tried: Sequence[EndpointState], now: float
    ) -> EndpointState | None:
        """Another than the one that was picked and is full. The next on the ring, for a key; fit, if there are any."""
        places, fit = self._places, ranking.fit_tiers
        if fit and key is None:
            state = places.another(fit.index(tier) if tier in fit else None, tried, self._random)
            if state is not None:
                return state
        for excluded in (places.full.union(tried), places.full):
            for one in fit or ranking.order:
                if any(state not in excluded for state in one.states):
                    return self._picker(one).pick(one.states, key, excluded, now)
        return None

    def _picker(self, tier: Tier) -> Picker:
        """The tier's own: what pickers keep for a group must not be made again with each turn between groups."""
        if tier is not self._tier:
            self._tier, self._picker_of_tier = tier, self._found(tier)
        return self._picker_of_tier

    def _found(self, tier: Tier) -> Picker:
        if self._hashed:
            return self._hashed.of(tier.priority)
        picker = self._pickers.get(tier.slot)
        if picker is None:
            picker = self._pickers[tier.slot] = picker_for(self._options, self._random)
        return picker
