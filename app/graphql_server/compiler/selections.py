"""The fields of a selection set, and how to execute them one after another."""

from collections.abc import Callable, Iterable
from types import CoroutineType
from typing import Any, NamedTuple

from graphql.pyutils import Path

from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.leaves import Leaf
from app.graphql_server.compiler.plan import ExecuteField, Select


class Field(NamedTuple):
    """Any field. `execute` counts its part of the answer's size."""

    name: str
    execute: ExecuteField


class Typename(NamedTuple):
    """`__typename`, which is known where the type of an object is."""

    name: str
    typename: str


class LeafAttribute(NamedTuple):
    """The commonest field: a leaf that is an attribute of its object.

    `complete` takes an unusual value, `check` a usual one with its converted form, `fail` an error.
    """

    name: str
    attribute: str
    leaf: Leaf
    complete: Callable[[Any, Path | None, Execution], Any]
    check: Callable[[Any, Any, Path | None, Execution], Any]
    fail: Callable[[Exception, Path | None, Execution], None]


def one_by_one(fields: Iterable[Field]) -> Select:
    """Execute each field when the one before is complete: the root fields of a mutation."""
    executors = tuple(fields)

    def select(source: Any, path: Path | None, execution: Execution) -> Any:
        results: dict[str, Any] = {}
        for index, (name, execute) in enumerate(executors, 1):
            value = execute(source, path, execution)
            if type(value) is CoroutineType:
                return go_on(results, name, value, index, source, execution)
            results[name] = value
        return results

    async def go_on(
        results: dict[str, Any],
        pending_name: str,
        pending: Any,
        done: int,
        source: Any,
        execution: Execution,
    ) -> dict[str, Any]:
        results[pending_name] = await pending
        for name, execute in executors[done:]:
            value = execute(source, None, execution)
            results[name] = await value if type(value) is CoroutineType else value
        return results

    return select
