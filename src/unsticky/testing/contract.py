"""What every session store promises, as checks that any test framework can run over a store of one's own.

    import pytest
    from unsticky.testing import store_contract

    @pytest.mark.parametrize("check", store_contract(), ids=str)
    def test_my_store(check):
        check(lambda clock: MyStore(clock, "my://test-server"))

The function that a check is given opens the store. It is called once for each replica that the check plays, perhaps
from several threads at once, and everything it opens during one check must see the same data: that of one server, one
file, or one dict that the function closes over. A store with `aclose` is an AsyncStore and is driven on an event loop
of its own. Give it a deadline of many seconds: some checks keep a slow machine busy.

A check uses keys of its own, so a shared server will do, and deletes them in the end. What a store may have beside the
four verbs (Purgeable, Scannable, ImmediateLoad) is checked if it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType, ModuleType

from .checks import abilities, changes, expiry, interleavings, parallel, tasks, values, verbs
from .trial import Limits, Open, Trial

_MODULES = (verbs, changes, expiry, values, interleavings, parallel, tasks, abilities)


@dataclass(frozen=True, slots=True)
class Check:
    """One promise. `check(opener)` returns if the store keeps it; if not, it raises AssertionError with what it found.

    An exception of the store's own, such as StoreError, comes through with a note that names the check.
    """

    name: str
    promise: str
    _run: Callable[[Trial], None] = field(repr=False)
    _limits: Limits = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self, opener: Open) -> None:
        trial = Trial(opener, self._limits)
        try:
            with trial:
                self._run(trial)
        except AssertionError as error:
            raise AssertionError(f"the store breaks {self.name}: {error}\n{self.promise}") from error
        except Exception as error:
            error.add_note(f"while checking {self.name}: {self.promise}")
            raise


def store_contract(*, largest_value: int = 1_000_000, most_fields: int = 5000) -> list[Check]:
    """All checks, in a stable order; `str(check)` is a name for people, `check.promise` says what is promised.

    Limits that a store documents: `largest_value` is the size in bytes of the largest record that is tried (one field
    has nearly all of it), `most_fields` how many fields a record has at most. Less than 1,000 bytes or 10 fields
    hold no session: ValueError.
    """
    if largest_value < 1000 or most_fields < 10:
        raise ValueError("a store holds at least 1,000 bytes and 10 fields")
    limits = Limits(largest_value, most_fields)
    return [_check(function, limits) for module in _MODULES for function in _functions(module)]


def _functions(module: ModuleType) -> list[FunctionType]:
    mine = [one for one in vars(module).values() if isinstance(one, FunctionType) and one.__module__ == module.__name__]
    return [one for one in mine if not one.__name__.startswith("_")]


def _check(function: FunctionType, limits: Limits) -> Check:
    promise = " ".join((function.__doc__ or "").split())
    return Check(function.__name__, promise, function, limits)
