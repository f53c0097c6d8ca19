"""Answers for their time to live."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unsticky.discoverers.ttl_cache import TtlCache
from unsticky.testing import FakeClock

KEYS = st.sampled_from("abc")
PUTS = st.tuples(st.just("put"), KEYS, st.floats(0, 1000))
PASSED = st.tuples(st.just("pass"), st.just(""), st.floats(0, 200))


@given(st.lists(PUTS | PASSED, max_size=40), st.floats(0.5, 10), st.floats(10, 300))
def test_against_a_plain_model(steps: list[tuple[str, str, float]], minimum: float, maximum: float) -> None:
    """A value is there until its time, within both bounds, is over; and `due_in` says how long that is."""
    clock = FakeClock()
    cache: TtlCache[str, int] = TtlCache(clock, minimum, maximum)
    model: dict[str, tuple[int, float]] = {}
    for number, (step, key, value) in enumerate(steps):
        if step == "pass":
            clock.advance(value)
        else:
            cache.put(key, number, value)
            model[key] = number, clock.monotonic() + min(max(value, minimum), maximum)
        alive = {key: kept for key, kept in model.items() if kept[1] > clock.monotonic()}
        assert {key: cache.get(key) for key in "abc"} == {key: alive[key][0] if key in alive else None for key in "abc"}
        ends = [end for _, end in alive.values()]
        assert cache.due_in("abcd") == (min(ends) - clock.monotonic() if ends else None)


def test_it_does_not_grow_without_end() -> None:
    """The least used answers go."""
    cache: TtlCache[int, int] = TtlCache(FakeClock(), 1, 300, size=10)
    for number in range(100):
        cache.put(number, number, 60)
    assert [number for number in range(100) if cache.get(number) is not None] == list(range(90, 100))
