"""Compares schema.graphql and /openapi.json with those of the last release, in `.release/`.

`check` fails on a change that breaks clients, unless README.md names it in a section of "Changes"
above that of the last release: with the very words that `check` prints. `release` makes the
contract of the code that of the last release; the newest section must be for its version.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from graphql import build_schema, find_breaking_changes

from app.graphql.schema import print_schema
from app.main import input_limits
from app.openapi import openapi_document
from app.rest import ACTIVITY_PATH
from app.settings import Settings

ROOT: Final = Path(__file__).parent.parent
RELEASE: Final = ROOT / ".release"

TEXTS: Final = {"description", "example", "examples", "info", "summary", "tags", "title"}
NARROWING: Final = {
    *("$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "format", "maxItems"),
    *("maxLength", "maximum", "minItems", "minLength", "minimum", "multipleOf", "not", "oneOf"),
    *("pattern", "required", "security", "type", "uniqueItems"),
}
"""Members of the document that can refuse what was accepted before, where they are added."""


class Contract(NamedTuple):
    schema: str
    openapi: dict[str, Any]


def contract_of_code() -> Contract:
    return Contract(print_schema(), openapi_document(ACTIVITY_PATH, input_limits(Settings())))


def read_contract(folder: Path) -> Contract:
    openapi = json.loads((folder / "openapi.json").read_text())
    return Contract((folder / "schema.graphql").read_text(), openapi)


def write_contract(contract: Contract, folder: Path) -> None:
    (folder / "schema.graphql").write_text(contract.schema)
    (folder / "openapi.json").write_text(json.dumps(contract.openapi, indent=1) + "\n")


def breaking_changes(old: Contract, new: Contract) -> list[str]:
    """Return a line for each change that can break a client.

    Of OpenAPI that is every change that is neither an addition nor a text: more than would break
    any client, but none is missed.
    """
    schemas = build_schema(old.schema), build_schema(new.schema)
    graphql = [f"GraphQL: {change.description}" for change in find_breaking_changes(*schemas)]
    return graphql + [f"OpenAPI: {line}" for line in _differences(old.openapi, new.openapi, ())]


def unnamed(changes: list[str], readme: str, last_version: str) -> list[str]:
    """Return the changes that no section above that of the last release names."""
    new, _, _ = _changes(readme).partition(f"\n### {last_version}")
    words = _words(new)
    return [change for change in changes if _words(change) not in words]


def _changes(readme: str) -> str:
    _, _, rest = readme.partition("\n## Changes\n")
    return rest.partition("\n## ")[0]


def _words(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def _differences(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[str]:
    if type(old) is not type(new):
        yield _changed(old, new, path)
    elif isinstance(old, dict):
        yield from _of_members(old, new, path)
    elif path[-1] == "parameters":
        yield from _of_members(_by_name(old), _by_name(new), path)
    elif old != new:
        yield _changed(old, new, path)


def _of_members(
    old: Mapping[str, Any], new: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[str]:
    are_names = path[-1:] == ("properties",)  # where one may be called "title"
    for name, value in old.items():
        if name not in TEXTS or are_names:
            if name in new:
                yield from _differences(value, new[name], (*path, name))
            else:
                yield f"{_at(*path, name)} was removed."
    for name in new.keys() - old.keys():
        is_demanded = path[-1:] == ("parameters",) and new[name].get("required")
        if is_demanded or (name in NARROWING and not are_names):
            yield f"{_at(*path, name)} was added."


def _by_name(parameters: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{one['in']} {one['name']}": one for one in parameters}


def _changed(old: Any, new: Any, path: tuple[str, ...]) -> str:
    return f"{_at(*path)} changed from {json.dumps(old)} to {json.dumps(new)}."


def _at(*path: str) -> str:
    return " > ".join(path)


def check() -> int:
    last = read_contract(RELEASE)
    readme = (ROOT / "README.md").read_text()
    wrong = unnamed(
        breaking_changes(last, contract_of_code()), readme, last.openapi["info"]["version"]
    )
    if wrong:
        print(
            "These changes break clients of the last release. Undo them, or name them with these "
            "words in a newer section of README.md's Changes:",
            *wrong,
            sep="\n",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def release() -> int:
    newest = re.search(r"^### (\S+)", _changes((ROOT / "README.md").read_text()), re.MULTILINE)
    if newest is None or newest[1] != version("ticket-activity"):
        print(
            f"The newest section of README.md's Changes must be {version('ticket-activity')}, as "
            "pyproject.toml has it.",
            file=sys.stderr,
        )
        return 1
    RELEASE.mkdir(exist_ok=True)
    write_contract(contract_of_code(), RELEASE)
    return 0


if __name__ == "__main__":
    sys.exit({"check": check, "release": release}[sys.argv[1]]())
