"""A source is read into options, or refused with every problem it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from unsticky import settings
from unsticky.errors import SettingsError
from unsticky.routing.options import EndpointOptions, HashKeyOptions, PoolOptions, RetryOptions
from unsticky.scalars import Duration
from unsticky.settings import Settings


def load(data: Mapping[str, object]) -> Settings:
    return settings.load(data, environ={})


def problems(data: Mapping[str, object]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(data)
    return [str(problem) for problem in caught.value.problems]


def catalog(**options: Any) -> dict[str, object]:
    return {"pools": {"catalog": {"endpoints": ["http://10.0.0.1:8000"], **options}}}


def test_defaults() -> None:
    """Nothing set gives the documented defaults."""
    assert load({}) == Settings()
    assert Settings().client == "httpx"
    assert Settings().session.store == "sqlite:///sessions.db"


def test_the_design_s_example() -> None:
    """Every form of the documented example is understood."""
    pool = load(
        catalog(
            endpoints=[
                "http://10.0.0.1:8000",
                {"url": "http://10.0.0.2:8000", "weight": 3, "priority": 1, "locality": "b"},
            ],
            balancer="ring_hash",
            timeout="2s",
            match=["https://api.example.com"],
            hash={"on": ["header:x-tenant", "path"]},
            retry={"attempts": 3, "attempt_timeout": "500ms"},
            health={"path": "/healthz", "interval": "5s"},
        )
    ).pools["catalog"]
    assert pool.endpoints == (
        EndpointOptions(url="http://10.0.0.1:8000"),
        EndpointOptions(url="http://10.0.0.2:8000", weight=3, priority=1, locality="b"),
    )
    assert (pool.timeout, pool.retry.attempt_timeout, pool.health.interval) == (2.0, 0.5, 5.0)
    assert pool.hash.on == (HashKeyOptions(key="header:x-tenant"), HashKeyOptions(key="path"))


def test_options_are_frozen() -> None:
    """Settings can't change after they were read."""
    with pytest.raises(FrozenInstanceError):
        load({}).client = "httpx2"  # type: ignore[misc]


def test_the_promised_message() -> None:
    """A misspelt key is answered with the nearest one, to the letter as promised."""
    assert problems(catalog(retry={"atempts": 3})) == [
        'pools.catalog.retry.atempts: unknown key, did you mean "attempts"?'
    ]


def test_all_problems_at_once() -> None:
    """Problems of one source are reported together, with the source's name and their number."""
    with pytest.raises(SettingsError) as caught:
        load({"clint": "httpx", "session": {"store": 5}, **catalog(balancer="ring_hsh", timeout="soon")})
    assert [problem.path for problem in caught.value.problems] == [
        "clint",
        "session.store",
        "pools.catalog.balancer",
        "pools.catalog.timeout",
    ]
    assert str(caught.value).startswith("settings: 4 problems\n  clint: ")


ALONE = [
    ({"zzz": 1}, "zzz: unknown key, allowed: session, pools, inbound, load_report, statelessness, locality, client"),
    ({"client": "httpx3"}, 'client: expected one of "httpx", "httpx2", got "httpx3"; did you mean "httpx"?'),
    ({"client": 3}, 'client: expected one of "httpx", "httpx2", got 3'),
    ({"session": 3}, "session: expected a table, got 3"),
    ({"session": {"secret_keys": "abc"}}, 'session.secret_keys: expected a list, got "abc"'),
    ({"session": {"secret_keys": ["a", ""]}}, "session.secret_keys[1]: expected a text that is not empty"),
    ({"session": {"cookie": {"secure": "yes"}}}, 'session.cookie.secure: expected true or false, got "yes"'),
    ({"session": {"idle_timeout": 0}}, "session.idle_timeout: expected a duration"),
    ({"session": {"idle_timeout": "5"}}, "session.idle_timeout: expected a duration"),
    ({"session": {"idle_timeout": True}}, "session.idle_timeout: expected a duration"),
    ({"session": {"idle_timeout": float("inf")}}, "session.idle_timeout: expected a duration"),
    ({"session": {"store": "reddis://cache"}}, 'session.store: unknown store "reddis"'),
    ({"pools": []}, "pools: expected a table, got a list"),
    ({"pools": {"a b": {"endpoints": ["http://a"]}}}, 'pools."a b": a name here must be a host name'),
    ({"pools": {"x": {}}}, "pools.x.endpoints: required, but not set"),
    ({"pools": {"x": {"endpoints": []}}}, "pools.x.endpoints: required, but not set: expected at least one"),
    (catalog(endpoints="http://a"), 'pools.catalog.endpoints: expected a list, got "http://a"'),
    (catalog(endpoints=[5]), "pools.catalog.endpoints[0]: expected a table or a text for its url, got 5"),
    (catalog(endpoints=[{"weight": 2}]), "pools.catalog.endpoints[0].url: required, but not set"),
    (catalog(endpoints=[{"url": "http://a", "weight": 0}]), "pools.catalog.endpoints[0].weight: expected an integer"),
    (catalog(endpoints=[{"url": "http://a", "weight": 65536}]), "pools.catalog.endpoints[0].weight: expected"),
    (catalog(retry={"attempts": 0}), "pools.catalog.retry.attempts: expected an integer, at least 1, got 0"),
    (catalog(retry={"attempts": 2.0}), "pools.catalog.retry.attempts: expected an integer, at least 1, got 2.0"),
    (catalog(retry={"attempts": True}), "pools.catalog.retry.attempts: expected an integer, at least 1, got true"),
    (catalog(retry={"statuses": [99]}), "pools.catalog.retry.statuses[0]: expected an integer from 200 to 599, got 99"),
    (catalog(retry={"statuses": [101]}), "pools.catalog.retry.statuses[0]: expected an integer from 200 to 599"),
    (catalog(retry={"budget_per_second": 1e308}), "pools.catalog.retry.budget_per_second: expected a number from 0 to"),
    (catalog(health={"path": "/", "interval": 1e-9}), "pools.catalog.health.interval: expected a duration such as"),
    (catalog(health={"unhealthy_interval": "1ms"}), "pools.catalog.health.unhealthy_interval: expected a duration"),
    (catalog(propagate={"deadline": "X-Envoy-Attempt-Count"}), "pools.catalog.propagate.deadline: the same header as"),
    (catalog(retry={"methods": ["G T"]}), "pools.catalog.retry.methods[0]: expected an HTTP method"),
    (catalog(retry={"budget_ratio": -0.1}), "pools.catalog.retry.budget_ratio: expected a number from 0 to 1000"),
    (catalog(retry={"budget_ratio": float("nan")}), "pools.catalog.retry.budget_ratio: expected a number"),
    (catalog(retry={"budget_per_second": float("inf")}), "pools.catalog.retry.budget_per_second: expected a number"),
    (catalog(retry={"backoff": "1s"}), "pools.catalog.retry.backoff: must not be longer than maximum_backoff (250ms)"),
    (catalog(health={"path": "healthz"}), 'pools.catalog.health.path: expected a path that begins with "/"'),
    (catalog(health={"type": "tcp", "path": "/"}), 'pools.catalog.health.path: has no effect with type = "tcp"'),
    (catalog(health={"verify": False, "ca_file": "a"}), "pools.catalog.health.ca_file: has no effect with verify"),
    (catalog(health={"host": "a\r\nb"}), "pools.catalog.health.host: expected a host name"),
    (catalog(limits={"maximum_in_flight": 2, "maximum_in_flight_per_endpoint": 3}),
     "pools.catalog.limits.maximum_in_flight_per_endpoint: must not be more than maximum_in_flight (2)"),
    (catalog(ejection={"maximum_percent": 101}), "pools.catalog.ejection.maximum_percent: expected an integer from 0"),
    (catalog(ejection={"base_time": "1h"}), "pools.catalog.ejection.base_time: must not be longer than"),
    (catalog(balancer="ring_hash", hash={"on": ["heder:x"]}), "pools.catalog.hash.on[0]: expected "),
    (catalog(hash={"on": ["path"]}), 'pools.catalog.hash.on: has no effect with balancer = "least_request"'),
    (catalog(hash={"balance_factor": 150}), "pools.catalog.hash.balance_factor: has no effect with balancer"),
    (catalog(balancer="maglev", hash={"balance_factor": 99}), "pools.catalog.hash.balance_factor: must be 100 or more"),
    (catalog(balancer="maglev", hash={"on": [{"key": "path", "terminal": 1}]}), "pools.catalog.hash.on[0].terminal: "),
    (
        catalog(balancer="maglev", hash={"table_size": 65536}),
        "pools.catalog.hash.table_size: must be a prime number; the nearest are 65521 and 65537",
    ),
    (
        catalog(balancer="maglev", hash={"table_size": 2}, endpoints=["http://a", "http://b", "http://c"]),
        "pools.catalog.hash.table_size: must be at least the number of endpoints (3)",
    ),
    (catalog(least_request={"choice_count": 11}), "pools.catalog.least_request.choice_count: expected an integer from"),
    (catalog(balancer="random", least_request={"choice_count": 3}), "pools.catalog.least_request: has no effect with"),
    (catalog(peak_ewma={"decay_time": "1s"}), 'pools.catalog.peak_ewma: has no effect with balancer = "least_request"'),
    (catalog(balancer="ring_hash", locality="a"), 'pools.catalog.locality: has no effect with balancer = "ring_hash"'),
    ({"load_report": {"format": "json"}}, 'load_report.emit: must be "on_request" or "always"'),
    (catalog(load_report={"enabled": True}, balancer="ring_hash"), "pools.catalog.load_report.enabled: has no effect"),
    (catalog(slow_start={"window": 9}, balancer="random"), "pools.catalog.slow_start.window: has no effect with balan"),
    (catalog(slow_start={"aggression": 2}), "pools.catalog.slow_start.window: must be more than 0, or the other"),
    (catalog(load_report={"metrics": ["cpu_utilization"]}), "pools.catalog.load_report.enabled: must be true, or"),
    (catalog(load_report={"enabled": True, "metrics": ["cpu"]}), "pools.catalog.load_report.metrics[0]: expected "),
    (catalog(load_report={"enabled": True, "error_penalty": -1}), "pools.catalog.load_report.error_penalty: expected"),
    (catalog(load_report={"enabled": True, "blackout": "5m"}), "pools.catalog.load_report.blackout: must be shorter"),
    (catalog(load_report={"enabled": True, "update_period": 0.01}), "pools.catalog.load_report.update_period: expect"),
    (catalog(balancer="ring_hash", subset_size=3), "pools.catalog.subset_size: balancer"),
    (catalog(hash={"minimum_ring_size": 9, "maximum_ring_size": 8}), "pools.catalog.hash.minimum_ring_size: must not"),
    (catalog(endpoints=["http://a", "HTTP://A:80/"]), "pools.catalog.endpoints[1]: the same endpoint as endpoints[0]"),
    (catalog(match=["https://a", "https://a:443"]), "pools.catalog.match[1]: the same origin as pools"),
    (catalog(match=["https://Catalog"]), 'pools.catalog.match[0]: "catalog" is the name of a pool'),
    ({"session": {"idle_timeout": 60, "touch_interval": 60}}, "session.touch_interval: must be shorter"),
    ({"inbound": {"timeout": 5, "maximum_timeout": 2}}, "inbound.maximum_timeout: must not be shorter than timeout"),
    ({"inbound": {"maximum_timeout": 2, "deadline_headers": []}}, "inbound.maximum_timeout: has no effect without"),
    ({"inbound": {"timeout": "5ms"}}, "inbound.reserve: must be shorter than timeout (5ms)"),
    ({"inbound": {"deadline_headers": ["X-A:ms", "x-a"]}}, "inbound.deadline_headers[1]: the same header as"),
    ({"inbound": {"deadline_headers": ["X-A:us"]}}, "inbound.deadline_headers[0]: expected a header name, and perhaps"),
    ({"session": {"migrate_flask_session": "redis://a"}}, "session.migrate_flask_session: has no effect without"),
    ({"session": {"migrate_flask_session": "sqlite:///a", "migrate_until": "2999-01-01"}},
     "session.migrate_flask_session: is the URL of the Redis"),
    ({"session": {"store": "memcached://a", "maximum_sessions": 3}}, "session.maximum_sessions: Memcached may forget"),
    ({"session": {"cookie": {"same_site": "none", "secure": False}}}, 'session.cookie.secure: same_site = "none"'),
    ({"session": {"cookie": {"name": "__Host-s"}}}, "session.cookie.name: __Host-s needs secure = true"),
    ({"session": {"cookie": {"name": "a;b"}}}, "session.cookie.name: expected a cookie name"),
    ({"session": {"cookie": {"path": "/;Secure"}}}, "session.cookie.path: expected a path"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), ALONE, ids=lambda value: value if isinstance(value, str) else "")
def test_one_problem(data: dict[str, object], message: str) -> None:
    """Each mistake gives exactly one problem, which says where and what is allowed."""
    [problem] = problems(data)
    assert problem.startswith(message)


@pytest.mark.parametrize(
    "url",
    ["10.0.0.1:8000", "ftp://a", "http://", "http://a/x", "http://a?q", "http://a#f", "http://a:0", "http://a:70000",
     "http://a:x", "http://user:hunter2@a", "http://a b", "http://[::1", "http://[zz]", "http://a..b", "http://münchen.de"],
)  # fmt: skip
def test_an_endpoint_is_an_origin(url: str) -> None:
    """What is more or less than scheme, host and port is refused; a password in it is not repeated."""
    [problem] = problems(catalog(endpoints=[url]))
    assert problem.startswith('pools.catalog.endpoints[0]: expected an origin such as "http://10.0.0.1:8000"; ')
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTP://Shop.Example:8000/", "http://shop.example:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://localhost:", "http://localhost"),
        ("https://a_b.internal", "https://a_b.internal"),
    ],
)
def test_origins_have_one_spelling(url: str, normal: str) -> None:
    """Case, a last slash and an empty port make no difference."""
    assert load(catalog(endpoints=[url])).pools["catalog"].endpoints[0].url == normal


def test_two_pools_claim_one_origin() -> None:
    """An origin can lead to one pool only."""
    both = {
        name: {"endpoints": [f"http://{name}.internal"], "match": ["https://api.example.com"]} for name in ("a", "b")
    }
    assert problems({"pools": both}) == ["pools.b.match[0]: the same origin as pools.a.match[0]"]


def test_case_does_not_tell_pools_apart() -> None:
    """Pools' names are host names: in lower case, and each once."""
    pool = {"endpoints": ["http://a"]}
    assert list(load({"pools": {"Catalog": pool}}).pools) == ["catalog"]
    [problem] = problems({"pools": {"Catalog": pool, "catalog": pool}})
    assert problem.startswith('pools.catalog: the same name as "catalog"')


def test_relations_wait_for_right_fields() -> None:
    """Fields are not judged together with one that is wrong by itself: no second problem follows from the first."""
    found = problems(
        catalog(balancer="ring_hsh", hash={"on": ["path"]}, retry={"backoff": "9s", "maximum_backoff": "x"})
    )
    assert [problem.split(":")[0] for problem in found] == [
        "pools.catalog.balancer",
        "pools.catalog.retry.maximum_backoff",
    ]


def test_methods_are_read_in_capitals() -> None:
    """Methods are case-sensitive on the wire; nobody means `get`."""
    assert load(catalog(retry={"methods": ["get"]})).pools["catalog"].retry.methods == {"GET"}


def test_python_values_are_welcome() -> None:
    """A mapping may hold ready options, tuples, sets and None for what is unset."""
    pool = PoolOptions(endpoints=(EndpointOptions(url="http://a"),), retry=RetryOptions(attempts=2))
    assert load({"pools": {"catalog": pool}}).pools["catalog"] == pool
    data = catalog(match=("https://a",), timeout=None, retry={"statuses": {503}, "backoff": Duration("5ms")})
    assert load(data).pools["catalog"].retry.statuses == {503}
    assert problems({"client": None}) == ['client: expected one of "httpx", "httpx2", got None']


def test_ready_settings_are_checked() -> None:
    """Settings that a program composed are held to the same rules."""
    pool = PoolOptions(endpoints=(EndpointOptions(url="http://a/"),))
    ready = Settings(pools={"catalog": pool})
    assert settings.load(ready).pools["catalog"].endpoints[0].url == "http://a"
    with pytest.raises(SettingsError, match=r"pools\.catalog\.endpoints: .*expected at least one"):
        settings.load(Settings(pools={"catalog": replace(pool, endpoints=())}))


def test_keys_that_are_no_text() -> None:
    """A mapping with odd keys is refused like any other unknown key."""
    assert problems({5: 1})[0].startswith('"5": unknown key')  # type: ignore[dict-item]


def test_no_secret_in_errors_or_repr() -> None:
    """Keys and passwords stand in no message and no repr."""
    data = {"session": {"secret_keys": ["hunter2"], "store": "redis://:hunter2@cache/0"}}
    assert "hunter2" not in repr(load(data))
    wrong = {"session": {"secret_keys": [["hunter2"]], "store": "redis://:hunter2@cache/x", "cookie": 5}}
    assert "hunter2" not in "\n".join(problems(wrong))
    assert len(problems(wrong)) == 3


def test_headers_of_health_checks() -> None:
    """A table of texts that are never shown: one may be an API key."""
    found = load(catalog(health={"path": "/", "headers": {"Authorization": "Bearer abc"}}))
    headers = found.pools["catalog"].health.headers
    assert dict(headers) == {"Authorization": "Bearer abc"}
    assert "abc" not in repr(found)
    [problem] = problems(catalog(health={"headers": {"no name": "x"}}))
    assert "a header name" in problem
