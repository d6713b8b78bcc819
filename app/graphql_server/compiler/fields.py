"""Execute one field: resolve it, complete its value, and settle its errors."""

from collections.abc import Callable
from inspect import isawaitable
from types import CoroutineType
from typing import Any

from graphql import TypeNameMetaFieldDef
from graphql.pyutils import Path

from app.graphql_server.compiler.completion import leaf_of, needs_info, plain_class
from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.input_classes import InputClasses
from app.graphql_server.compiler.plan import (
    Complete,
    ExecuteField,
    FieldPlan,
    is_awaitable,
    make_path,
)
from app.graphql_server.compiler.resolvers import (
    Arguments,
    Resolver,
    attribute_name,
    compile_resolver,
)
from app.graphql_server.compiler.selections import Field, LeafAttribute, Typename
from app.graphql_server.response_size import field_size


def compile_field(
    plan: FieldPlan, complete: Complete, inputs: InputClasses, hide_suggestions: bool
) -> Field:
    """Return the function that executes a field; `complete` completes its value."""
    resolver = compile_resolver(plan, inputs, hide_suggestions)
    make = _async if resolver.is_async else _sync
    return Field(plan.response_name, make(plan, complete, resolver))


def compile_simple_field(plan: FieldPlan, complete: Complete) -> LeafAttribute | Typename | None:
    """Make the execution of the field if it is a leaf that is known or an attribute.

    Its path is built when something is out of the ordinary.
    """
    name, parent = plan.response_name, plan.parent_type.name
    if plan.definition is TypeNameMetaFieldDef:
        return Typename(name, parent)
    attribute, leaf = attribute_name(plan), leaf_of(plan.definition.type, plan)
    if attribute is None or leaf is None:
        return None
    wait, finish = _waits(plan, complete)

    def complete_other(value: Any, path: Path | None, execution: Execution) -> Any:
        if is_awaitable(value):
            return wait(value, make_path(path, name, parent), None, execution)
        return finished(leaf.complete(value), path, execution)

    def check(value: Any, coerced: Any, path: Path | None, execution: Execution) -> Any:
        return finished(leaf.check(value, coerced), path, execution)

    def finished(completed: Any, path: Path | None, execution: Execution) -> Any:
        if type(completed) is CoroutineType:
            return finish(completed, make_path(path, name, parent), execution)
        return completed

    def fail(error: Exception, path: Path | None, execution: Execution) -> None:
        plan.fail(error, make_path(path, name, parent), execution)

    return LeafAttribute(name, attribute, leaf, complete_other, check, fail)


def _sync(plan: FieldPlan, complete: Complete, resolver: Resolver) -> ExecuteField:
    """Return the function for a field whose value may be awaitable."""
    name, parent = plan.response_name, plan.parent_type.name
    size = field_size(name)
    call, coerce = resolver.call, resolver.coerce_arguments
    takes_info = resolver.takes_raw_info or needs_info(plan.definition.type)
    plain = plain_class(plan.definition.type)
    wait, finish = _waits(plan, complete)

    def execute(source: Any, path: Path | None, execution: Execution) -> Any:
        path = make_path(path, name, parent)
        try:
            execution.size.add(size)
            info = plan.info(execution, path) if takes_info else None
            value = call(source, coerce(execution), path, info, execution)
            if type(value) is not plain and is_awaitable(value):
                return wait(value, path, info, execution)
            completed = complete(value, path, info, execution)
        except Exception as error:
            return plan.fail(error, path, execution)
        return finish(completed, path, execution) if type(completed) is CoroutineType else completed

    return execute


def _async(plan: FieldPlan, complete: Complete, resolver: Resolver) -> ExecuteField:
    """A field with an asynchronous function: Strawberry calls it when its field is awaited."""
    name, parent = plan.response_name, plan.parent_type.name
    size = field_size(name)
    call, coerce = resolver.call, resolver.coerce_arguments
    takes_info = needs_info(plan.definition.type)

    def execute(source: Any, path: Path | None, execution: Execution) -> Any:
        path = make_path(path, name, parent)
        try:
            execution.size.add(size)
            arguments = coerce(execution)
        except Exception as error:
            return plan.fail(error, path, execution)
        return run(source, arguments, path, execution)

    async def run(source: Any, arguments: Arguments, path: Path, execution: Execution) -> Any:
        try:
            info = plan.info(execution, path) if takes_info else None
            value = call(source, arguments, path, info, execution)
            if type(value) is CoroutineType or isawaitable(value):
                value = await value
            completed = complete(value, path, info, execution)
            return await completed if type(completed) is CoroutineType else completed
        except Exception as error:
            return plan.fail(error, path, execution)

    return execute


def _waits(plan: FieldPlan, complete: Complete) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Make the coroutines that wait for a value, and for the completion of one."""

    async def wait(value: Any, path: Path, info: Any, execution: Execution) -> Any:
        try:
            completed = complete(await value, path, info, execution)
            return await completed if type(completed) is CoroutineType else completed
        except Exception as error:
            return plan.fail(error, path, execution)

    async def finish(completed: Any, path: Path, execution: Execution) -> Any:
        try:
            return await completed
        except Exception as error:
            return plan.fail(error, path, execution)

    return wait, finish
