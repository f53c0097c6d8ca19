"""What a snapshot sees, and what it leaves alone."""

from __future__ import annotations

import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from unsticky import replica_local
from unsticky.guard.snapshot import Namespace, Snapshot

MODULE = "shop_of_the_guard"


class Cart:
    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.total = 0


class Stats:
    seen: ClassVar[list[str]] = []


Cart.__module__ = Stats.__module__ = MODULE


class Hostile:
    """Whoever compares or measures it is told."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    __hash__ = object.__hash__

    def __len__(self) -> int:
        raise AssertionError("measured")

    @property
    def shape(self) -> None:
        raise AssertionError("read")


Hostile.__module__ = MODULE


def variables() -> dict[str, Any]:
    return {
        "CARTS": {}, "LIST": [], "SET": set(), "QUEUE": deque(), "COUNTS": {"hits": 0}, "ODD": OrderedDict(),
        "HITS": Counter(), "hits": 1000, "name": None, "STORE": Cart(), "Stats": Stats, "DB": {"users": {}},
        "hostile": Hostile(), "json": types, "view": variables, "allowed": {}, "METRICS": replica_local({}, why="test"),
        "__warningregistry__": {}, "LARGE": dict.fromkeys(range(100)),
    }  # fmt: skip


def snapshot(*namespaces: Namespace) -> Snapshot:
    return Snapshot(namespaces, lambda name: name == MODULE, lambda name: name == "shop:allowed")


def changes(change: Callable[[dict[str, Any]], object]) -> set[str]:
    held = variables()
    namespace = Namespace("shop:", held)
    before = snapshot(namespace)
    assert before.is_same()
    change(held)
    after = snapshot(namespace)
    changed = before.changed(after)
    assert not changed or not before.is_same()
    return changed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v: v["CARTS"].update(a=1), "shop:CARTS"),
        (lambda v: v["LIST"].append(1), "shop:LIST"),
        (lambda v: v["SET"].add(1), "shop:SET"),
        (lambda v: v["QUEUE"].append(1), "shop:QUEUE"),
        (lambda v: v["ODD"].update(a=1), "shop:ODD"),
        (lambda v: v["HITS"].update("a"), "shop:HITS"),
        (lambda v: v["LARGE"].update(a=1), "shop:LARGE"),
        (lambda v: v["COUNTS"].update(hits=1), "shop:COUNTS"),
        (lambda v: v.update(hits=v["hits"] + 1), "shop:hits"),
        (lambda v: v.update(name="somebody"), "shop:name"),
        (lambda v: v.update(name=Hostile()), "shop:name"),
        (lambda v: v["STORE"].items.update(tea=1), "shop:STORE.items"),
        (lambda v: setattr(v["STORE"], "total", 5), "shop:STORE.total"),
        (lambda v: v["DB"]["users"].update(ann=1), "shop:DB[...]"),
        (lambda v: v.update(fresh=1), "shop:fresh"),
        (lambda v: v.pop("name"), "shop:name"),
    ],
)
def test_a_change_is_named(change: Callable[[dict[str, Any]], object], named: str) -> None:
    """By its variable alone."""
    assert changes(change) == {named}


def test_a_container_of_a_class_is_named() -> None:
    """As attributes of classes are shared by all requests."""
    held: dict[str, Any] = {"Stats": Stats}
    before = snapshot(Namespace("shop:", held))
    Stats.seen.append("a")
    assert before.changed(snapshot(Namespace("shop:", held))) == {"shop:Stats.seen"}


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["allowed"].update(a=1),
        lambda v: v.update(allowed=1),
        lambda v: v["METRICS"].update(a=1),
        lambda v: v["__warningregistry__"].update(a=1),
        lambda v: v.update(__warningregistry__=1),
        lambda v: v.update(lazily_imported=types),
        lambda v: v["LARGE"].update({5: "another"}),  # no change of length: too many to look at each
    ],
)
def test_what_is_left_alone(change: Callable[[dict[str, Any]], object]) -> None:
    """What was declared, what Python does itself, and what a look at lengths can't see."""
    assert changes(change) == set()


def test_keys_that_may_be_a_users_are_not_told() -> None:
    """A key is data, unless it is an identifier."""
    held: dict[str, Any] = {}
    before = snapshot(Namespace("app.config['", held, "']"))
    held["ann@example.org"] = held["VISITS"] = 1
    after = snapshot(Namespace("app.config['", held, "']"))
    assert before.changed(after) == {"app.config['...']", "app.config['VISITS']"}


def test_every_part_of_a_large_app_has_its_turn() -> None:
    """Lengths are compared at each look, bindings at one of eight."""
    large = {f"a{number}": number for number in range(10_000)}
    namespaces = [Namespace(f"shop.{key}:", {key: value}) for key, value in large.items()]
    before = snapshot(*namespaces)
    assert all(before.is_same() for _ in range(16))
    namespaces[7777].variables["a7777"] = None  # type: ignore[index]
    assert [before.is_same() for _ in range(8)].count(False) == 1


def test_a_module_imported_since_is_no_change() -> None:
    """All of its variables are new."""
    before = snapshot(Namespace("shop:", {"a": 1}))
    assert before.changed(snapshot(Namespace("shop:", {"a": 1}), Namespace("shop.lazy:", {"CACHE": {}}))) == set()


def test_nothing_of_the_apps_is_kept_alive() -> None:
    """A connection that is rebound is closed when the app thinks so."""
    ended: list[int] = []

    class Connection:
        def __del__(self) -> None:
            ended.append(1)

    held: dict[str, Any] = {"connection": Connection(), "POOL": [Connection()]}
    before = snapshot(Namespace("shop:", held))
    held["connection"] = None
    held["POOL"].clear()
    assert ended == [1, 1]
    assert before.changed(snapshot(Namespace("shop:", held))) == {"shop:connection", "shop:POOL"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shop:CARTS", lambda v: v["CARTS"].update(a=1)),
        ("shop:hits", lambda v: v.update(hits=v["hits"] + 1)),
        ("shop:COUNTS", lambda v: v["COUNTS"].update(hits=v["COUNTS"]["hits"] + 1)),
        ("shop:STORE.items", lambda v: v["STORE"].items.update(tea=1)),
        ("shop:DB[...]", lambda v: v["DB"]["users"].update(ann=1)),
        ("shop:name", lambda v: v.update(name=Hostile())),
    ],
)
def test_a_probe_sees_one_variable(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """The same changes, looked at before and after."""
    held = variables()
    probe = snapshot(Namespace("shop:", held)).probe(name)
    assert probe is not None
    before = probe.look()
    assert probe.look() == before
    change(held)
    assert probe.look() != before


def test_a_variable_that_is_not_there_has_no_probe() -> None:
    """It went between two looks."""
    assert snapshot(Namespace("shop:", {})).probe("shop:gone") is None
