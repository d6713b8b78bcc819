"""Coerce values of variables, one function for each input type of the schema.

Each does what graphql-core's `coerce_input_value` does, but returns Undefined for a wrong value.
graphql-core then reports the error.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from graphql import (
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLString,
    Undefined,
)
from graphql.pyutils import is_iterable
from graphql.type import is_required_input_field
from graphql.utilities.coerce_input_value import coerce_default_value

from app.graphql_server.compiler.plan import NotCompilable

Coerce: TypeAlias = Callable[[Any], Any]


class InputTypes:
    """The functions that coerce values, each made when first asked for."""

    def __init__(self) -> None:
        self._objects: dict[str, Coerce] = {}
        self._entered: set[str] = set()

    def coerce(self, type_: GraphQLInputType) -> Coerce:
        """Return the function. Raises NotCompilable for a recursive type.

        graphql-core bounds the depth of its values, which no other type needs.
        """
        if isinstance(type_, GraphQLNonNull):
            return _non_null(self.coerce(type_.of_type))
        if isinstance(type_, GraphQLList):
            return _nullable(_list(self.coerce(type_.of_type)))
        if isinstance(type_, GraphQLInputObjectType):
            return _nullable(self._object(type_))
        if type_ is GraphQLString:
            return _string
        return _nullable(_leaf(type_.coerce_input_value))

    def _object(self, type_: GraphQLInputObjectType) -> Coerce:
        if type_.name not in self._objects:
            if type_.name in self._entered:
                raise NotCompilable(f"{type_.name} holds itself.")
            self._entered.add(type_.name)
            try:
                fields = {
                    name: _Field(
                        field,
                        field.out_name or name,
                        self.coerce(field.type),
                        coerce_default_value(field) is not Undefined,
                    )
                    for name, field in type_.fields.items()
                }
            finally:
                self._entered.discard(type_.name)
            self._objects[type_.name] = _object(type_, fields)
        return self._objects[type_.name]


def _string(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else Undefined


def _non_null(coerce: Coerce) -> Coerce:
    def coerce_non_null(value: Any) -> Any:
        return Undefined if value is None or value is Undefined else coerce(value)

    return coerce_non_null


def _nullable(coerce: Coerce) -> Coerce:
    def coerce_nullable(value: Any) -> Any:
        return None if value is None or value is Undefined else coerce(value)

    return coerce_nullable


def _leaf(parse: Coerce) -> Coerce:
    def coerce_leaf(value: Any) -> Any:
        try:
            return parse(value)
        except Exception:
            return Undefined

    return coerce_leaf


def _list(coerce: Coerce) -> Coerce:
    def coerce_list(value: Any) -> Any:
        coerced = [coerce(item) for item in (value if is_iterable(value) else (value,))]
        return Undefined if any(item is Undefined for item in coerced) else coerced

    return coerce_list


class _Field(NamedTuple):
    definition: GraphQLInputField
    out_name: str
    coerce: Coerce
    has_default: bool


def _object(type_: GraphQLInputObjectType, fields: dict[str, _Field]) -> Coerce:
    required = {name for name, field in fields.items() if is_required_input_field(field.definition)}

    def coerce_object(value: Any) -> Any:
        if not isinstance(value, dict) or not required <= value.keys() <= fields.keys():
            return Undefined
        coerced: dict[str, Any] = {}
        for name, (definition, out_name, coerce, has_default) in fields.items():
            given = value.get(name, Undefined)
            if given is not Undefined:
                coerced[out_name] = result = coerce(given)
                if result is Undefined:
                    return Undefined
            elif has_default:
                coerced[out_name] = coerce_default_value(definition)
        if type_.is_one_of and not _is_one(value, coerced):
            return Undefined
        return type_.out_type(coerced)

    return coerce_object


def _is_one(given: dict[str, Any], coerced: dict[str, Any]) -> bool:
    return len(given) == len(coerced) == 1 and next(iter(coerced.values())) is not None
