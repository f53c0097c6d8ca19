"""What unsticky gives to tests: a clock, and the contract that finds a wrong store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.broken_stores import BLUNT, BROKEN
from support.sound_stores import Shelf, SoundAsyncStore, SoundStore
from unsticky.clock import Clock
from unsticky.errors import StoreError
from unsticky.session.store import Record
from unsticky.testing import Check, FakeClock, store_contract

CHECKS = {str(check): check for check in store_contract()}


def opener(kind: Callable[[Shelf, Clock], Any]) -> Callable[[Clock], Any]:
    """Opens replicas on a shelf of their own."""
    shelf = Shelf()
    return lambda clock: kind(shelf, clock)


def test_both_times_move_together() -> None:
    """And only when told to."""
    clock = FakeClock(time=1000.0, monotonic=5.0)
    assert (clock.time(), clock.monotonic()) == (1000.0, 5.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (1002.5, 7.5)


def test_time_does_not_go_back() -> None:
    """Monotonic time can't."""
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-1)


@pytest.mark.parametrize("check", store_contract(), ids=str)
@pytest.mark.parametrize("kind", [SoundStore, SoundAsyncStore])
def test_a_sound_store_passes(kind: Callable[[Shelf, Clock], Any], check: Check) -> None:
    """Both sorts, over every check."""
    check(opener(kind))


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_store_is_caught(kind: Callable[[Shelf, Clock], Any]) -> None:
    """By the check that is there for it, which says what it found and what was promised."""
    check = CHECKS[BROKEN[kind]]
    with pytest.raises(Exception) as caught:
        check(opener(kind))
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert check.name in told
    assert check.promise in told


def keeps(kind: Callable[[Shelf, Clock], Any], check: Check) -> bool:
    try:
        check(opener(kind))
    except (AssertionError, KeyError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("check", store_contract(), ids=str)
def test_every_check_catches_something(check: Check) -> None:
    """None is there for show: for each there is a store that is wrong in one thing and fails it."""
    kinds = sorted((kind for kind in BROKEN if kind not in BLUNT), key=lambda kind: BROKEN[kind] != check.name)
    assert not all(keeps(kind, check) for kind in kinds)


def test_the_message_says_what_was_found() -> None:
    """In words that need no look at the contract's source."""
    with pytest.raises(AssertionError) as caught:
        CHECKS["times_never_move_back"](opener(next(kind for kind, name in BROKEN.items() if "Moves" in str(kind))))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("the store breaks times_never_move_back: what is loaded: expected Record(")
    assert ", found Record(" in lines[0]
    assert lines[1].startswith("A slow request can neither shorten a session")


class Down(SoundStore):
    """A store whose server is away."""

    def load(self, key: str) -> Record | None:
        raise StoreError("nobody answers")


def test_errors_of_the_store_come_through() -> None:
    """As they are, with a note that names the check."""
    with pytest.raises(StoreError, match="nobody answers") as caught:
        CHECKS["load_does_not_create_a_record"](opener(Down))
    assert caught.value.__notes__[0].startswith("while checking load_does_not_create_a_record: Loading what is absent")


@pytest.mark.parametrize("fails", [False, True])
def test_all_that_was_opened_is_closed(fails: bool) -> None:
    """Whether the check passes or fails; when it passes, it leaves no record behind."""
    shelf, opened, closed = Shelf(), list[Any](), list[Any]()

    class Counts(SoundStore):
        def close(self) -> None:
            closed.append(self)

        def update(self, *arguments: Any) -> Any:
            if fails:
                raise OSError("broken")
            return super().update(*arguments)

    def open_one(clock: Clock) -> SoundStore:
        opened.append(one := Counts(shelf, clock))  # not opened[-1], which may be another thread's by now
        return one

    for name in ("threads_lose_no_field", "update_puts_and_drops"):
        try:
            CHECKS[name](open_one)
        except OSError:
            assert fails
    assert len(opened) == 9 + 2 if not fails else len(opened) > 2
    assert {id(one) for one in opened} == {id(one) for one in closed}
    assert fails or not shelf.records


def test_limits_are_obeyed() -> None:
    """No record is larger than the store says it can hold, and none has more fields."""
    sizes, counts = list[int](), list[int]()

    class Measures(SoundStore):
        def write(self, key: str, applied: Any, record: Record | None) -> Any:
            if record:
                self.measure(record)
            return super().write(key, applied, record)

        def create(self, key: str, record: Record) -> bool:
            self.measure(record)
            return super().create(key, record)

        def measure(self, record: Record) -> None:
            sizes.append(sum(len(name) + len(value) for name, value in record.fields.items()))
            counts.append(len(record.fields))

    for check in store_contract(largest_value=50_000, most_fields=300):
        check(opener(Measures))
    assert 49_000 < max(sizes) <= 50_000
    assert max(counts) == 300
    with pytest.raises(ValueError, match="at least 1,000 bytes"):
        store_contract(largest_value=10)


def test_every_check_says_what_it_promises() -> None:
    """Names are unique, and each has a sentence."""
    checks = store_contract()
    assert len({check.name for check in checks}) == len(checks) >= 50
    assert all(check.promise.count(" ") >= 3 for check in checks)


USERS_FILE = """
import pytest
from support.broken_stores import ForgetsOwner
from support.sound_stores import Shelf, SoundStore
from unsticky.testing import store_contract

@pytest.mark.parametrize("check", store_contract(), ids=str)
@pytest.mark.parametrize("kind", [SoundStore, ForgetsOwner])
def test_my_store(check, kind):
    shelf = Shelf()
    check(lambda clock: kind(shelf, clock))
"""


def test_a_file_of_a_user(tmp_path: Path) -> None:
    """A user's test file is as short as the documentation says, and pytest tells him what is wrong with his store."""
    (tmp_path / "test_mine.py").write_text(USERS_FILE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "test_mine.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert "FAILED test_mine.py::test_my_store[ForgetsOwner-owner_is_set_kept_and_removed]" in done.stdout
    assert "AssertionError: the store breaks owner_is_set_kept_and_removed: the owners after each update" in done.stdout
    assert "test_my_store[SoundStore" not in done.stdout
    assert done.returncode == 1


def test_no_test_framework_is_needed() -> None:
    """The module is for any of them: pytest is not imported."""
    script = "import sys; sys.modules['pytest'] = None; import unsticky.testing as t; print(len(t.store_contract()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) >= 50
