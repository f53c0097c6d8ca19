"""Requests made of an OpenAPI document: one per operation, with examples, defaults or plain values for what it needs.

Only what needs no foresight is made: an operation with a path parameter is asked about a plain value, and may well
answer 404. That is a response like any other. A script of one's own sees more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from ..errors import ScriptError
from .step import METHODS, Step

_PLAIN = {"string": "text", "integer": 1, "number": 1.5, "boolean": True}
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "email": "a@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}
_DEEPEST = 6  # levels of a value; documents may refer to themselves
_ORDER = ("POST", "PUT", "PATCH", "GET", "HEAD", "OPTIONS", "TRACE", "DELETE")  # what was made is read, then removed


def requests(document: Any, source: str) -> Iterator[Step]:
    """Each operation once. Raises ScriptError for what is no OpenAPI document."""
    paths = document.get("paths") if isinstance(document, Mapping) else None
    if not isinstance(paths, Mapping):
        raise ScriptError(f"{source}: is no OpenAPI document, it has no paths")
    operations = [
        (
            method.upper(),
            path,
            {**operation, "parameters": [*_parameters(item), *_parameters(operation)]},
        )
        for path, item in paths.items()
        if isinstance(item, Mapping)
        for method, operation in item.items()
        if method.upper() in METHODS and isinstance(operation, Mapping)
    ]
    for method, path, operation in sorted(operations, key=lambda one: _ORDER.index(one[0])):
        yield _Maker(document).step(method, path, operation)


def _parameters(holder: Mapping[str, Any]) -> Any:
    return holder.get("parameters", ())


class _Maker:
    """Makes values by the schemas of one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def step(self, method: str, path: str, operation: Mapping[str, Any]) -> Step:
        query: list[tuple[str, Any]] = []
        headers: dict[str, str] = {}
        for parameter in map(self._resolved, operation["parameters"]):
            name, place = parameter.get("name", ""), parameter.get("in")
            if place == "path":
                path = path.replace(f"{{{name}}}", quote(str(self._given(parameter)), safe=""))
            elif parameter.get("required") and place == "query":
                query.append((name, self._given(parameter)))
            elif parameter.get("required") and place == "header":
                headers[name] = str(self._given(parameter))
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        return Step(method, target, {**({"headers": headers} if headers else {}), **self._body(operation)})

    def _body(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        content = self._resolved(operation.get("requestBody", {})).get("content", {})
        for kind, option in (("application/json", "json"), ("application/x-www-form-urlencoded", "form")):
            if kind in content:
                return {option: self._given(content[kind])}
        if "multipart/form-data" in content:
            properties = self._resolved(content["multipart/form-data"].get("schema", {})).get(
                "properties", {"file": {}}
            )
            return {"file": [next(iter(properties), "file"), "a.txt", "text"]}
        return {}

    def _given(self, holder: Mapping[str, Any]) -> Any:
        """The example that a parameter or a media type has, or a value by its schema."""
        if "example" in holder:
            return holder["example"]
        for example in holder.get("examples", {}).values():
            if "value" in (resolved := self._resolved(example)):
                return resolved["value"]
        return self._value(holder.get("schema", {}), 0)

    def _value(self, schema: Any, depth: int) -> Any:
        schema = self._resolved(schema)
        for key in ("example", "default", "const"):
            if key in schema:
                return schema[key]
        for key in ("examples", "enum"):
            if schema.get(key):
                return schema[key][0]
        for key in ("anyOf", "oneOf", "allOf"):
            if schema.get(key):
                return self._of_many(key, schema[key], depth)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = next((one for one in kind if one != "null"), "string") if isinstance(kind, list) else kind
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return [self._value(schema.get("items", {}), depth + 1)] if depth < _DEEPEST else []
        if kind in ("integer", "number") and "minimum" in schema:
            return schema["minimum"]
        return _FORMATS.get(schema.get("format", ""), _PLAIN.get(kind))

    def _of_many(self, key: str, schemas: list[Any], depth: int) -> Any:
        if key != "allOf":
            return self._value(schemas[0], depth + 1) if depth < _DEEPEST else None
        parts = [self._value(schema, depth + 1) for schema in schemas] if depth < _DEEPEST else [None]
        return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()} or parts[0]

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        properties = schema.get("properties", {})
        wanted = {name: one for name, one in properties.items() if name in required or not required}
        return {name: self._value(one, depth + 1) for name, one in wanted.items()} if depth < _DEEPEST else {}

    def _resolved(self, value: Any) -> dict[str, Any]:
        """What a local reference refers to."""
        for _ in range(_DEEPEST):
            reference = value.get("$ref") if isinstance(value, Mapping) else None
            if not isinstance(reference, str) or not reference.startswith("#/"):
                break
            value = self._document
            for part in reference[2:].split("/"):
                value = value.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(value, Mapping) else {}
        return dict(value) if isinstance(value, Mapping) else {}
