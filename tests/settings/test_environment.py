"""Variables with a double underscore are laid over a source."""

from __future__ import annotations

import pytest

from unsticky import settings
from unsticky.errors import SettingsError
from unsticky.routing.options import EndpointOptions, PoolOptions
from unsticky.settings import Settings

SOURCE = {"pools": {"my-API.v2": {"endpoints": ["http://10.0.0.1:8000"], "timeout": "2s", "retry": {"attempts": 2}}}}


def load(**environ: str) -> Settings:
    return settings.load(SOURCE, environ={f"UNSTICKY_{name}": text for name, text in environ.items()})


def problem(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    [only] = caught.value.problems
    return str(only)


def test_values_are_merged_and_coerced() -> None:
    """Texts become durations, numbers, truths and choices; what is not named stays; the source is not changed."""
    found = load(
        SESSION__STORE="redis://cache:6379/1",
        SESSION__IDLE_TIMEOUT="30m",
        SESSION__ROTATION_GRACE="1.5",
        SESSION__COOKIE__SECURE="true",
        SESSION__COOKIE__HTTP_ONLY="0",
        POOLS__MY_API_V2__RETRY__ATTEMPTS="5",
        POOLS__MY_API_V2__RETRY__BUDGET_RATIO="0.5",
        POOLS__MY_API_V2__BALANCER="random",
    )
    pool = found.pools["my-api.v2"]
    assert (found.session.store, found.session.idle_timeout, found.session.rotation_grace) == (
        "redis://cache:6379/1", 1800.0, 1.5,
    )  # fmt: skip
    assert (found.session.cookie.secure, found.session.cookie.http_only) == (True, False)
    assert (pool.retry.attempts, pool.retry.budget_ratio, pool.balancer, pool.timeout) == (5, 0.5, "random", 2.0)
    assert SOURCE["pools"]["my-API.v2"]["retry"] == {"attempts": 2}


@pytest.mark.parametrize(
    "text",
    [
        "http://a,http://b",
        " http://a , http://b, ",
        '["http://a", "http://b"]',
        "['http://a', {url = 'http://b'}]",
        '["http://a", {"url": "http://b"}]',
    ],
)
def test_lists(text: str) -> None:
    """A list is comma separated, or in the syntax of TOML or JSON, and replaces the source's."""
    endpoints = load(POOLS__MY_API_V2__ENDPOINTS=text).pools["my-api.v2"].endpoints
    assert [endpoint.url for endpoint in endpoints] == ["http://a", "http://b"]


def test_numbers_in_lists() -> None:
    """The items of a comma separated list are coerced too."""
    assert load(POOLS__MY_API_V2__RETRY__STATUSES="500, 503").pools["my-api.v2"].retry.statuses == {500, 503}


def test_tables() -> None:
    """A whole table may be given in the syntax of TOML or JSON."""
    for text in ("{attempts = 4, backoff = '1ms'}", '{"attempts": 4, "backoff": "1ms"}'):
        retry = load(POOLS__MY_API_V2__RETRY=text).pools["my-api.v2"].retry
        assert (retry.attempts, retry.backoff) == (4, 0.001)


def test_a_pool_of_the_environment_alone() -> None:
    """A pool that no source names is created in lower case."""
    assert load(POOLS__PRICES__ENDPOINTS="http://a").pools["prices"].endpoints[0].url == "http://a"


def test_the_locality_differs_from_host_to_host() -> None:
    """The one name without a double underscore, as deployments set it."""
    assert load(LOCALITY="eu-1b").locality == "eu-1b"
    assert load(LOCALITY="").locality is None


def test_names_that_are_not_ours() -> None:
    """Without a double underscore (Kubernetes injects UNSTICKY_PORT), or empty, a variable does not count."""
    assert load(PORT="tcp://10.0.0.1:80", SERVICE_HOST="10.0.0.1", SESSION__STORE="") == settings.load(
        SOURCE, environ={}
    )


def test_ready_options_are_overlaid_too() -> None:
    """Options in a mapping give way to a variable like plain values do."""
    pool = PoolOptions(endpoints=(EndpointOptions(url="http://a"),))
    found = settings.load({"pools": {"x": pool}}, environ={"UNSTICKY_POOLS__X__RETRY__ATTEMPTS": "7"})
    assert found.pools["x"].retry.attempts == 7
    assert pool.retry.attempts == 3


def test_ready_settings_stay_as_they_are() -> None:
    """A ready Settings is the program's last word."""
    assert settings.load(Settings(), environ={"UNSTICKY_SESSION__IDLE_TIMEOUT": "5m"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("SESION__STORE", "x", ': unknown key "SESION", did you mean "SESSION"?'),
        ("SESSION__STOR", "x", ': unknown key "STOR", did you mean "STORE"?'),
        ("SESSION__STORE__URL", "x", ': there is no table that "URL" could be in'),
        ("SESSION__IDLE_TIMEOUT", "soon", ': expected a duration'),
        ("SESSION__COOKIE__SECURE", "maybe", ': expected true or false, got "maybe"'),
        ("SESSION__COOKIE", "x", ": expected a table, got a list"),
        ("POOLS__MY_API_V2__ENDPOINTS", "http://a,b", ': expected an origin such as "http://10.0.0.1:8000"; '),
        ("POOLS__MY_API_V2__ENDPOINTS", '["http://a", {}]', "[1].url: required, but not set"),
        ("POOLS__MY_API_V2__ENDPOINTS", "[", ": expected TOML or JSON"),
        ("POOLS__MY_API_V2__RETRY", "{attempts = 0}", ".attempts: expected an integer, at least 1, got 0"),
    ],
)  # fmt: skip
def test_problems(name: str, text: str, message: str) -> None:
    """A problem carries the variable's name as its path."""
    assert problem(**{name: text}).startswith(f"UNSTICKY_{name}{message}")


def test_a_name_that_fits_two_pools() -> None:
    """What `_` stands for must be clear."""
    pool = {"endpoints": ["http://a"]}
    with pytest.raises(SettingsError, match=r'UNSTICKY_POOLS__A_B__TIMEOUT: "A_B" may mean any of a-b, a\.b'):
        settings.load({"pools": {"a-b": pool, "a.b": pool}}, environ={"UNSTICKY_POOLS__A_B__TIMEOUT": "1s"})


def test_a_table_and_a_value_in_it() -> None:
    """Both at once is no clear order, so it is refused."""
    assert problem(POOLS__MY_API_V2__RETRY="{attempts = 2}", POOLS__MY_API_V2__RETRY__ATTEMPTS="3") == (
        "UNSTICKY_POOLS__MY_API_V2__RETRY__ATTEMPTS: UNSTICKY_POOLS__MY_API_V2__RETRY sets the whole table already"
    )
