"""The whole loop: replicas of unequal speed report how busy they are, and get as many calls as they can carry."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import unequal_replica
from support.pools import pools_over
from support.waiting import eventually

BALANCED: dict[str, Any] = {
    "balancer": "weighted_round_robin",
    "load_report": {"enabled": True, "blackout": 0, "update_period": "500ms"},
}


@contextmanager
def replicas(*milliseconds: float) -> Generator[list[str]]:
    """The URLs of replicas that take so long for a request."""
    script = str(Path(unequal_replica.__file__))
    started = [subprocess.Popen([sys.executable, script, str(one)], stdout=subprocess.PIPE) for one in milliseconds]
    try:
        yield [f"http://127.0.0.1:{int(one.stdout.readline())}" for one in started if one.stdout]
    finally:
        for one in started:
            one.kill()
            one.wait()
            if one.stdout:
                one.stdout.close()


def test_the_slow_replica_gets_fewer_calls() -> None:
    """One that takes four times as long as the two others: from a third of the calls down to one of nine."""
    with replicas(60, 15, 15) as urls, pools_over("httpx", urls, **BALANCED) as pools, pools.client() as client:

        def slow_share(count: int = 90) -> float:
            seen: Counter[str] = Counter()
            for _ in range(count):
                answer = client.get("http://catalog/")
                assert answer.status_code == 200
                seen[answer.extensions["unsticky"]["endpoint"]] += 1
            return seen[urls[0].removeprefix("http://")] / count

        assert slow_share(24) >= 0.3  # nobody knows anything yet
        eventually(lambda: slow_share() < 0.18, 30)
        assert slow_share() < 0.18  # and it stays there
        weights = {status.endpoint.url: status.weight for status in pools.status()["catalog"]}
    slow, *quick = (weights[url] for url in urls)
    assert all(2 < one / slow < 6 for one in quick)
