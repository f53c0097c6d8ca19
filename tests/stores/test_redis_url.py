"""What a Redis URL says."""

from __future__ import annotations

import pytest

from unsticky.scalars import Secret
from unsticky.stores.redis_url import RedisTarget, redis_target

SENTINEL = "redis+sentinel"
A = (("a", 26379),)
M = ("sentinel", "m")
THREE = (("a", 6379), ("::1", 2), ("::2", 6379))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://", RedisTarget()),
        ("redis://[::1]:1/2", RedisTarget((("::1", 1),), db=2)),
        (
            "valkey://u:p%2Fw@h?wait_replicas=2",
            RedisTarget((("h", 6379),), username="u", password=Secret("p/w"), wait_replicas=2),
        ),
        ("valkey+cluster://:%5Bp@a,[::1]:2,[::2]", RedisTarget(THREE, "cluster", password=Secret("[p"))),
        (f"{SENTINEL}://a,b:1/m", RedisTarget((*A, ("b", 1)), *M)),
        (f"{SENTINEL}://a/m%2Fn/3", RedisTarget(A, "sentinel", "m/n", db=3)),
        (
            f"{SENTINEL}://a/m?db=4&sentinel_username=s&sentinel_password=t",
            RedisTarget(A, *M, 4, sentinel_username="s", sentinel_password=Secret("t")),
        ),
        ("rediss+sentinel://a/m", RedisTarget(A, *M, tls=True, sentinel_tls=True)),
        ("valkeys+sentinel://a/m?sentinel_tls=no", RedisTarget(A, *M, tls=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_url(url: str, target: RedisTarget) -> None:
    """Servers, their kind, and who we are."""
    assert redis_target(url) == target


def test_a_target_shows_no_password() -> None:
    """Neither of the two."""
    shown = repr(redis_target(f"{SENTINEL}://:hidden@a/m?sentinel_password=hidden"))
    assert "hidden" not in shown
