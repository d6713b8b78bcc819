"""Complete the value that a resolver returned, by the type of its field."""

from collections.abc import Callable
from typing import Any, NamedTuple

from graphql import (
    GraphQLAbstractType,
    GraphQLEnumType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLUnionType,
)
from graphql.pyutils import Path

from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.leaves import Leaf, compile_leaf
from app.graphql_server.compiler.lists import compile_list
from app.graphql_server.compiler.objects import compile_abstract, compile_object, own_class
from app.graphql_server.compiler.plan import Complete, FieldPlan, NotCompilable, Select


class Subfields(NamedTuple):
    """Compiles the selection set of a field for one object type; names the possible types."""

    select: Callable[[GraphQLObjectType, FieldPlan], Select]
    possible_types: Callable[[GraphQLAbstractType], list[GraphQLObjectType]]


def compile_type(type_: GraphQLOutputType, plan: FieldPlan, subfields: Subfields) -> Complete:
    """Return the function that completes values of the type."""
    if leaf := leaf_of(type_, plan):
        return _counted(leaf)
    match type_:
        case GraphQLNonNull():
            return _non_null(compile_type(type_.of_type, plan, subfields), plan)
        case GraphQLList():
            item = type_.of_type
            complete = compile_type(item, plan, subfields)
            return compile_list(type_, plan, complete, plain_class(item))
        case GraphQLObjectType():
            return compile_object(type_, plan, subfields.select(type_, plan))
        case GraphQLInterfaceType() | GraphQLUnionType():
            objects = {
                possible.name: compile_object(possible, plan, subfields.select(possible, plan))
                for possible in subfields.possible_types(type_)
            }
            return compile_abstract(type_, objects, plan)
    raise NotCompilable(f"{type_} is no type of an output.")


def leaf_of(type_: GraphQLOutputType, plan: FieldPlan) -> Leaf | None:
    """Return the completion of the type if it is a leaf or a non-null leaf, else None."""
    match type_:
        case GraphQLScalarType() | GraphQLEnumType():
            return compile_leaf(type_, None)
        case GraphQLNonNull(of_type=GraphQLScalarType() | GraphQLEnumType() as leaf):
            return compile_leaf(leaf, _null_message(plan))
    return None


def needs_info(type_: GraphQLOutputType) -> bool:
    """Return whether completing the type calls a function of the schema that takes the info."""
    while isinstance(type_, GraphQLNonNull | GraphQLList):
        type_ = type_.of_type
    if isinstance(type_, GraphQLObjectType):
        return type_.is_type_of is not None and own_class(type_) is None
    return isinstance(type_, GraphQLInterfaceType | GraphQLUnionType)


def plain_class(type_: GraphQLOutputType) -> type | None:
    """Return the class whose instances are values of the type and never awaitable, if any."""
    named = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
    return own_class(named) if isinstance(named, GraphQLObjectType) else None


def _counted(leaf: Leaf) -> Complete:
    def complete_leaf(value: Any, _path: Path, _info: Any, execution: Execution) -> Any:
        completed = value if type(value) is leaf.unchanged else leaf.complete(value)
        if completed is not None:
            execution.size.add_leaf(completed)
        return completed

    return complete_leaf


def _non_null(complete: Complete, plan: FieldPlan) -> Complete:
    message = _null_message(plan)

    def complete_non_null(value: Any, path: Path, info: Any, execution: Execution) -> Any:
        completed = complete(value, path, info, execution)
        if completed is None:
            raise TypeError(message)
        return completed

    return complete_non_null


def _null_message(plan: FieldPlan) -> str:
    name = plan.details[0].node.name.value
    return f"Cannot return null for non-nullable field {plan.parent_type}.{name}."
