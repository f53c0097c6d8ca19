"""The JSON Schema in the package is that of the tree in the code."""

from __future__ import annotations

import json
from typing import Any

from unsticky.settings import schema


def test_the_shipped_schema_is_the_generated_one() -> None:
    """After a change of options: python -m unsticky.settings.schema."""
    assert schema.shipped() == schema.generate()


def tables() -> dict[str, dict[str, Any]]:
    document = json.loads(schema.shipped())
    return {"": document, **document["$defs"]}


def test_unknown_keys_are_refused_everywhere() -> None:
    """Editors mark a misspelt key in every table."""
    assert all(table["additionalProperties"] is False for table in tables().values())


def test_everything_is_described() -> None:
    """Each key has a description, its own or that of the table it leads to."""
    for name, table in tables().items():
        assert table["description"], name
        for key, value in table["properties"].items():
            assert value.get("description") or "$ref" in value, f"{name}.{key}"


def test_rules_and_defaults_are_in_it() -> None:
    """Ranges, choices, patterns and defaults come from the same metadata that the reader uses."""
    retry, pool, session = tables()["retry"], tables()["pool"], tables()["session"]
    assert retry["properties"]["attempts"] == {
        "description": "In all, the first included; 1 turns retries off.",
        "type": "integer",
        "minimum": 1,
        "default": 3,
    }
    assert "least_request" in pool["properties"]["balancer"]["enum"]
    assert "required" not in pool, "endpoints are listed, or found"
    assert tables()["endpoint"]["required"] == ["url"]
    assert pool["properties"]["endpoints"]["items"]["anyOf"][1] == {"$ref": "#/$defs/endpoint"}
    assert retry["properties"]["backoff"]["default"] == "25ms"
    assert session["properties"]["secret_keys"]["items"]["writeOnly"] is True
