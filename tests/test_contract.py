"""A change that breaks clients of the last release is noticed, and passes where it is named."""

from copy import deepcopy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ROOT

SPEC = spec_from_file_location("contract", ROOT / "scripts/contract.py")
assert SPEC
assert SPEC.loader
contract: Any = module_from_spec(SPEC)
SPEC.loader.exec_module(contract)

OLD = contract.Contract(
    "type Query { ticket(id: ID!): Ticket } type Ticket { id: ID! title: String }",
    {
        "info": {"version": "1.0.0"},
        "paths": {
            "/tickets/{id}": {
                "put": {
                    "description": "Change it.",
                    "parameters": [{"in": "header", "name": "If-Match", "required": False}],
                    "requestBody": {"schema": {"$ref": "#/components/schemas/Update"}},
                    "responses": {"200": {"description": "Done."}, "404": {"description": "None."}},
                }
            }
        },
        "components": {
            "schemas": {
                "Update": {
                    "required": ["title"],
                    "properties": {"title": {"type": "string", "description": "A title."}},
                }
            }
        },
    },
)
PUT = ("paths", "/tickets/{id}", "put")
UPDATE = ("components", "schemas", "Update")
REMOVED = "GraphQL: Field Ticket.title was removed."


def breaks(schema: str = OLD.schema, openapi: object = OLD.openapi) -> list[str]:
    found: list[str] = contract.breaking_changes(OLD, contract.Contract(schema, openapi))
    return found


def changed(*path: str | int, value: object) -> dict[str, Any]:
    """Return the document with a member changed, or without it where the value is None."""
    document: dict[str, Any] = deepcopy(OLD.openapi)
    *outer, last = path
    inner: Any = document
    for name in outer:
        inner = inner[name]
    if value is None:
        del inner[last]
    elif isinstance(inner, list):
        inner.append(value)
    else:
        inner[last] = value
    return document


def test_a_release_does_not_differ_from_itself() -> None:
    assert breaks() == []


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        (OLD.schema.replace(" title: String", ""), "Ticket.title"),
        (OLD.schema.replace("title: String", "title: Int"), "Ticket.title"),
        (OLD.schema.replace("id: ID!)", "id: ID!, in: ID!)"), "in"),
    ],
)
def test_a_breaking_change_of_the_schema_is_noticed(schema: str, word: str) -> None:
    [line] = breaks(schema)

    assert line.startswith("GraphQL: ")
    assert word in line


def test_an_addition_to_the_schema_breaks_nothing() -> None:
    added = OLD.schema.replace("title: String", "title: String state: Int")
    assert breaks(added.replace("id: ID!)", "id: ID!, in: ID)")) == []


@pytest.mark.parametrize(
    ("openapi", "where"),
    [
        (changed(*PUT, value=None), "paths > /tickets/{id} > put"),
        (changed(*PUT, "responses", "404", value=None), "responses > 404"),
        (changed(*UPDATE, "properties", "title", value=None), "properties > title"),
        (changed(*UPDATE, "properties", "title", "type", value="integer"), "title > type"),
        (changed(*UPDATE, "properties", "title", "maxLength", value=9), "title > maxLength"),
        (changed(*UPDATE, "required", value=["title", "state"]), "Update > required"),
        (
            changed(*PUT, "parameters", 1, value={"in": "query", "name": "a", "required": True}),
            "query a",
        ),
        (changed(*PUT, "parameters", 0, "required", value=True), "header If-Match > required"),
    ],
)
def test_a_breaking_change_of_openapi_is_noticed(openapi: object, where: str) -> None:
    [line] = breaks(openapi=openapi)

    assert line.startswith("OpenAPI: ")
    assert where in line


@pytest.mark.parametrize(
    "openapi",
    [
        changed(*PUT, "description", value="Change the ticket."),
        changed("info", "version", value="1.1.0"),
        changed(*PUT, "responses", "409", value={"description": "Merged."}),
        changed("paths", "/tickets/{id}", "get", value={}),
        changed(*UPDATE, "properties", "required", value={"type": "boolean"}),
        changed(*UPDATE, "properties", "title", "description", value="The title."),
        changed(*PUT, "parameters", 1, value={"in": "query", "name": "a"}),
    ],
)
def test_an_addition_to_openapi_or_another_text_breaks_nothing(openapi: object) -> None:
    assert breaks(openapi=openapi) == []


@pytest.mark.parametrize(
    ("readme", "left"),
    [
        ("## Changes\n\n### 1.1.0\n\n- {}\n\n### 1.0.0\n\n## More\n", []),
        ("## Changes\n\n### 1.1.0\n\n### 1.0.0\n\n- {}\n\n## More\n", [REMOVED]),
        ("## Changes\n\n### 1.1.0\n\n### 1.0.0\n\n## More\n\n- {}\n", [REMOVED]),
        ("## Changes\n\n### 1.0.0\n", [REMOVED]),
    ],
)
def test_a_breaking_change_passes_where_a_newer_section_names_it(
    readme: str, left: list[str]
) -> None:
    named = "\n" + readme.format("GraphQL: Field `Ticket.title`\n  was removed. Ask for `name`.")

    assert contract.unnamed([REMOVED], named, "1.0.0") == left


def test_the_check_compares_the_code_with_the_last_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = contract.contract_of_code()
    released = code.schema.replace(
        "type Ticket implements Node {", "type Ticket implements Node {\n  old: Int"
    )
    monkeypatch.setattr(contract, "RELEASE", tmp_path)

    contract.write_contract(code, tmp_path)
    assert contract.check() == 0
    contract.write_contract(code._replace(schema=released), tmp_path)
    assert contract.check() == 1

    assert "GraphQL: Field Ticket.old was removed." in capsys.readouterr().err.splitlines()
