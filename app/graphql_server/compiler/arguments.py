"""Coerce the arguments of a field, from the document and the variables."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeAlias

from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLField,
    ListValueNode,
    ObjectValueNode,
    Undefined,
    ValueNode,
    VariableNode,
)
from graphql.execution.values import get_argument_values
from graphql.type import is_non_null_type, is_required_argument
from graphql.utilities import coerce_input_literal
from graphql.utilities.coerce_input_value import coerce_default_value

from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.plan import IMMUTABLE_TYPES, NotCompilable

Arguments: TypeAlias = dict[str, Any]
CoerceArguments: TypeAlias = Callable[[Execution], Arguments]
_Read: TypeAlias = Callable[[Execution], Any]


class _DoesNotFit(Exception):
    """A value does not fit. graphql-core then raises the GraphQLError that says why."""


def compile_arguments(
    definition: GraphQLField,
    node: FieldNode,
    hide_suggestions: bool,
    names: Mapping[str, str] | None = None,
) -> CoerceArguments:
    """Return the function that coerces the arguments. It raises GraphQLError.

    `names` maps arguments to the names they get in its result.
    """
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    readers = [
        (argument.out_name or name, _reader(argument, given.get(name)))
        for name, argument in definition.args.items()
    ]
    readers = [(names[name] if names else name, read) for name, read in readers]

    def coerce(execution: Execution) -> Arguments:
        values: Arguments = {}
        try:
            for name, read in readers:
                value = read(execution)
                if value is not Undefined:
                    values[name] = value
        except _DoesNotFit:
            variables = execution.core.variable_values
            return get_argument_values(definition, node, variables, None, hide_suggestions)
        return values

    return coerce


def _reader(argument: GraphQLArgument, value: ValueNode | None) -> _Read:
    """Return the function that reads one argument. Undefined stands for absent."""
    if value is None:
        if is_required_argument(argument):
            raise NotCompilable("A required argument is missing.")
        return _constant(_default(argument))
    if isinstance(value, VariableNode):
        return _variable(argument, value.name.value)
    if not isinstance(value, ListValueNode | ObjectValueNode):
        constant = coerce_input_literal(value, argument.type)
        if type(constant) in IMMUTABLE_TYPES or isinstance(constant, Enum):
            return _constant(constant)
    return _literal(argument, value)


def _default(argument: GraphQLArgument) -> Any:
    try:
        return coerce_default_value(argument)
    except TypeError as error:
        raise NotCompilable(str(error)) from error


def _constant(value: Any) -> _Read:
    return lambda _: value


def _variable(argument: GraphQLArgument, name: str) -> _Read:
    is_required, is_non_null = is_required_argument(argument), is_non_null_type(argument.type)
    default = Undefined if is_required else _default(argument)

    def read(execution: Execution) -> Any:
        value = execution.variables.get(name, Undefined)
        if value is Undefined:
            if is_required:
                raise _DoesNotFit
            return default
        if value is None and is_non_null:
            raise _DoesNotFit
        return value

    return read


def _literal(argument: GraphQLArgument, node: ValueNode) -> _Read:
    """Coerce a literal in each execution: it may hold variables, and resolvers may mutate it."""

    def read(execution: Execution) -> Any:
        value = coerce_input_literal(node, argument.type, execution.core.variable_values)
        if value is Undefined:
            raise _DoesNotFit
        return value

    return read
