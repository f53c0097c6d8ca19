"""By the call's key, so that equal keys meet the same endpoint: ring_hash, maglev and rendezvous."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Protocol

from . import maglev, ring
from .bounded import Bound, Total
from .eligibility import Group
from .endpoint import EndpointState
from .options import HashOptions, PoolOptions
from .picker import RandomChoice
from .rendezvous import Rendezvous

_OWNERS = 64  # that are asked whether they are fit, before a key is sent anywhere
_KNOWN = 8  # groups
_SMALL = 4096  # entries of a ring that are made at once, in a few milliseconds, when there was none before


class Table(Protocol):
    """Where keys are at home, over all endpoints of a level, fit or not."""

    def home(self, key: int) -> EndpointState:
        """The key's endpoint."""
        ...

    def owners(self, key: int) -> Iterator[EndpointState]:
        """The home, and then who steps in, in order. Some may come more than once."""
        ...


Building = Generator[None, None, Table]  # yields between slices of at most about a millisecond


class Build:
    """A table that is made aside: `slices` without the pool's lock, then `install` under it."""

    def __init__(self, picker: HashPicker, states: Group, building: Building) -> None:
        self._picker = picker
        self._states = states
        self._building = building
        self._table: Table | None = None

    def slices(self) -> Iterator[None]:
        """Work, and let others run at each step. Ends early when the pool's endpoints changed meanwhile."""
        while self._picker.wants(self._states):
            try:
                next(self._building)
            except StopIteration as end:
                self._table = end.value
                return
            yield

    def install(self) -> None:
        """Use the table from now on, unless it came too late."""
        if self._table is not None:
            self._picker.install(self._states, self._table)

    def finish(self) -> None:
        """All at once."""
        for _ in self.slices():
            pass
        self.install()


class HashPicker:
    """One level's endpoints by the call's key; a call without one goes anywhere.

    The table is over all endpoints of the level: one that is not fit is passed over, and the keys of the others stay
    where they are. While a new table is made the old one serves: who is gone is passed over too, who is new waits.
    """

    def __init__(self, building: Callable[[Group], Building], anywhere: RandomChoice, bound: Bound | None) -> None:
        self._building = building
        self._anywhere = anywhere
        self._bound = bound
        self._table: Table | None = None
        self._wanted: Group = ()
        self._weights: Sequence[int] = ()
        self._members = _Members(())
        self._known: dict[int, _Members] = {}  # by the id of the group that they keep

    def pick(self, group: Group, key: int | None, tried: Collection[EndpointState], now: float) -> EndpointState:
        if key is None:
            return self._anywhere.pick(group, key, tried, now)
        if group is not self._members.group:
            self._members = self._of(group)
        home = self._table.home(key) if self._table else None
        if home is None or home not in self._members.all or home in tried:
            home = self._stand_in(key, group, tried)
        return home if self._bound is None else self._bound.spare(home, key, group, self._members.weight, tried)

    def replace(self, states: Group) -> Build | None:
        """The level's endpoints are these now, fit or not. None: the table fits them, too."""
        weights = [state.endpoint.weight for state in states]
        if states == self._wanted and weights == self._weights:
            return None
        self._wanted, self._weights = states, weights
        self._known.clear()
        return Build(self, states, self._building(states))

    def wants(self, states: Group) -> bool:
        """Is a table of these endpoints still what is needed? For any thread."""
        return self._wanted is states

    def install(self, states: Group, table: Table) -> None:
        if self.wants(states):
            self._table = table

    @property
    def empty(self) -> bool:
        """There is no table yet."""
        return self._table is None

    def _of(self, group: Group) -> _Members:
        """Kept, as calls alternate between healthy and degraded endpoints of a level, or those that are ejected."""
        members = self._known.get(id(group))
        if members is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            members = self._known[id(group)] = _Members(group)
        return members

    def _stand_in(self, key: int, group: Group, tried: Collection[EndpointState]) -> EndpointState:
        """The next owner that is fit. If there is none near, any by the key, as looking on would take too long."""
        for owner in islice(self._table.owners(key), _OWNERS) if self._table else ():
            if owner in self._members.all and owner not in tried:
                return owner
        start = key % len(group)
        while (state := group[start]) in tried:
            start = (start + 1) % len(group)
        return state


class _Members:
    """What must be known of a group."""

    __slots__ = ("all", "group", "weight")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.all = frozenset(group)
        self.weight = sum(state.endpoint.weight for state in group)


class HashPickers:
    """One per level: a key that fails over to the next level keeps meeting one endpoint there."""

    def __init__(self, options: PoolOptions, random: Random, pool: Total) -> None:
        self._options = options
        self._random = random
        self._pool = pool
        self._pickers: dict[int, HashPicker] = {}

    def of(self, priority: int) -> HashPicker:
        return self._pickers[priority]

    def replace(self, levels: Mapping[int, Group], *, at_once: bool) -> list[Build]:
        """The pool's endpoints are these now. Gives what must be built aside: nothing if `at_once`."""
        self._pickers = {priority: self._pickers.get(priority) or self._picker() for priority in levels}
        waiting = []
        for priority, states in levels.items():
            picker = self._pickers[priority]
            build = picker.replace(states)
            if build is None:
                continue
            if at_once or (picker.empty and entries(self._options, states) <= _SMALL):
                build.finish()
            else:
                waiting.append(build)
        return waiting

    def _picker(self) -> HashPicker:
        factor = self._options.hash.balance_factor
        return HashPicker(
            lambda states: building(self._options, states),
            RandomChoice(self._random),
            Bound(factor, self._pool) if factor else None,
        )


def building(options: PoolOptions, states: Group) -> Building:
    """Makes the table of `options.balancer`."""
    sizes = options.hash
    match options.balancer:
        case "maglev":
            return maglev.building(states, sizes.table_size)
        case "rendezvous":
            return _rendezvous(states)
        case _:
            return ring.building(states, sizes.minimum_ring_size, sizes.maximum_ring_size)


def entries(options: PoolOptions, states: Group) -> int:
    """How many the table has: what making it costs."""
    match options.balancer:
        case "maglev":
            return options.hash.table_size
        case "rendezvous":
            return len(states)
        case _:
            return _entries_of_ring(options.hash, states)


def _entries_of_ring(sizes: HashOptions, states: Group) -> int:
    return sum(ring.counted(states, sizes.minimum_ring_size, sizes.maximum_ring_size))


def _rendezvous(states: Group) -> Building:
    yield
    return Rendezvous(states)
