"""JSON written as a GraphQL literal, with variables in it, as a Python value."""

from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from graphql import (
    FloatValueNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    Undefined,
    ValueNode,
    VariableNode,
)

from app.activity.values import format_datetime
from app.numerals import parse_decimal

_INTEGER_LENGTH = 21
"""A longer integer is beyond 64 bits whatever follows, and Python refuses thousands of digits."""


def parse_json_literal(node: ValueNode, variables: dict[str, Any] | None) -> Any:
    """Return the value of a literal; Undefined for a variable that was not given.

    An object leaves out a member whose variable was not given, a list has null in its place
    (GraphQL, section 3.10 Input Objects and 3.11 List).
    """
    match node:
        case ObjectValueNode():
            members = {m.name.value: parse_json_literal(m.value, variables) for m in node.fields}
            return {name: value for name, value in members.items() if value is not Undefined}
        case ListValueNode():
            items = [parse_json_literal(item, variables) for item in node.values]
            return [None if item is Undefined else item for item in items]
        case VariableNode():
            return _as_json((variables or {}).get(node.name.value, Undefined))
        case NullValueNode():
            return None
        case IntValueNode():
            return int(node.value[:_INTEGER_LENGTH])
        case FloatValueNode():
            return parse_decimal(node.value)
        case _:
            return node.value  # type: ignore[attr-defined] # a string, a boolean or an enum value


def _as_json(value: Any) -> Any:
    """Return the value of a variable as JSON, as the schema writes the type it was declared with.

    An input object stays as it is: what it holds beside JSON is refused with the other limits.
    """
    match value:
        case UUID():
            return str(value)
        case datetime():
            return format_datetime(value)
        case Enum():
            return value.name
        case list():
            return [_as_json(item) for item in value]
    return value
