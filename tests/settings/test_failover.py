"""What settings of rules and fallbacks must be, and how problems are told."""

from __future__ import annotations

from typing import Any

import pytest

from unsticky import SettingsError
from unsticky.settings import load

HOST = "http://10.0.0.1:8000"
ANY = {"path": "*"}


def pools(*rules: Any, fallback: Any = None, **others: Any) -> dict[str, Any]:
    first = {"endpoints": [HOST], "rules": list(rules), **({"fallback": fallback} if fallback else {})}
    return {"pools": {"a": first, **others}}


def other(**options: Any) -> dict[str, Any]:
    return {"endpoints": [HOST], **options}


WRONG: list[tuple[dict[str, Any], str]] = [
    (pools({"when": {}, "use_pool": "b"}, b=other()), "pools.a.rules[0].when: expected at least one condition"),
    (pools({"use_pool": "b"}, b=other()), "pools.a.rules[0].when: required"),
    (pools({"when": ANY}), 'pools.a.rules[0]: expected one of "use_pool", "use_priority", "use_endpoint", got none'),
    (
        pools({"when": ANY, "use_pool": "b", "use_priority": 0}, b=other()),
        "got use_pool and use_priority",
    ),
    (pools({"when": ANY, "use_pool": "bb"}, b=other()), "pools.a.rules[0].use_pool: no such pool"),
    (pools({"when": ANY, "use_pool": "a"}), "leads back to where it began: a -> a"),
    (
        pools(
            {"when": ANY, "use_pool": "b"},
            b=other(rules=[{"when": ANY, "use_pool": "c"}]),
            c=other(rules=[{"when": ANY, "use_pool": "a"}]),
        ),
        "pools.a.rules[0].use_pool: leads back to where it began: a -> b -> c -> a",
    ),
    (pools({"when": ANY, "use_endpoint": "http://10.0.0.9"}), "pools.a.rules[0].use_endpoint: no endpoint of the pool"),
    (pools({"when": ANY, "use_priority": 1}), "no endpoint has that priority; there are 0"),
    (pools({"when": ANY, "use_pool": "b", "only": True}, b=other()), "pools.a.rules[0].only: has no effect"),
    (pools({"when": {"between": "22-6"}, "use_pool": "b"}, b=other()), "two different times of day"),
    (pools({"when": {"between": "10:00-10:00"}, "use_pool": "b"}, b=other()), "two different times of day"),
    (
        pools({"when": {"weekdays": "fri", "timezone": "Mars"}, "use_pool": "b"}, b=other()),
        "pools.a.rules[0].when.timezone: expected a time zone",
    ),
    (pools({"when": {**ANY, "timezone": "UTC+1"}, "use_pool": "b"}, b=other()), "timezone: has no effect without"),
    (pools({"when": {"weekdays": ["fri", "mond"]}, "use_pool": "b"}, b=other()), 'did you mean "mon"?'),
    (pools({"when": {"load_above": 80}, "use_pool": "b"}, b=other()), "needs limits.maximum_in_flight"),
    (pools({"when": {**ANY, "window": 5}, "use_pool": "b"}, b=other()), "window: has no effect without error_rate"),
    (pools({"when": {"header": {"a b": "x"}}, "use_pool": "b"}, b=other()), "a name here must be a header name"),
    (
        pools({"when": {"path": "reports/*"}, "use_pool": "b"}, b=other()),
        "pools.a.rules[0].when.path: expected a path as",
    ),
    (pools({"when": {"path": ["/x?a=1"]}, "use_pool": "b"}, b=other()), "rules[0].when.path[0]: expected a path as it"),
    (pools({"when": {"path": "/b\xfccher"}, "use_pool": "b"}, b=other()), "rules[0].when.path: expected a path as it"),
    (
        pools(*({"name": "n", "when": {"path": path}, "use_priority": 0} for path in ("/a", "/b"))),
        "pools.a.rules[1].name: the same name as that of rules[0]",
    ),
    (
        pools({"name": "1", "when": ANY, "use_priority": 0}, {"when": ANY, "use_priority": 0}),
        "pools.a.rules[0].name: the same name as that of rules[1]",
    ),
    (pools(fallback={"pool": "b", "status": 503}, b=other()), "pools.a.fallback: expected pool or status, got both"),
    (pools(fallback={"body": "x"}), "pools.a.fallback: needs pool or status"),
    (pools(fallback={"pool": "b", "body": "x"}, b=other()), "pools.a.fallback.body: has no effect with pool"),
    (pools(fallback={"status": 200, "json": "{"}), "pools.a.fallback.json: expected a text that is JSON"),
    (pools(fallback={"status": 200, "json": "1", "body": "1"}), "expected body or json, got both"),
    (pools(fallback={"pool": "c"}), "pools.a.fallback.pool: no such pool"),
    (pools(fallback={"pool": "b"}, b=other(fallback={"pool": "a"})), "a -> b -> a"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_problems(given: dict[str, Any], message: str) -> None:
    """Each names its place, and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        load(given, environ={}, search=False)
    assert message in str(caught.value)


def test_one_or_more() -> None:
    """A text stands for the list of it; names of pools are in lower case."""
    when = {"method": "get", "path": ["/a", "/b"], "weekdays": "fri", "between": "22:00-06:00"}
    settings = load(pools({"when": when, "use_pool": "B"}, B=other()), environ={}, search=False)
    (rule,) = settings.pools["a"].rules
    assert (rule.when.method, rule.when.path, rule.when.weekdays, rule.use_pool) == (
        ("GET",),
        ("/a", "/b"),
        ("fri",),
        "b",
    )


def test_from_the_environment() -> None:
    """Rules and fallbacks are set there like other tables."""
    environ = {
        "UNSTICKY_POOLS__A__RULES": '[{when = {path = "/x*"}, use_pool = "b"}]',
        "UNSTICKY_POOLS__A__FALLBACK__STATUS": "503",
    }
    settings = load(pools(b=other()), environ=environ, search=False)
    assert settings.pools["a"].rules[0].when.path == ("/x*",)
    assert settings.pools["a"].fallback.status == 503
