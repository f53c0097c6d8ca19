"""Header names and values in settings: what would break each message is refused when they are read."""

from __future__ import annotations

from typing import Any

import pytest

from unsticky import SettingsError
from unsticky.settings import load

FRAMING = [
    "Content-Length",
    "transfer-encoding",
    "HOST",
    "Connection",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "expect",
]
SENDERS = ["authorization", "Cookie", "proxy-authorization"]
BROKEN = {
    "line break": "a\r\nx: hunter2",
    "lone LF": "hunter2\n",
    "NUL": "hunter2\0",
    "beyond Latin-1": "hunter2 \u2603",
    "control": "hunter2\x7f",
    "space first": " hunter2",
    "space last": "hunter2\t",
}


def problems(**options: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load({"pools": {"c": {"endpoints": ["http://10.0.0.1"], **options}}}, environ={}, search=False)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", [*FRAMING, *SENDERS, "content-type", "content-encoding", "content-length:ms"])
def test_a_deadline_takes_no_header_that_means_something_else(name: str) -> None:
    """It would be overwritten with a time in each call."""
    [problem] = problems(propagate={"deadline": name})
    assert problem.startswith("pools.c.propagate.deadline: expected another header name than ")
    assert '"x-timeout-ms", or "off"' in problem


@pytest.mark.parametrize("name", FRAMING)
def test_checks_do_not_frame_their_messages(name: str) -> None:
    """The client does that; a name of its own for the Host header is the setting `host`."""
    [problem] = problems(health={"path": "/", "headers": {name: "5"}})
    assert problem.startswith(f"pools.c.health.headers.{name}: a name here must be another header name than ")
    assert "`host`" in problem


@pytest.mark.parametrize("name", [*FRAMING, "Content-Encoding"])
def test_answers_do_not_frame_their_messages(name: str) -> None:
    """Of a fallback: its body says how long it is."""
    [problem] = problems(fallback={"status": 200, "body": "abc", "headers": {name: "5"}})
    assert problem.startswith(f"pools.c.fallback.headers.{name}: a name here must be another header name than ")


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("table", ["health", "fallback"])
def test_values_that_can_not_be_sent(table: str, value: str) -> None:
    """They are not repeated: they may be secrets."""
    options = {"health": {"path": "/"}, "fallback": {"status": 200}}[table]
    [problem] = problems(**{table: {**options, "headers": {"x-a": value}}})
    assert problem.startswith(f"pools.c.{table}.headers.x-a: expected a header value: of the characters of Latin-1")
    assert "hunter2" not in problem


@pytest.mark.parametrize("value", ["", "a", "Bearer a.b-c==", "a\tb  c", "caf\xe9"])
def test_values_that_can_be_sent(value: str) -> None:
    """They are kept as they are."""
    tables = {
        "health": {"path": "/", "headers": {"X-A": value}},
        "fallback": {"status": 200, "headers": {"X-A": value}},
    }
    pool = load({"pools": {"c": {"endpoints": ["http://10.0.0.1"], **tables}}}, environ={}, search=False).pools["c"]
    assert dict(pool.health.headers) == dict(pool.fallback.headers) == {"X-A": value}
    assert not value or f"'{value}'" not in repr(pool.health)


@pytest.mark.parametrize("status", [204, 205, 304])
@pytest.mark.parametrize("kind", ["body", "json"])
def test_answers_without_a_body(status: int, kind: str) -> None:
    """These statuses have none."""
    [problem] = problems(fallback={"status": status, kind: "1"})
    assert problem == f"pools.c.fallback.{kind}: has no effect with status = {status}: such an answer has no body"


def test_answers_are_final() -> None:
    """1xx come before an answer."""
    [problem] = problems(fallback={"status": 101})
    assert problem == "pools.c.fallback.status: expected an integer from 200 to 599, got 101"
