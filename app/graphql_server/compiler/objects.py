"""Complete objects, interfaces and unions."""

from types import CoroutineType
from typing import Any

from graphql import (
    GraphQLAbstractType,
    GraphQLObjectType,
    Undefined,
    default_type_resolver,
)
from graphql.execution.executor import invalid_return_type_error
from graphql.pyutils import Path
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.cast import get_strawberry_type_cast

from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.plan import (
    Complete,
    FieldPlan,
    Select,
    is_awaitable,
    is_never_awaitable,
)


def own_class(type_: GraphQLObjectType) -> type | None:
    """Return the Strawberry class of the type, if its instances need no `is_type_of`."""
    definition = type_.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if not isinstance(definition, StrawberryObjectDefinition) or definition.is_type_of:
        return None
    origin = definition.origin
    is_plain = not issubclass(origin, Exception) and is_never_awaitable(origin)
    return origin if is_plain else None


def compile_object(type_: GraphQLObjectType, plan: FieldPlan, select: Select) -> Complete:
    own = own_class(type_)
    is_type_of = type_.is_type_of

    def complete_object(value: Any, path: Path, info: Any, execution: Execution) -> Any:
        if type(value) is own and (is_type_of is None or get_strawberry_type_cast(value) is None):
            return select(value, path, execution)
        if isinstance(value, Exception):
            raise value
        if value is None or value is Undefined:
            return None
        if is_type_of is not None:
            answer = is_type_of(value, info or plan.info(execution, path))
            if is_awaitable(answer):
                return select_if(answer, value, path, execution)
            require(answer, value)
        return select(value, path, execution)

    async def select_if(answer: Any, value: Any, path: Path, execution: Execution) -> Any:
        require(await answer, value)
        selected = select(value, path, execution)
        return await selected if type(selected) is CoroutineType else selected

    def require(answer: object, value: Any) -> None:
        if not answer:
            raise invalid_return_type_error(type_, value, plan.details)

    return complete_object


def compile_abstract(
    type_: GraphQLAbstractType, objects: dict[str, Complete], plan: FieldPlan
) -> Complete:
    """`objects` completes the possible types, by their names."""
    resolve_type: Any = type_.resolve_type or default_type_resolver

    def complete_abstract(value: Any, path: Path, info: Any, execution: Execution) -> Any:
        if isinstance(value, Exception):
            raise value
        if value is None or value is Undefined:
            return None
        info = info or plan.info(execution, path)
        name = resolve_type(value, info, type_)
        if is_awaitable(name):
            return complete_later(name, value, path, info, execution)
        return complete_as(name, value, path, info, execution)

    def complete_as(name: Any, value: Any, path: Path, info: Any, execution: Execution) -> Any:
        complete = objects.get(name) if type(name) is str else None
        if complete is None:
            found = execution.core.ensure_valid_runtime_type(name, type_, plan.details, info, value)
            complete = objects[found.name]
        return complete(value, path, info, execution)

    async def complete_later(
        name: Any, value: Any, path: Path, info: Any, execution: Execution
    ) -> Any:
        completed = complete_as(await name, value, path, info, execution)
        return await completed if type(completed) is CoroutineType else completed

    return complete_abstract
