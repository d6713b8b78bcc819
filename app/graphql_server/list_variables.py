"""Limits lists and objects in variables, before graphql-core coerces their items.

What is written in the document is limited by its number of tokens.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from graphql import (
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    OperationDefinitionNode,
    is_input_type,
    type_from_ast,
)

from app.errors import InvalidInput

_UNKNOWN_MEMBERS: Final = 100


class ListVariable(NamedTuple):
    """A variable of an operation whose type is a list or an input object that may hold one."""

    name: str
    type: GraphQLInputType


def list_variables(
    schema: GraphQLSchema, operation: OperationDefinitionNode
) -> tuple[ListVariable, ...]:
    """Return the variables of a valid operation that `check_lists` has to look at."""
    return tuple(
        ListVariable(definition.variable.name.value, type_)
        for definition in operation.variable_definitions or ()
        if is_input_type(type_ := type_from_ast(schema, definition.type))
        and _may_hold_lists(type_, frozenset())
    )


def _may_hold_lists(type_: GraphQLInputType, around: frozenset[str]) -> bool:
    match type_:
        case GraphQLNonNull():
            return _may_hold_lists(type_.of_type, around)
        case GraphQLList():
            return True
        case GraphQLInputObjectType() if type_.name not in around:
            around |= {type_.name}
            return any(_may_hold_lists(one.type, around) for one in type_.fields.values())
    return False


def check_lists(
    variables: Mapping[str, Any], listed: tuple[ListVariable, ...], maximum: int
) -> None:
    """Raise InvalidInput for a list of more than `maximum` items, at any depth of the variables.

    Values of the wrong type are ignored here; the coercion that follows refuses them.
    """
    for name, type_ in listed:
        _check(variables.get(name), type_, maximum, f"${name}")


def _check(value: object, type_: GraphQLInputType, maximum: int, place: str) -> None:
    if isinstance(type_, GraphQLNonNull):
        _check(value, type_.of_type, maximum, place)
    elif isinstance(type_, GraphQLList) and isinstance(value, list):
        if len(value) > maximum:
            raise InvalidInput(f"{place} holds {len(value)} items; the limit is {maximum}.")
        if _may_hold_lists(type_.of_type, frozenset()):
            for index, item in enumerate(value):
                _check(item, type_.of_type, maximum, f"{place}.{index}")
    elif isinstance(type_, GraphQLInputObjectType) and isinstance(value, dict):
        for name, field in type_.fields.items():
            if name in value:
                _check(value[name], field.type, maximum, f"{place}.{name}")


def check_members(value: object, type_: GraphQLInputType, place: str) -> None:
    """Raise InvalidInput for an object with many more members than its type has fields.

    For each unknown one of the first errors graphql-core copies the whole object into a message.
    """
    while isinstance(type_, GraphQLNonNull):
        type_ = type_.of_type
    if isinstance(type_, GraphQLList) and isinstance(value, list):
        for index, item in enumerate(value):
            check_members(item, type_.of_type, f"{place}.{index}")
    elif isinstance(type_, GraphQLInputObjectType) and isinstance(value, dict):
        if len(value) > len(type_.fields) + _UNKNOWN_MEMBERS:
            raise InvalidInput(
                f"{place} has {len(value)} members; {type_} has {len(type_.fields)} fields."
            )
        for name, field in type_.fields.items():
            check_members(value.get(name), field.type, f"{place}.{name}")
