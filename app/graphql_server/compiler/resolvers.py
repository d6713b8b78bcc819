"""Resolve the value of a field.

A field of a Strawberry class is read as an attribute, or its function is called, without the
wrappers that Strawberry puts around both. Any other field (with extensions, permissions, or a
resolver of graphql-core) is resolved by the function that the schema has for it.
"""

from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from graphql import TypeNameMetaFieldDef, default_field_resolver
from graphql.pyutils import Path
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.field import StrawberryField
from strawberry.types.fields.resolver import StrawberryResolver
from strawberry.types.info import Info

from app.graphql_server.compiler.arguments import Arguments, CoerceArguments, compile_arguments
from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.info import LazyInfo
from app.graphql_server.compiler.input_classes import InputClasses
from app.graphql_server.compiler.plan import FieldPlan, NotCompilable

__all__ = ["Arguments", "Resolver", "attribute_name", "compile_resolver"]

# source, coerced arguments, path, graphql-core's info or None
Call: TypeAlias = Callable[[Any, Arguments, Path, Any, Execution], Any]


class Resolver(NamedTuple):
    call: Call
    coerce_arguments: CoerceArguments
    is_async: bool = False
    takes_raw_info: bool = False


def attribute_name(plan: FieldPlan) -> str | None:
    """Return the name of the attribute that the field reads, or None."""
    field = _strawberry_field(plan)
    if field is None or not field.is_basic_field or field.default_resolver is not getattr:
        return None
    return None if field.is_subscription else field.python_name


def compile_resolver(plan: FieldPlan, inputs: InputClasses, hide_suggestions: bool) -> Resolver:
    if plan.definition is TypeNameMetaFieldDef:
        typename = plan.parent_type.name
        return Resolver(lambda *_: typename, _no_arguments)
    if attribute := attribute_name(plan):
        read = attrgetter(attribute)
        return Resolver(lambda source, *_: read(source), _no_arguments)
    field = _strawberry_field(plan)
    if field and field.is_subscription:
        return Resolver(lambda event, *_: event, _no_arguments)
    if field and inputs.calls_plainly and type(field.base_resolver) is StrawberryResolver:
        with suppress(NotCompilable):
            return _function(plan, field, field.base_resolver, inputs, hide_suggestions)
    return _of_schema(plan, hide_suggestions)


def _no_arguments(_: Execution) -> Arguments:
    return {}


def _strawberry_field(plan: FieldPlan) -> StrawberryField | None:
    """Return the Strawberry field, or None if it has extensions or a resolver of another kind."""
    field = plan.definition.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    is_usual = (
        isinstance(field, StrawberryField)
        and type(field).get_result is StrawberryField.get_result
        and not field.extensions
    )
    return field if is_usual else None


def _of_schema(plan: FieldPlan, hide_suggestions: bool) -> Resolver:
    resolve = plan.definition.resolve or default_field_resolver
    node = plan.details[0].node
    coerce = compile_arguments(plan.definition, node, hide_suggestions)

    def call(source: Any, arguments: Arguments, _path: Path, info: Any, _: Execution) -> Any:
        return resolve(source, info, **arguments)

    return Resolver(call, coerce, takes_raw_info=True)


def _function(
    plan: FieldPlan,
    field: StrawberryField,
    resolver: StrawberryResolver[Any],
    inputs: InputClasses,
    hide_suggestions: bool,
) -> Resolver:
    """Call the function that the class has for the field. Raises NotCompilable."""
    function: Any = resolver.wrapped_func
    convert = inputs.arguments(field)
    names = None if convert else inputs.names(field)
    coerce = compile_arguments(plan.definition, plan.details[0].node, hide_suggestions, names)
    takes_self = resolver.self_parameter is not None
    parameters = (resolver.parent_parameter, resolver.root_parameter)
    source_names = [parameter.name for parameter in parameters if parameter]
    info_name = resolver.info_parameter.name if resolver.info_parameter else None

    def call(source: Any, arguments: Arguments, path: Path, info: Any, execution: Execution) -> Any:
        given = convert(arguments) if convert else arguments
        for name in source_names:
            given[name] = source
        if info_name is not None:
            given[info_name] = (
                LazyInfo(field, plan, path, execution)
                if info is None
                else Info(_raw_info=info, _field=field)
            )
        return function(source, **given) if takes_self else function(**given)

    return Resolver(call, coerce, is_async=field.is_async)
