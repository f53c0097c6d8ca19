"""What is put back is as it was, for all who hold it."""

from __future__ import annotations

import functools
import os
import random
import sqlite3
import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from unsticky.statelessness import ablation, walk


class Slotted:
    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 1


class Shared:
    total = 0

    def __init__(self) -> None:
        self.items = {"tea": [1]}


def counting() -> Callable[[], int]:
    count = 0

    def following() -> int:
        nonlocal count
        count += 1
        return count

    return following


def remembering(item: str, seen: list[str] = []) -> list[str]:  # noqa: B006
    seen.append(item)
    return seen


@functools.cache
def memoized(of: list[int]) -> int:
    return len(of)


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table notes (text)")
    return connection


@pytest.fixture
def shop() -> Iterator[ModuleType]:
    module = ModuleType("ablated_shop")
    sys.modules["ablated_shop"] = module
    yield module
    del sys.modules["ablated_shop"]
    for held in vars(module).values():
        if isinstance(held, sqlite3.Connection):
            held.close()


def suspects(before: walk.Held) -> list[str]:
    return walk.differences(before, walk.held(("ablated_shop",), {}, b"key"))


def more(holder: Any, name: str) -> None:
    setattr(holder, name, getattr(holder, name, 0) + 1)


# How it is made, what changes it each time, and what is seen of it.
CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], object], Callable[[Any], object]]] = {
    "dict": (lambda: {"a": [1]}, lambda it: it.update({len(it): 1}), lambda it: it),
    "nested": (lambda: {"a": [1]}, lambda it: it["a"].append(2), lambda it: it),
    "list": (lambda: [1, 2], lambda it: it.insert(0, 3), lambda it: it),
    "set": (lambda: {1}, lambda it: it.add(len(it) + 1), lambda it: it),
    "deque": (lambda: deque([1]), lambda it: it.append(2), lambda it: it),
    "bytearray": (lambda: bytearray(b"a"), lambda it: it.extend(b"b"), lambda it: it),
    "counter": (lambda: Counter("a"), lambda it: it.update("ab"), lambda it: it),
    "ordered": (lambda: OrderedDict(b=1, a=2), lambda it: it.update({len(it): 1}), lambda it: it),
    "attribute": (lambda: SimpleNamespace(a=1), lambda it: more(it, "a"), lambda it: it.a),
    "slots": (Slotted, lambda it: more(it, "number"), lambda it: it.number),
    "object": (Shared, lambda it: it.items["tea"].append(2), lambda it: it.items),
    "class": (lambda: Shared, lambda it: more(it, "total"), lambda it: it.total),
    "closure": (counting, lambda it: it(), lambda it: it.__closure__[0].cell_contents),
    "default": (lambda: remembering, lambda it: it("a"), lambda it: it.__defaults__),
    "function": (counting, lambda it: more(it, "calls"), lambda it: vars(it)),
    "random": (lambda: random.Random(1), lambda it: it.random(), lambda it: it.getstate()),
    "memory": (database, lambda it: it.execute("insert into notes values (1)"), lambda it: list(it.iterdump())),
    "thread": (threading.local, lambda it: more(it, "a"), lambda it: vars(it)),
}


@pytest.mark.parametrize("kind", CASES)
def test_what_the_walk_names_is_put_back_in_place(shop: ModuleType, kind: str) -> None:
    make, change, seen = CASES[kind]
    shop.STATE = state = make()
    shop.OTHER = other = [1]
    before = walk.held(("ablated_shop",), {}, b"key")
    change(state)
    named = suspects(before)
    put_back = ablation.keep(named[0], walk.variables(("ablated_shop",)), {})
    assert put_back is not None, named
    kept = repr(seen(state))
    for _ in range(2):  # before each request
        change(state)
        other.append(2)
        assert repr(seen(state)) != kept
        put_back()
        assert repr(seen(state)) == kept
    assert shop.STATE is state
    assert len(other) == 3, "only that variable"


def test_a_rebound_name_and_a_memo(shop: ModuleType) -> None:
    shop.hits, shop.memo = 0, memoized
    named = walk.variables(("ablated_shop",))
    bind, forget = (
        ablation.keep("ablated_shop:hits", named, {}),
        ablation.keep("ablated_shop:memo.cache_info()", named, {}),
    )
    assert bind is not None
    assert forget is not None
    shop.hits += 1
    memoized((1, 2))  # type: ignore[arg-type]
    bind()
    assert shop.hits == 0
    assert memoized.cache_info().currsize == 1
    forget()
    assert memoized.cache_info().currsize == 0


def test_what_was_not_there_is_taken_away(shop: ModuleType) -> None:
    shop.STATE = SimpleNamespace(users={})
    put_back = ablation.keep("ablated_shop:STATE.users['ann'].age", walk.variables(("ablated_shop",)), {})
    assert put_back is not None
    shop.STATE.users["ann"] = SimpleNamespace(age=1)
    shop.STATE.users["bob"] = 2
    put_back()
    assert shop.STATE.users == {"bob": 2}


@pytest.mark.parametrize("before", [None, "old"])
def test_the_environment(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("ABLATED", raising=False)
    if before:
        monkeypatch.setenv("ABLATED", before)
    put_back = ablation.keep("os.environ['ABLATED']", {}, {})
    assert put_back is not None
    monkeypatch.setenv("ABLATED", "new")
    put_back()
    assert os.environ.get("ABLATED") == before


def test_a_file_with_what_sqlite_keeps_beside_it(tmp_path: Path) -> None:
    file, new = tmp_path / "shop.db", tmp_path / "new.txt"
    file.write_text("old")
    put_back, take_away = ablation.keep_file(str(file)), ablation.keep_file(str(new))
    assert put_back is not None
    assert take_away is not None
    file.write_text("changed")
    (tmp_path / "shop.db-wal").write_text("journal")
    new.write_text("new")
    put_back()
    take_away()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"shop.db": "old"}


def test_what_nobody_knows_can_not_be_put_back(shop: ModuleType) -> None:
    assert ablation.keep("ablated_shop:NOWHERE", walk.variables(("ablated_shop",)), {}) is None
