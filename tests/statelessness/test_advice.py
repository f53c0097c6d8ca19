"""What a finding advises: the library's own setting, if it is that library's object."""

from __future__ import annotations

import pytest

from unsticky.statelessness.advice import advice_by_name, library


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        (["shop.limits"], ""),
        (["shop", "builtins"], ""),
        (["flask_limiter._extension", "limits.storage.memory"], "flask_limiter"),
        (["slowapi.extension", "limits.storage.memory"], "slowapi"),
        (["flask.app", "builtins", "flask_caching", "cachelib.simple"], "flask_caching"),
        (["shop.cache", "cachetools"], "cachetools"),
    ],
)
def test_the_outermost_library_that_holds_it(modules: list[str], found: str) -> None:
    assert library(modules) == found


@pytest.mark.parametrize(
    ("variable", "loaded", "told"),
    [
        ("shop:limiter.seen", {"shop"}, "move it to the session"),
        ("shop:limiter._storage", {"flask_limiter"}, "RATELIMIT_STORAGE_URI"),
        ("shop:limiter._storage", {"slowapi"}, "slowapi counts in memory"),
        ("shop:scheduler.jobs", set(), "move it to the session"),
        ("shop:scheduler.jobs", {"apscheduler"}, "MemoryJobStore"),
    ],
)
def test_a_name_is_that_of_a_library_only_where_it_is_loaded(variable: str, loaded: set[str], told: str) -> None:
    assert told in advice_by_name(variable, loaded)
