"""The types that all parts of a compiled operation share."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from graphql import GraphQLField, GraphQLObjectType
from graphql.execution.collect_fields import FieldDetailsList
from graphql.pyutils import Path
from strawberry.execution import optimized_is_awaitable

from app.graphql_server.compiler.execution import Execution

# A compiled part returns its result, or a coroutine object if it has to wait. It never returns
# another kind of awaitable, so one comparison of types distinguishes the two.
ExecuteField: TypeAlias = Callable[[Any, Path | None, Execution], Any]  # source, its path
Select: TypeAlias = Callable[[Any, Path | None, Execution], Any]  # object, its path
Complete: TypeAlias = Callable[[Any, Path, Any, Execution], Any]  # value, its path, info or None

is_awaitable = optimized_is_awaitable

# Exactly these classes: a derived class may behave differently.
JSON_TYPES = frozenset({str, int, float, bool, dict, list})
IMMUTABLE_TYPES = frozenset(
    {type(None), str, int, float, bool, UUID, datetime, date, time, timedelta, Decimal}
)


class NotCompilable(Exception):
    """A part of the operation can only be executed by graphql-core."""


@dataclass(slots=True, frozen=True)
class FieldPlan:
    """A field of a selection set, merged from all its places in the document."""

    response_name: str
    definition: GraphQLField
    parent_type: GraphQLObjectType
    details: FieldDetailsList

    def info(self, execution: Execution, path: Path) -> Any:
        """Build graphql-core's info of the field; `path` may lead to an item of its value."""
        while isinstance(path.key, int) and path.prev is not None:
            path = path.prev
        nodes = [details.node for details in self.details]
        return execution.core.build_resolve_info(self.definition, nodes, self.parent_type, path)

    def fail(self, error: Exception, path: Path, execution: Execution) -> None:
        """Record the error of a nullable field; raise it, located, for one that is not."""
        execution.core.handle_field_error(error, self.definition.type, self.details, path)


def make_path(prev: Path | None, key: str | int, typename: str | None) -> Path:
    return tuple.__new__(Path, (prev, key, typename))


def is_never_awaitable(cls: type) -> bool:
    """Whether no instance of the class can be awaited, without looking at the instance.

    graphql-core also takes an instance with an attribute `__await__` of its own for an awaitable;
    Python does not.
    """
    own = [base for base in cls.__mro__ if base.__module__ != "builtins"]
    defined = {name for base in own for name in vars(base)}
    return defined.isdisjoint({"__await__", "__getattr__", "__getattribute__", "__class__"})
