"""The scalars of the schema: strict when read, canonical when written."""

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, NewType, TypeAlias
from uuid import UUID

import strawberry
from graphql import ValueNode
from strawberry.types.scalar import ScalarDefinition

from app.activity import values
from app.activity.values import UUID_PATTERN, format_datetime, parse_datetime, parse_uuid
from app.errors import InvalidInput
from app.graphql.literals import parse_json_literal

JSONObject = NewType("JSONObject", dict[str, Any])

TicketID: TypeAlias = Annotated[
    strawberry.ID, strawberry.argument(description="The id of the ticket, a UUID.")
]
"""An argument. Whoever takes an ID that names something of ours reads it by `parse_uuid`."""


def _parse_json_object_literal(
    node: ValueNode, variables: dict[str, Any] | None = None
) -> values.JSONObject:
    return _parse_json_object(parse_json_literal(node, variables))


def _parse_json_object(value: object) -> values.JSONObject:
    if isinstance(value, dict):
        return value
    raise InvalidInput("A JSONObject must be a JSON object, not another kind of value.")


# Cached: pages of a timeline hold the same ids and times many times.
_write_uuid = lru_cache(maxsize=4096)(str)
_write_datetime = lru_cache(maxsize=4096)(format_datetime)

SCALARS: dict[object, ScalarDefinition] = {
    UUID: strawberry.scalar(
        name="UUID",
        description=(
            "A UUID as canonical text. Read in either case, always with hyphens and without "
            f"braces or prefix; written in lower case. Pattern: `{UUID_PATTERN}`."
        ),
        serialize=_write_uuid,
        parse_value=parse_uuid,
        specified_by_url="https://www.rfc-editor.org/rfc/rfc9562",
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description=(
            "A point in time as RFC 3339 text. Written in UTC with milliseconds and `Z`: "
            "`2026-11-23T15:07:05.514Z`. Read with any offset and at most nine decimals, of "
            "which three are kept."
        ),
        serialize=_write_datetime,
        parse_value=parse_datetime,
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    ),
    JSONObject: strawberry.scalar(
        name="JSONObject",
        description=(
            "A JSON object, never a bare value. Integers stay within 64 bits; a decimal that a "
            "64-bit float would round is refused; there is no NaN and no Infinity; strings hold "
            "no NUL and no half surrogate pairs. What is accepted comes back as the same JSON "
            "value."
        ),
        serialize=dict,
        parse_value=_parse_json_object,
        parse_literal=_parse_json_object_literal,
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
    ),
}
