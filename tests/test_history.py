"""A multi-process history check, half a minute of it. `python tests/history.py --seconds 300` is the long one."""

from __future__ import annotations

import pytest

from history import STORES, explained, run

SECONDS = 26.0  # for all stores together; the starts of the replicas come on top


@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", STORES)
def test_no_acknowledged_write_is_lost_and_nothing_ended_comes_back(store: str) -> None:
    """Clients, replicas of both frameworks, kills, pauses, restarts: the history is one that a correct store has."""
    ran = run(store, SECONDS / len(STORES), seed="continuous integration")
    assert not ran.findings, explained(ran, store, "'continuous integration'")
    did = {op.does for op in ran.history if op.applied}
    expected = {"begin", "rotate", "strict", "clear"} | ({"owner"} if STORES[store].owners else set())
    assert expected <= did, ran.summary()
    assert sum(op.found for op in ran.history) > 300, ran.summary()
    assert len(ran.faults) >= 2, ran.summary()
