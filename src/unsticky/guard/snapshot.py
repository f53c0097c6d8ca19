"""Which variables changed since the last look. Pure: it is given the dicts that hold them.

Names only, never values. What is rebound is seen, what grows or shrinks is seen, and so is an item that is replaced in
a dict or list of a few items, such as a counter. The usual look, which finds nothing, runs in C without a call per
variable.
No `__eq__`, `__len__` or property of the app's is run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress, cycle, islice
from operator import is_
from types import FunctionType, ModuleType
from typing import Any

from ..local import is_replica_local

SMALL = 8  # items of a dict or list that are looked at one by one
MOST_ITEMS = 1024  # of them, in all
PART = 500  # variables and items, or a few more
MOST_PARTS = 100
TURNS = 8  # looks until all parts had their turn: lengths cost little, and are compared in each
_ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None)})
_LENGTHS = frozenset(
    {dict.__len__, list.__len__, set.__len__, deque.__len__, bytearray.__len__}
)  # no code of the app's
_PASSED = (ModuleType, FunctionType)

Fact = tuple[str, str, int]  # a variable, and which of the facts about it


@dataclass(frozen=True, slots=True)
class Namespace:
    """A dict whose keys are names, and how these are written: `before` + key + `after`."""

    before: str
    variables: Mapping[str, Any]
    after: str = ""

    def name(self, key: object) -> str:
        """A key that is no identifier may be a user's: it is not told."""
        if isinstance(key, str) and key.isidentifier() and len(key) <= 60:
            return f"{self.before}{key}{self.after}"
        return f"{self.before}...{self.after}"


class _Part:
    """Some of the dicts and small lists, with what is in them: the items of `views` one after the other."""

    def __init__(self) -> None:
        self.views: list[Any] = []
        self.sizes: list[int] = []
        self.facts: list[str] = []  # of each item: its variable
        self.is_atom: list[bool] = []  # is it compared by itself?
        self.is_other: list[bool] = []  # or by its id, so that nothing is kept alive?
        self.atoms: list[Any] = []
        self.others: list[int] = []

    def view(self, view: Any, size: int) -> None:
        self.views.append(view)
        self.sizes.append(size)

    def item(self, name: str, value: Any, *, passed: bool) -> None:
        atom = type(value) in _ATOMS
        self.is_atom.append(atom and not passed)
        self.is_other.append(not atom and not passed)
        self.facts.append(name)
        if not passed:
            self.atoms.append(value) if atom else self.others.append(id(value))

    def is_same(self) -> bool:
        items = chain.from_iterable
        return (
            list(map(len, self.views)) == self.sizes
            and all(map(is_, compress(items(self.views), self.is_atom), self.atoms))
            and list(map(id, compress(items(self.views), self.is_other))) == self.others
        )


class Snapshot:
    """How things are now. `changed` compares with how they are later."""

    def __init__(
        self, namespaces: Iterable[Namespace], own: Callable[[str], bool], allowed: Callable[[str], bool]
    ) -> None:
        """`own`: is a module one of the app's? `allowed`: may this variable change?"""
        self._own = own
        self._allowed = allowed
        self._parts = [_Part()]
        self._containers: list[Any] = []
        self._names: list[str] = []  # of the containers
        self._lengths: list[int] = []
        self._seen: dict[int, Any] = {}
        self._items = 0
        self._where: dict[str, tuple[Mapping[str, Any], str]] = {}
        self.prefixes = frozenset(self._all(namespaces))
        self._looks = cycle(self._parts)

    # All that is noted is noted of one copy: a thread that changes things meanwhile shifts nothing.

    def _all(self, namespaces: Iterable[Namespace]) -> Iterator[str]:
        for namespace in namespaces:
            if len(self._parts) < MOST_PARTS:
                self._namespace(namespace, inside=True)
                yield namespace.before

    def _namespace(self, namespace: Namespace, *, inside: bool) -> None:
        variables = dict(namespace.variables)
        part = self._part(namespace.variables.values(), len(variables))
        named = [(key, namespace.name(key), value) for key, value in variables.items()]
        looked_at = [not self._is_passed(*one) for one in named]
        for (_, name, value), looked in zip(named, looked_at, strict=True):  # the items of one view stay together
            part.item(name, value, passed=not looked)
        for key, name, value in compress(named, looked_at):
            self._where.setdefault(name, (namespace.variables, key))
            self._inside(name, value, deeper=inside)

    def _is_passed(self, key: object, name: str, value: Any) -> bool:
        dunder = isinstance(key, str) and key.startswith("__") and key.endswith("__")
        return dunder or isinstance(value, _PASSED) or is_replica_local(value) or self._allowed(name)

    def _part(self, view: Any, size: int) -> _Part:
        if len(self._parts[-1].facts) >= PART:
            self._parts.append(_Part())
        self._parts[-1].view(view, size)
        return self._parts[-1]

    def _inside(self, name: str, value: Any, *, deeper: bool) -> None:
        kind = type(value)
        if kind in _ATOMS or id(value) in self._seen:
            return
        if getattr(kind, "__len__", None) in _LENGTHS:
            self._seen[id(value)] = value
            self._container(name, value, deeper=deeper)
        elif deeper and isinstance(value, type) and self._own(value.__module__):
            self._seen[id(value)] = value
            self._class(name, value)
        elif deeper and self._own(kind.__module__) and isinstance(held := _attributes(value), dict):
            self._seen[id(value)] = value
            self._namespace(Namespace(f"{name}.", held), inside=False)

    def _container(self, name: str, value: Any, *, deeper: bool) -> None:
        self._containers.append(value)
        self._names.append(name)
        self._lengths.append(len(value))
        if not isinstance(value, (dict, list)) or len(value) > SMALL or self._items + len(value) > MOST_ITEMS:
            return
        view = dict.values(value) if isinstance(value, dict) else value
        items = list(view)
        part = self._part(view, len(items))
        self._where.setdefault(f"{name}[...]", self._where[name])
        self._items += len(items)
        for item in items:
            part.item(name, item, passed=is_replica_local(item))
        for item in items if deeper else ():
            if not is_replica_local(item):
                self._inside(f"{name}[...]", item, deeper=False)

    def _class(self, name: str, kind: type) -> None:
        """Containers of a class alone: most of what it has are methods."""
        namespace = Namespace(f"{name}.", vars(kind))
        for key, value in list(vars(kind).items()):
            inner = namespace.name(key)
            if getattr(type(value), "__len__", None) in _LENGTHS and not self._is_passed(key, inner, value):
                self._where.setdefault(inner, (vars(kind), key))
                self._inside(inner, value, deeper=False)

    def is_same(self) -> bool:
        """The quick look, at all lengths and at the next parts."""
        try:
            if list(map(len, self._containers)) != self._lengths:
                return False
            return all(part.is_same() for part in islice(self._looks, -(-len(self._parts) // TURNS)))
        except RuntimeError:  # a dict that changed while it was looked at
            return False

    def changed(self, later: Snapshot) -> set[str]:
        """The variables that are not as they were. Those of a module that was imported since are none."""
        before, after = self._known(), later._known()
        names = {fact[0] for fact in before.keys() | after.keys() if before.get(fact) != after.get(fact)}
        new = tuple(later.prefixes - self.prefixes)
        return {name for name in names if not name.startswith(new)}

    def _known(self) -> dict[Fact, int]:
        known: dict[Fact, int] = {}
        facts = [("length", self._names, self._lengths)]
        for part in self._parts:
            facts.append(("atom", list(compress(part.facts, part.is_atom)), list(map(id, part.atoms))))
            facts.append(("other", list(compress(part.facts, part.is_other)), part.others))
        times: Counter[tuple[str, str]] = Counter()
        for kind, names, values in facts:
            for name, value in zip(names, values, strict=True):
                known[name, kind, times[name, kind]] = value
                times[name, kind] += 1
        return known

    def probe(self, name: str) -> Probe | None:
        """To look at one variable quickly; None if it is not there any more."""
        where = self._where.get(name)
        return None if where is None else Probe(name, *where)


class Probe:
    """One variable. `look` before and after: what is not equal changed."""

    __slots__ = ("_key", "_variables", "name")

    def __init__(self, name: str, variables: Mapping[str, Any], key: str) -> None:
        self.name = name
        self._variables = variables
        self._key = key

    def look(self) -> Sequence[object]:
        """A fingerprint. It holds nothing but numbers, texts and ids."""
        return _fingerprint(self._variables.get(self._key), 2)


def _fingerprint(value: Any, depth: int) -> tuple[object, ...]:
    if type(value) in _ATOMS:
        return (value,)
    if getattr(type(value), "__len__", None) not in _LENGTHS:
        return (id(value),)
    size = len(value)
    if not depth or size > SMALL or not isinstance(value, (dict, list)):
        return id(value), size
    items = list(dict.values(value) if isinstance(value, dict) else value)
    return id(value), size, *(_fingerprint(item, depth - 1) for item in items)


def _attributes(value: Any) -> Any:
    """Its `__dict__`, without running code of its class."""
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
