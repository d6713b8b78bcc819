"""Parameters that hold any number of values, so that the text of a statement does not change.

A statement is then prepared once. SQLite uses an index for these; for pairs written as a list into
the statement it does not.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    Text,
    TypeDecorator,
    bindparam,
    func,
    literal_column,
    select,
    tuple_,
)

from app.json_text import dump_json


class _JsonList(TypeDecorator[Any]):
    """Values, or tuples of values, sent as a JSON array and read by `json_each`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[Any] | None, dialect: Dialect) -> str:  # noqa: ARG002
        return dump_json([_stored(item) for item in value or ()])


def _stored(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    return [_stored(item) for item in value] if isinstance(value, tuple) else value


def is_among(column: Column[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column has one of the values of a parameter."""
    values = func.json_each(bindparam(name, type_=_JsonList)).table_valued("value")
    return column.in_(select(values.c.value))


def are_among(first: Column[Any], second: Column[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that two columns have one of the pairs of values of a parameter."""
    pairs = func.json_each(bindparam(name, type_=_JsonList)).table_valued("value")
    members = select(literal_column("value ->> 0", Text), literal_column("value ->> 1", Text))
    return tuple_(first, second).in_(members.select_from(pairs))
