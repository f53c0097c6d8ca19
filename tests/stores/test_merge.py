"""What a session works out of its own change is what a store would have made of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from unsticky.session.store import Applied, Change, Record
from unsticky.session.writing import changed
from unsticky.stores.merge import merge

names = st.sampled_from(["a", "b", "unsticky.proof:x"])
fields = st.dictionaries(names, st.binary(max_size=2))
times = st.floats(1, 99)
changes = st.builds(
    Change,
    generation=st.just(0),
    put=fields,
    drop=st.frozensets(names),
    touched=st.none() | times,
    expires=st.none() | times,
    owner=st.none() | st.sampled_from(["", "ann"]),
    raise_generation=st.booleans(),
)


@given(fields, times, st.sampled_from([None, "bob"]), changes)
def test_what_a_change_makes_of_its_base(fields: dict[str, bytes], touched: float, owner: str, change: Change) -> None:
    """The merge takes it over only for the very record that it was made of."""
    base = Record(fields, 1.0, touched, 50.0, owner)
    after = changed(base, change)
    assert merge(base, change, 0.0) == (Applied.APPLIED, after)
    known = replace(change, base=base, after=after)
    assert merge(base, known, 0.0)[1] is after
    other = replace(base, fields={**fields, "b": b"of another request"})
    assert merge(other, known, 0.0) == merge(other, change, 0.0)
    assert merge(base, known, 50.0) == (Applied.GONE, None)
