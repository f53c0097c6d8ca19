"""The contract of all stores, over Sentinel, a cluster, and a server whose replica has to acknowledge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.valkeys import cluster_url, clustered, replicated, sentinel_url, watched
from unsticky.stores import open_async_store, open_store
from unsticky.testing import Check, store_contract

TIMEOUT = 30.0
CHECKS = pytest.mark.parametrize("check", store_contract(), ids=str)


@pytest.fixture(scope="module", params=["sentinel", "cluster", "replicated"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        if request.param == "sentinel":
            _, _, sentinels = stack.enter_context(watched(folder, 1, down_after=60_000))
            yield sentinel_url(sentinels)
        elif request.param == "cluster":
            yield cluster_url(stack.enter_context(clustered(folder)))
        else:
            primary, _ = stack.enter_context(replicated(folder))
            yield f"valkey://{primary.address}?wait_replicas=1"


@CHECKS
def test_threads(url: str, check: Check) -> None:
    """The Store of each kind."""
    check(lambda clock: open_store(url, clock=clock, timeout=TIMEOUT))


@CHECKS
def test_event_loops(url: str, check: Check) -> None:
    """The AsyncStore of each kind."""
    check(lambda clock: open_async_store(url, clock=clock, timeout=TIMEOUT))
