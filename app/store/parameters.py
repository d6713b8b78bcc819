"""Parameters that hold any number of values, so that the text of a statement does not change.

A statement is then prepared once. SQLite uses an index for these; for pairs written as a list into
the statement it does not.
"""

from collections.abc import Iterable
from typing import Any, Self
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Dialect,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.json_text import dump_json


class _JsonList(TypeDecorator[Any]):
    """Values, or tuples of values, sent as a JSON array that the statement reads."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[Any] | None, dialect: Dialect) -> str:  # noqa: ARG002
        return dump_json([_stored(item) for item in value or ()])


class _ArrayText(TypeDecorator[Any]):
    """Values as the text of an array: asyncpg would ask the engine what an array is."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[Any] | None, dialect: Dialect) -> str:  # noqa: ARG002
        return "{" + ",".join(_quoted(str(item)) for item in value or ()) + "}"


def _quoted(item: str) -> str:
    escaped = item.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _stored(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    return [_stored(item) for item in value] if isinstance(value, tuple) else value


class Condition(FunctionElement[bool]):
    """A condition that each engine writes in its own way, by a function under `compiles`."""

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Self:  # noqa: ARG002
        """Return the condition as it is: SQLAlchemy would add `= 1`, and no index be used."""
        return self


class _IsAmong(Condition):
    """The condition that a column has one of the values of a parameter."""

    inherit_cache = True


class _AreAmong(_IsAmong):
    """The condition that two columns have one of the pairs of values of a parameter."""

    inherit_cache = True


def is_among(column: Column[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column has one of the values of a parameter."""
    return _IsAmong(column, bindparam(name, type_=_JsonList))


def are_among(first: Column[Any], second: Column[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that two columns have one of the pairs of values of a parameter."""
    return _AreAmong(first, second, bindparam(name, type_=_JsonList))


def _member(place: int) -> ColumnElement[str]:
    """Return a member of a tuple that the engine has unfolded."""
    return literal_column(f"value ->> {place}", Text)


@compiles(_IsAmong, "sqlite")
def _is_among_on_sqlite(element: _IsAmong, compiler: SQLCompiler, **options: Any) -> str:
    column, parameter = element.clauses
    values = func.json_each(parameter).table_valued("value")
    return compiler.process(column.in_(select(values.c.value)), **options)


@compiles(_IsAmong, "postgresql")
def _is_among_on_postgresql(element: _IsAmong, compiler: SQLCompiler, **options: Any) -> str:
    column, parameter = element.clauses
    values = cast(bindparam(parameter.key, type_=_ArrayText), ARRAY(column.type))
    return compiler.process(column == any_(values), **options)


@compiles(_AreAmong, "sqlite")
def _are_among_on_sqlite(element: _AreAmong, compiler: SQLCompiler, **options: Any) -> str:
    *columns, parameter = element.clauses
    pairs = func.json_each(parameter).table_valued("value")
    members = [_member(place) for place in range(len(columns))]
    is_member = tuple_(*columns).in_(select(*members).select_from(pairs))
    return compiler.process(is_member, **options)


@compiles(_AreAmong, "postgresql")
def _are_among_on_postgresql(element: _AreAmong, compiler: SQLCompiler, **options: Any) -> str:
    *columns, parameter = element.clauses
    pairs = func.json_array_elements(cast(parameter, JSON)).table_valued("value")
    members = [cast(_member(place), column.type) for place, column in enumerate(columns)]
    is_member = tuple_(*columns).in_(select(*members).select_from(pairs))
    return compiler.process(is_member, **options)
