"""Coerce the variables of an operation."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from graphql import GraphQLError, GraphQLSchema, Undefined, ValueNode, VariableDefinitionNode
from graphql.execution.get_variable_signature import (
    GraphQLVariableSignature,
    get_variable_signature,
)
from graphql.execution.values import VariableValues, VariableValueSource, get_variable_values
from graphql.type import is_non_null_type
from graphql.utilities import coerce_input_literal

from app.errors import InvalidInput
from app.graphql_server.compiler.input_types import Coerce, InputTypes
from app.graphql_server.compiler.plan import NotCompilable
from app.graphql_server.list_variables import check_members


class _Variable(NamedTuple):
    name: str
    signature: GraphQLVariableSignature
    default: ValueNode | None
    is_required: bool
    coerce: Coerce | None  # None: graphql-core coerces it


class _DoesNotFit(Exception):
    pass


class Variables:
    """The variables of one operation, their types looked up once."""

    def __init__(
        self,
        schema: GraphQLSchema,
        definitions: Sequence[VariableDefinitionNode],
        input_types: InputTypes,
        *,
        max_errors: int,
        hide_suggestions: bool,
    ) -> None:
        self._schema = schema
        self._definitions = definitions
        self._max_errors = max_errors
        self._hide_suggestions = hide_suggestions
        self._variables = [_variable(schema, node, input_types) for node in definitions]

    def coerce(self, inputs: Mapping[str, Any]) -> dict[str, Any] | list[GraphQLError]:
        """Return the values of the variables, or why they do not fit."""
        try:
            return self._coerce(inputs)
        except Exception:
            return self._coerce_as_core_does(inputs)

    def _coerce(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        coerced: dict[str, Any] = {}
        for name, signature, default, is_required, coerce in self._variables:
            given = inputs.get(name, Undefined)
            if given is not Undefined and coerce is not None:
                value = coerce(given)
            elif given is Undefined and default is not None:
                # Made anew for each execution: a resolver may change what it is given.
                value = coerce_input_literal(default, signature.type)
            elif given is Undefined and not is_required:
                continue
            else:
                value = Undefined
            if value is Undefined:
                raise _DoesNotFit
            coerced[name] = value
        return coerced

    def _coerce_as_core_does(
        self, inputs: Mapping[str, Any]
    ) -> dict[str, Any] | list[GraphQLError]:
        try:
            for variable in self._variables:
                name, type_ = variable.name, variable.signature.type
                check_members(inputs.get(name), type_, f"${name}")
        except InvalidInput as error:
            return [GraphQLError(error.message)]
        values = get_variable_values(
            self._schema,
            self._definitions,
            dict(inputs),
            self._max_errors,
            hide_suggestions=self._hide_suggestions,
        )
        return values if isinstance(values, list) else values.coerced

    def values(self, inputs: Mapping[str, Any], coerced: dict[str, Any]) -> VariableValues:
        """Return coerced values as graphql-core keeps them: with what they were made of."""
        sources = {
            variable.name: VariableValueSource(
                variable.signature, inputs.get(variable.name, Undefined)
            )
            for variable in self._variables
        }
        return VariableValues(sources, coerced)


def _variable(
    schema: GraphQLSchema, node: VariableDefinitionNode, input_types: InputTypes
) -> _Variable:
    signature = get_variable_signature(schema, node)
    if isinstance(signature, GraphQLError):
        raise signature  # of a document that is not valid
    coerce: Coerce | None = None
    with suppress(NotCompilable):
        coerce = input_types.coerce(signature.type)
    is_required = is_non_null_type(signature.type)
    return _Variable(signature.name, signature, node.default_value, is_required, coerce)
