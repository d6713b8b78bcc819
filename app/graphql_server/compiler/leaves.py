"""Complete the values of scalars and enums."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLID,
    GraphQLScalarType,
    GraphQLString,
    Undefined,
)
from graphql.pyutils import inspect
from strawberry.schema.schema_converter import CustomGraphQLEnumType

from app.graphql_server.compiler.plan import (
    IMMUTABLE_TYPES,
    JSON_TYPES,
    is_awaitable,
    is_never_awaitable,
)

LeafType: TypeAlias = GraphQLScalarType | GraphQLEnumType

_UNCHANGED: dict[object, type] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}


@dataclass(slots=True, frozen=True)
class Leaf:
    """A scalar or an enum. `null_message` is the error of a null where it is non-null.

    A value of exactly the class `unchanged` needs no completion. One of the classes `plain` is no
    awaitable and no error: `coerce` converts it, and `check` checks the result.
    """

    leaf_type: LeafType
    null_message: str | None
    unchanged: type | None
    plain: frozenset[type]
    coerce: Callable[[Any], Any]

    def complete(self, value: Any) -> Any:
        """Complete any value; the result may be a coroutine object."""
        if value is None or value is Undefined:
            if self.null_message is None:
                return None
            raise TypeError(self.null_message)
        if isinstance(value, Exception):
            raise value
        coerce = self.coerce if type(value) in self.plain else self.leaf_type.coerce_output_value
        return self.check(value, coerce(value))

    def check(self, value: Any, coerced: Any) -> Any:
        if type(coerced) in JSON_TYPES:
            return coerced
        if coerced is None or coerced is Undefined:
            call = f"{inspect(self.leaf_type)}.coerce_output_value({inspect(value)})"
            raise TypeError(
                f"Expected `{call}` to return non-nullable value, returned: {inspect(coerced)}"
            )
        return _coroutine(coerced) if is_awaitable(coerced) else coerced


async def _coroutine(awaitable: Any) -> Any:
    return await awaitable


def compile_leaf(type_: LeafType, null_message: str | None) -> Leaf:
    names = dict(_names(type_))
    if not names:
        plain = (JSON_TYPES | IMMUTABLE_TYPES) - {type(None)}
        coerce: Any = type_.coerce_output_value
        return Leaf(type_, null_message, _UNCHANGED.get(type_), plain, coerce)

    def coerce_member(value: Any) -> Any:
        return names.get(value) or type_.coerce_output_value(value)

    return Leaf(type_, null_message, None, frozenset(map(type, names)), coerce_member)


def _names(type_: LeafType) -> Iterator[tuple[Enum, str]]:
    """Yield the members of a Strawberry enum with their names in the schema."""
    wrapped = type_.wrapped_cls if isinstance(type_, CustomGraphQLEnumType) else None
    if isinstance(wrapped, type) and issubclass(wrapped, Enum) and is_never_awaitable(wrapped):
        for member in wrapped:
            with suppress(ValueError):  # a member that is not in the schema
                yield member, type_.coerce_output_value(member)
