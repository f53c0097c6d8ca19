"""Scripts and schedules: what is sent to whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unsticky.errors import ScriptError
from unsticky.statelessness import script
from unsticky.statelessness.forks import _again
from unsticky.statelessness.schedules import FRESH, amnesia, broadcast, control, expanded, rotate
from unsticky.statelessness.step import Step


def loaded(tmp_path: Path, text: str, name: str = "flows.py") -> tuple[Step, ...]:
    path = tmp_path / name
    path.write_text(text)
    return script.load(str(path))


def test_a_python_script(tmp_path: Path) -> None:
    steps = loaded(tmp_path, 'SCRIPT = [("get", "/?a=1"), ("POST", "/", {"json": {"a": 1}, "headers": {"X-A": "b"}})]')
    assert [step.title for step in steps] == ["GET /?a=1", "POST /"]
    assert steps[1].content([]) == ([("x-a", "b"), ("content-type", "application/json")], b'{"a": 1}')


@pytest.mark.parametrize(
    ("options", "kind", "body"),
    [
        ({"form": {"a": "b c"}}, "application/x-www-form-urlencoded", b"a=b+c"),
        ({"body": "text"}, None, b"text"),
        ({"file": ["f", "a.txt", "hello"]}, "multipart/form-data; boundary=unsticky-boundary", None),
        (lambda seen: {"json": len(seen)}, "application/json", b"2"),
    ],
)
def test_bodies(options: Any, kind: str | None, body: bytes | None) -> None:
    headers, sent = Step("POST", "/", options).content(["first", "second"])
    assert dict(headers).get("content-type") == kind
    assert sent == body if body is not None else b'filename="a.txt"' in sent and b"\r\n\r\nhello\r\n" in sent


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no SCRIPT"),
        ("SCRIPT = []", "has no requests"),
        ("SCRIPT = 5", "must be a list"),
        ('SCRIPT = [("GET",)]', r"SCRIPT\[0\]: expected"),
        ('SCRIPT = [("GET", "/"), ("FETCH", "/")]', r"SCRIPT\[1\]: 'FETCH' is no method"),
        ('SCRIPT = [("GET", "cart")]', "must begin with a slash"),
        ('SCRIPT = [("GET", "/", 5)]', "options must be a mapping"),
        ('SCRIPT = [("POST", "/", {"jsn": 1})]', "unknown option 'jsn'"),
        ('SCRIPT = [("POST", "/", {"json": 1, "form": {}})]', "one body"),
        ('SCRIPT = [("GET", "/", {"headers": {"x-a": "b\\r\\nx-c: d"}})]', "the header x-a has a line break"),
        ('SCRIPT = [("GET", "/", {"headers": {"x a": "b"}})]', "'x a' is no header's name"),
        ("import nothing_of_that_name", "can't be run: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_with_a_script_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ScriptError, match=told):
        loaded(tmp_path, text)


def test_no_such_file() -> None:
    with pytest.raises(ScriptError, match="no such file"):
        script.load("nowhere.py")


def test_a_recording_without_its_cookies_and_other_origins(tmp_path: Path) -> None:
    def entry(url: str, **more: Any) -> dict[str, Any]:
        return {"request": {"method": "GET", "url": url, "headers": [], **more}}

    sent = [{"name": "Cookie", "value": "s=1"}, {"name": "Accept", "value": "text/html"}]
    document = {
        "log": {
            "entries": [
                entry("http://shop/a?b=1", headers=sent),
                entry("http://ads/pixel"),
                {"request": {"method": "POST", "url": "http://shop/c", "headers": [], "postData": {"text": "x=1"}}},
            ]
        }
    }
    steps = loaded(tmp_path, json.dumps(document), "recorded.har")
    assert [step.title for step in steps] == ["GET /a?b=1", "POST /c"]
    assert steps[0].content([]) == ([("accept", "text/html")], b"")
    assert steps[1].content([])[1] == b"x=1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"log": {}}', "log.entries: 'entries' is missing"),
        ('{"log": {"entries": [{}]}}', r"log.entries\[0\].request: 'request' is missing"),
        ('{"log": {"entries": [{"request": {"method": "GET"}}]}}', r"log.entries\[0\].request: 'url' is missing"),
        (
            '{"log": {"entries": [{"request": {"method": "GET", "url": "http://a/", "headers": '
            '[{"name": "x-a", "value": "b\\nc"}]}}]}}',
            r"log.entries\[0\].request: GET /: the header x-a has a line break",
        ),
        ("[]", "is no HAR recording"),
        ("{}", "is no HAR recording"),
        ("nonsense", "is no JSON"),
    ],
)
def test_files_that_are_no_scripts(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ScriptError, match=told):
        loaded(tmp_path, text, "x.har")


def test_yaml_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="YAML is not read; save the OpenAPI document as JSON"):
        loaded(tmp_path, "openapi: 3.1.0", "api.yaml")


NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
PAGE = {"name": "page", "in": "query", "required": True, "schema": {"type": "integer", "minimum": 3}}


def body(schema: str) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


OPENAPI = {
    "paths": {
        "/items/{name}": {"parameters": [NAME], "get": {"parameters": [PAGE]}, "delete": {}},
        "/items": {"post": {"requestBody": body("Item")}},
        "/tree": {"put": {"requestBody": body("Node")}},
    },
    "components": {
        "schemas": {
            "Item": {
                "type": "object",
                "required": ["name", "tags", "kind"],
                "properties": {
                    "name": {"type": "string", "example": "tea"},
                    "tags": {"type": "array", "items": {"type": "integer"}},
                    "kind": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]},
                    "note": {"type": "string"},
                },
            },
            "Node": {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/Node"}}},
        }
    },
}


def test_an_openapi_document_is_a_script(tmp_path: Path) -> None:
    steps = loaded(tmp_path, json.dumps(OPENAPI), "openapi.json")
    assert [step.title for step in steps] == [
        "POST /items",
        "PUT /tree",
        "GET /items/text?page=3",
        "DELETE /items/text",
    ]
    assert json.loads(steps[0].content([])[1]) == {"name": "tea", "tags": [1], "kind": "a"}


def test_openapi_of_an_app_without_one() -> None:
    with pytest.raises(ScriptError, match="no OpenAPI document"):
        script.load("openapi")


def steps_of(turns: Any) -> list[tuple[int, int]]:
    return [(turn.step, turn.boot) for turn in turns]


def test_schedules() -> None:
    assert steps_of(control(range(3), 1)) == [(0, 1), (1, 1), (2, 1)]
    assert steps_of(rotate(range(4), 3)) == [(0, 0), (1, 1), (2, 2), (3, 0)]
    turns = amnesia(range(4), 3)
    assert steps_of(turns) == [(0, 0), (1, 1), (2, 2), (3, 0)]
    assert {turn.replica for turn in turns} == {FRESH}


def test_a_broadcast_sends_reads_to_all_and_writes_to_one_after_the_other() -> None:
    steps = (Step("GET", "/"), Step("POST", "/"), Step("POST", "/b"), Step("GET", "/"))
    longer = expanded(steps, 3)
    assert longer == (0, 0, 0, 1, 2, 3, 3, 3)
    turns = broadcast(longer, 3)
    assert {turn.boot for turn in turns if turn.step == 0} == {0, 1, 2}
    assert {turn.boot for turn in turns if turn.step == 3} == {0, 1, 2}
    writes = [turn.boot for turn in turns if turn.step in (1, 2)]
    assert writes[0] != writes[1]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (lambda seen: None, "gave None; expected a path"),
        (lambda seen: "cart", "gave 'cart'; expected a path"),
        (lambda seen: seen[4], "its path's function: IndexError"),
    ],
)
def test_a_function_that_makes_no_path(path: Any, told: str) -> None:
    with pytest.raises(ScriptError, match=told):
        Step("GET", path).target([])


def test_an_exception_of_a_fork_is_of_its_own_class() -> None:
    raised = _again(__name__, "Odd", ["ab"])
    assert type(raised) is Odd
    assert raised.args == ("ab",)


class Odd(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)
