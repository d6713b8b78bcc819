"""The `info` argument of resolvers."""

from functools import cached_property
from typing import Any

from graphql.pyutils import Path
from strawberry.types.field import StrawberryField
from strawberry.types.info import Info

from app.graphql_server.compiler.execution import Execution
from app.graphql_server.compiler.plan import FieldPlan


class LazyInfo(Info[Any, Any]):
    """Strawberry's info; graphql-core's own, below it, is built when something asks for it."""

    def __init__(
        self, field: StrawberryField, plan: FieldPlan, path: Path, execution: Execution
    ) -> None:
        self._field = field
        self._plan = plan
        self._path = path
        self._execution = execution

    @cached_property
    def _raw_info(self) -> Any:  # type: ignore[override]
        return self._plan.info(self._execution, self._path)

    @property
    def context(self) -> Any:
        return self._execution.context
