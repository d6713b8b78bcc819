"""Complete lists and tuples; graphql-core completes iterators and asynchronous iterables."""

from collections.abc import Callable
from types import CoroutineType
from typing import Any

from graphql import GraphQLList
from graphql.execution.executor import collect_iterator_awaitables
from graphql.pyutils import Path

from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.plan import Complete, FieldPlan, is_awaitable, make_path
from app.graphql_server.compiler.waiting import gather


def compile_list(
    type_: GraphQLList[Any], plan: FieldPlan, complete: Complete, plain_class: type | None
) -> Complete:
    """`complete` is for an item; those of `plain_class` are no awaitables."""
    complete_item, wait_for_item = _items(type_, plan, complete)

    def complete_list(value: Any, path: Path, info: Any, execution: Execution) -> Any:
        if type(value) is not list and type(value) is not tuple:
            return None if value is None else _other(type_, plan, value, path, info, execution)
        execution.size.add_list(len(value))
        results: list[Any] = []
        pending: list[int] = []
        items = iter(value)
        try:
            for index, item in enumerate(items):
                item_path = make_path(path, index, None)
                if type(item) is not plain_class and is_awaitable(item):
                    completed = wait_for_item(item, item_path, info, execution)
                else:
                    completed = complete_item(item, item_path, info, execution)
                results.append(completed)
                if type(completed) is CoroutineType:
                    pending.append(index)
        except Exception:
            awaitables = [results[index] for index in pending]
            awaitables += collect_iterator_awaitables(items, is_awaitable)
            if awaitables:
                execution.core.settle_in_background(awaitables)
            raise
        return _wait(results, pending) if pending else results

    return complete_list


def _other(
    type_: GraphQLList[Any], plan: FieldPlan, value: Any, path: Path, info: Any, run: Execution
) -> Any:
    info = info or plan.info(run, path)
    return run.core.complete_value(type_, plan.details, info, path, value, None)


def _items(
    type_: GraphQLList[Any], plan: FieldPlan, complete: Complete
) -> tuple[Complete, Callable[..., Any]]:
    """Make the completion of an item, and of one that is an awaitable."""

    def complete_item(item: Any, path: Path, info: Any, execution: Execution) -> Any:
        try:
            completed = complete(item, path, info, execution)
        except Exception as error:
            return fail(error, path, execution)
        if type(completed) is CoroutineType:
            return finish(completed, path, execution)
        return completed

    async def finish(completed: Any, path: Path, execution: Execution) -> Any:
        try:
            return await completed
        except Exception as error:
            return fail(error, path, execution)

    async def wait_for_item(item: Any, path: Path, info: Any, execution: Execution) -> Any:
        try:
            completed = complete(await item, path, info, execution)
            return await completed if type(completed) is CoroutineType else completed
        except Exception as error:
            return fail(error, path, execution)

    def fail(error: Exception, path: Path, execution: Execution) -> None:
        execution.core.handle_field_error(error, type_.of_type, plan.details, path)

    return complete_item, wait_for_item


async def _wait(results: list[Any], pending: list[int]) -> list[Any]:
    if len(pending) == 1:
        [index] = pending
        results[index] = await results[index]
    else:
        values = await gather(results[index] for index in pending)
        for index, value in zip(pending, values, strict=True):
            results[index] = value
    return results
